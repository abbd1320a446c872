"""What the project claims of its speed, measured: run by hand, with nothing else on the machine. One command a table:

    python tests/benchmark.py encode SOURCE           get_data.py against only parsing what it uses
    python tests/benchmark.py training USER_DATA      rows per second, and AUC, against plain Keras and against DeepCTR 0.9.4
    python tests/benchmark.py peers USER_DATA         DeepCTR's models and LightGBM on the same pickles, into results.csv there
    python tests/benchmark.py limit USER_DATA         what share of a step the arithmetic or the memory alone would take
    python tests/benchmark.py total SOURCE            get_data.py and the four scripts, from the CSVs to the AUCs
    python tests/benchmark.py final SOURCE            get_data.py and mmoe.py on ten times the users, as many rows as the contest's final round
    python tests/benchmark.py start USER_DATA         from the command to the end of the first training step
    python tests/benchmark.py scoring USER_DATA       AUC, uAUC and log loss of all tasks of the validation day

What is compared runs in turn, each time in a new process; a figure is the median. Every measurement goes to
user_data/benchmark.csv with the machine and the versions. `training` and `peers` make an environment for DeepCTR and LightGBM in user_data/.peers.
"""
import argparse
import csv
import importlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
OUT = ROOT / "user_data" / "benchmark.csv"
SCRIPTS = ("deepfm", "mmoe", "ple", "FocalLoss")
PACKAGES = ("deepctr==0.9.4", "tensorflow==2.21.0", "tf_keras==2.21.0", "setuptools<81", "lightgbm==4.7.0", "scikit-learn==1.9.1")
PEERS = {  # what peers runs: the worker's name for it
    "LightGBM": "lightgbm", "LightGBM, history": "lightgbm_history", "LightGBM, history and watch times": "lightgbm_watch_times",
    "DeepCTR DeepFM": "deepfm", "DeepCTR MMOE": "mmoe", "DeepCTR PLE": "ple",
}
WARM = 20  # steps before the clock starts
EXPERTS = {"deepfm": {}, "mmoe": {}, "ple": {"own_experts": "5", "shared_experts": 4}}  # PLE: 24 experts with four tasks


def record(table, **values):
    """Append a measurement to benchmark.csv: what, how much, of which unit, on which machine."""
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "table": table, "values": json.dumps(values), "machine": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "numpy", "pandas")},
    }
    new = not OUT.exists()
    with open(OUT, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def timed(*command, env=()):
    """Run a command to its end: seconds and peak memory in GB; stops the benchmark if the command fails."""
    with tempfile.TemporaryFile("w+") as said:
        since = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said, env={**os.environ, **dict(env)})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - since
        if status:
            said.seek(0)
            raise SystemExit(f"{said.read()}\n{' '.join(map(str, command))} failed.")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def medians(table, ways, rounds):
    """Run {name: function() -> tuple of numbers} in turn, `rounds` times; record each; {name: tuple of medians}."""
    found = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
            record(table, name=name, numbers=found[name][-1])
    return {name: tuple(map(statistics.median, zip(*runs))) for name, runs in found.items()}


# ---- encode


PARSING = """
import sys, numpy as np, pandas as pd
from pathlib import Path
folder = Path(sys.argv[1])
log = pd.read_csv(folder / "user_action.csv", usecols=list(%r))
info = pd.read_csv(folder / "feed_info.csv", usecols=list(%r))
path = folder / "feed_embeddings.csv"
for line in path.read_text().splitlines()[1:] if path.exists() else ():
    np.fromstring(line.split(",")[1], np.float32, sep=" ")
"""


def encode(source, rounds):
    from common.columns import ACTIONS
    from get_data import FEED_IDS, LISTS

    used = ["userid", "feedid", "date_", "device", "play", *ACTIONS], ["feedid", "videoplayseconds", *FEED_IDS, *itertools.chain(*LISTS.values())]
    with tempfile.TemporaryDirectory() as out:
        found = medians("encode", {
            "get_data.py": lambda: timed(sys.executable, "get_data.py", source, "--out", out),
            "parsing alone": lambda: timed(sys.executable, "-c", PARSING % used, source),
        }, rounds)
    for name, (seconds, peak) in found.items():
        print(f"{name:16}{seconds:8.1f} s {peak:6.2f} GB")
    print(f"{found['get_data.py'][0] / found['parsing alone'][0]:.2f} times the time of parsing alone")


# ---- training


def flat(data, names, rows):
    """The named features of interactions, laid out as tutorials do: ids {name: (rows,)}, padded lists {name: (rows, longest)}, dense."""
    import numpy as np

    ids, lists, dense = {}, {}, []
    for name in names:
        feature = data.meta["features"][name]
        key = feature["table"]
        column, row = (data.tables[key][name], rows[key]) if key else (rows[name], slice(None))
        if feature["kind"] == "id":
            ids[name] = column[row].astype(np.int32)
        elif feature["kind"] == "list":
            lengths = np.diff(column["offsets"])
            padded = np.zeros((len(lengths), max(lengths.max(), 1)), np.int32)
            padded[np.arange(padded.shape[1]) < lengths[:, None]] = column["values"]
            lists[name] = padded[row]
        elif feature["kind"] == "dense":
            dense.append(column[rows["day"], row] if feature["daily"] else column[row])
        else:
            with_ = data.meta["features"][feature["with"]]["table"]
            own, other = column[rows["day"], row], data.tables[with_][feature["with"]][rows[with_]]
            dense.append(np.einsum("rnk,rk->rn", own, other, dtype=np.float32))
    return ids, lists, np.concatenate([block.reshape(len(rows["day"]), -1).astype(np.float32) for block in dense], axis=1)


def prepare(folder, n_rows, place, own=5, shared=4):
    """Write the arrays and the spec of the comparison to `place`: the same rows (None: all of them) and features for all."""
    import numpy as np
    import mmoe
    from common.pickles import known, load

    data = load(folder)
    names = known(mmoe.FEATURES, data.meta).split(",")
    tasks, rng, arrays = list(data.meta["tasks"]), np.random.default_rng(0), {}
    chosen = rng.permutation(len(data.train["day"]))[:n_rows]
    for split, rows in (("train", {name: column[chosen] for name, column in data.train.items()}), ("valid", data.valid)):
        ids, lists, dense = flat(data, names, rows)
        columns = {**ids, **lists, "dense_values": dense, **{task: rows[task] for task in tasks}}
        arrays |= {f"{split}_{name}": column for name, column in columns.items()}
    size = {name: data.meta["vocabularies"][data.meta["features"][name]["vocabulary"]] for name in (*ids, *lists)}
    settings, deepfm = mmoe.Settings(), importlib.import_module("deepfm").Settings()

    def n_columns(ending):
        return sum(data.tables[data.meta["features"][name]["table"]][name].shape[-1] for name in names if name.endswith(ending))

    spec = {
        "tasks": tasks, "features": names, "ids": {name: size[name] for name in ids}, "dense": dense.shape[1],
        "history": n_columns("_history"), "watch_times": n_columns(("_history", "_watch_time")),  # the first of the dense columns
        "lists": {name: (size[name], max(arrays[f"{split}_{name}"].shape[1] for split in ("train", "valid"))) for name in lists},
        "learning_rate": settings.learning_rate, "embedding_dim": settings.embedding_dim, "expert_dim": settings.expert_dim, "tower": int(settings.tower), "experts": settings.experts,
        "own": own, "shared": shared, "hidden": [int(width) for width in deepfm.hidden.split(",")], "dropout": deepfm.dropout,
    }
    np.savez(place / "arrays.npz", chosen=chosen, **arrays)
    (place / "spec.json").write_text(json.dumps(spec))
    return data, tasks


def setup(model, batch_size, seed, folder, arrays):
    """What the two workers of our own share: data of the chosen rows, tasks, module, settings, the arrays, the order of rows."""
    import common.quiet  # noqa: F401 -- first
    import keras
    import numpy as np
    from common.pickles import known, load

    keras.utils.set_random_seed(seed)
    data, arrays, module = load(folder), np.load(arrays), importlib.import_module(model)
    data.train = {name: column[arrays["chosen"]] for name, column in data.train.items()}
    settings = module.Settings(batch_size=batch_size, embedding_l2=0.0, **EXPERTS[model])  # without L2, which would make plain Keras's Adam another
    settings.learning_rate *= (batch_size / 1024) ** 0.5  # as for the peers: fewer steps, each longer
    settings.features = known(settings.features, data.meta)
    tasks = list(data.meta["tasks"])[: 1 if model == "deepfm" else None]
    rows = len(arrays["chosen"]) // batch_size * batch_size
    return data, tasks, module, settings, arrays, np.random.default_rng(seed).permutation(rows)


def ours(model, batch_size, seed, folder, arrays, out):
    """A worker: one epoch by the project's own training."""
    data, tasks, module, settings, _, order = setup(model, batch_size, seed, folder, arrays)
    import numpy as np
    import tensorflow as tf
    from common.recommender import Recommender
    from common.training import STEPS_PER_CALL, cross_entropy

    embed, network = module.build(data, tasks, settings)
    recommender = Recommender(embed, network, cross_entropy(settings), dict.fromkeys(tasks, 1.0), settings.embedding_l2)
    train = {name: tf.constant(data.train[name]) for name in (*recommender.columns, *tasks)}
    order = order.astype(np.int32).reshape(-1, batch_size)
    rates = np.full(len(order), settings.learning_rate, np.float32)

    def steps(first, last):
        float(recommender.train(train, tf.constant(order[first:last]), tf.constant(rates[first:last])))

    steps(0, WARM // 2)
    steps(WARM // 2, WARM // 2 + 1)  # another number of steps: from here on the graph takes any
    steps(WARM // 2 + 1, WARM)
    since = time.perf_counter()
    for first in range(WARM, len(order), STEPS_PER_CALL):
        steps(first, first + STEPS_PER_CALL)
    seconds = time.perf_counter() - since
    np.savez(out, rows_per_second=order[WARM:].size / seconds, **recommender.predict(data.valid))


def plain(model, batch_size, seed, folder, arrays, out):
    """A worker: the same network on one padded Embedding a field, with Keras's Adam and `fit` on NumPy arrays."""
    data, tasks, module, settings, arrays, order = setup(model, batch_size, seed, folder, arrays)
    import keras
    import numpy as np
    from keras import layers, ops

    arrays, module.Dropout = dict(arrays), layers.Dropout
    embed, network = module.build(data, tasks, settings)
    names = [name[6:] for name in arrays if name.startswith("train_") and name[6:] not in data.meta["tasks"]]
    inputs, vectors = {name: keras.Input(arrays[f"train_{name}"].shape[1:], name=name, dtype=arrays[f"train_{name}"].dtype.name) for name in names}, []
    for name in names[:-1]:  # the last is the dense values
        ids, size = inputs[name], data.meta["vocabularies"][data.meta["features"][name]["vocabulary"]]
        found = layers.Embedding(size, embed.dim, keras.initializers.RandomNormal(stddev=0.01))(ids)
        if len(ids.shape) == 2:  # the mean of what is there
            there = ops.expand_dims(ops.cast(ids != 0, "float32"), -1)
            found = ops.sum(found * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1.0)
        vectors.append(found)
    whole = keras.Model(inputs, network([ops.stack(vectors, axis=1), inputs["dense_values"]]))
    whole.compile(keras.optimizers.Adam(settings.learning_rate), {task: keras.losses.BinaryCrossentropy(from_logits=True) for task in tasks})

    def fit(part):
        columns = {name: arrays[f"train_{name}"][part] for name in names}
        whole.fit(columns, {task: arrays[f"train_{task}"][part].astype("float32") for task in tasks}, batch_size, verbose=0, shuffle=False)

    fit(order[: WARM * batch_size])
    since = time.perf_counter()
    fit(order[WARM * batch_size :])
    seconds = time.perf_counter() - since
    logits = whole.predict({name: arrays[f"valid_{name}"] for name in names}, 16384, verbose=0)
    np.savez(out, rows_per_second=(len(order) - WARM * batch_size) / seconds, **{task: logits[task][:, 0] for task in tasks})


def environment():
    """The Python of the peers' own environment, made if it is not there."""
    python = ROOT / "user_data" / ".peers" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def training(folder, rounds, n_rows, models, batch_sizes):
    import numpy as np
    from common.scoring import auc, uauc

    folder, python = Path(folder).resolve(), environment()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        data, tasks = prepare(folder, n_rows, place)
        out = place / "out.npz"
        print(f"{data.meta['name']}{' (SYNTHETIC)' * data.meta['synthetic']}, {n_rows:,} rows, medians of {rounds}; AUC and uAUC: means over tasks")
        print(f"{'':24}{'rows/s':>10}{'ratio':>7}{'AUC':>19}{'uAUC':>19}{'peak GB':>9}")
        for batch_size in batch_sizes:
            for model in models:
                found = {"ours": [], "plain Keras": [], "DeepCTR": []}
                for seed in range(rounds):
                    arguments = (model, batch_size, seed)
                    commands = {
                        "ours": ((sys.executable, __file__, "ours", *arguments, folder, place / "arrays.npz", out), ()),
                        "plain Keras": ((sys.executable, __file__, "plain", *arguments, folder, place / "arrays.npz", out), ()),
                        "DeepCTR": ((python, ROOT / "tests" / "peer_worker.py", *arguments, place / "arrays.npz", place / "spec.json", out),
                                    LEGACY),
                    }
                    for who, (command, env) in commands.items():
                        _, peak = timed(*command, env=env)
                        with np.load(out) as said:
                            of = [(auc(data.valid[task], said[task]), uauc(data.valid[task], said[task], data.valid[data.meta["group"]])) for task in tasks if task in said]
                            found[who].append((float(said["rows_per_second"]), *np.mean(of, axis=0).tolist(), peak))
                        record("training", who=who, model=model, batch_size=batch_size, seed=seed, numbers=found[who][-1])
                base = statistics.median(speed for speed, *_ in found["ours"])
                for who, runs in found.items():
                    speed, peak = statistics.median(run[0] for run in runs), max(run[3] for run in runs)
                    scores = "".join(f"{np.mean(values):11.4f} +- {np.std(values, ddof=1) if rounds > 1 else 0:.4f}" for values in list(zip(*runs))[1:3])
                    print(f"{model:7}{batch_size:6} {who:12}{speed:9,.0f}{base / speed:6.2f}x{scores}{peak:9.2f}", flush=True)


LEGACY = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def peers(folder, rounds, models):
    """One epoch of each of DeepCTR's models, and LightGBM, on all training rows, with our default sizes; a row each in results.csv."""
    import numpy as np
    from common import results
    from common.pickles import load
    from common.scoring import mean_and_spread, score_tasks, weighted

    folder, python, ple = Path(folder).resolve(), environment(), importlib.import_module("ple").Settings()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        data, tasks = prepare(folder, None, place, int(ple.own_experts), ple.shared_experts)
        fingerprint = load(folder).fingerprint
        for seed, (name, model) in itertools.product(range(rounds), [one for one in PEERS.items() if one[1] in models]):
            if any((row["model"], row["seed"]) == (name, str(seed)) for row in results.read(folder, fingerprint)):
                continue
            seconds, peak = timed(python, ROOT / "tests" / "peer_worker.py", model, 1024, seed, place / "arrays.npz", place / "spec.json", place / "out.npz", env=LEGACY)
            with np.load(place / "out.npz") as said:
                found = {task: np.clip(said[task].astype(np.float64), 1e-7, 1 - 1e-7) for task in tasks if task in said}
                speed = float(said["rows_per_second"])
            scores = score_tasks(data.valid, {task: np.log(p) - np.log1p(-p) for task, p in found.items()}, data.valid[data.meta["group"]])
            total = weighted({task: one["uauc"] for task, one in scores.items()}, data.meta["tasks"]) if len(scores) == len(tasks) else ""
            results.add(folder, {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "data": data.meta["name"], "fingerprint": fingerprint,
                "synthetic": data.meta["synthetic"], "valid_day": data.meta["valid_day"], "model": name, "tasks": ",".join(scores), "seed": seed,
                "settings": "{}", "changed": "", **{f"{what}_{task}": value for task, one in scores.items() for what, value in one.items()},
                "weighted_uauc": total, "seconds": round(seconds, 2), "rows_per_second": round(speed), "peak_mb": round(1000 * peak),
            })
            print(f"{name:16}{seed:3}{seconds:8.0f} s{speed:10,.0f} rows/s{peak:6.1f} GB  " + "  ".join(f"{task} {mean_and_spread([one['auc']])} {mean_and_spread([one['uauc']])}" for task, one in scores.items()), flush=True)


# ---- the rest


def limit(folder, rounds):
    """The time of a step, of its matrix products alone, and of moving its embeddings' bytes alone; PLE has 24 experts."""
    import common.quiet  # noqa: F401 -- first
    import numpy as np
    import tensorflow as tf
    from common.pickles import known, load
    from common.recommender import Recommender
    from common.training import STEPS_PER_CALL, cross_entropy

    data = load(folder)
    n_rows = len(data.train["day"])
    block = tf.random.normal((16_000_000,))
    copy = tf.function(lambda: block + 1.0)

    def seconds(one, times):
        since = time.perf_counter()
        for _ in range(times):
            found = one()
        tf.nest.map_structure(lambda tensor: tf.reshape(tensor, [-1])[0].numpy(), found)
        return ((time.perf_counter() - since) / times,)

    for name, batch_size in itertools.product(EXPERTS, (1024, 10240)):
        module = importlib.import_module(name)
        settings, tasks = module.Settings(**EXPERTS[name]), list(data.meta["tasks"])[: 1 if name == "deepfm" else None]
        settings.features = known(settings.features, data.meta)
        embed, network = module.build(data, tasks, settings)
        model = Recommender(embed, network, cross_entropy(settings), dict.fromkeys(tasks, 1.0), settings.embedding_l2)
        train = {column: tf.constant(data.train[column]) for column in (*model.columns, *tasks)}
        order = np.random.default_rng(0).integers(0, n_rows, (STEPS_PER_CALL, batch_size)).astype(np.int32)
        rates = tf.fill([STEPS_PER_CALL], 1e-3)

        products = [tuple(weight.shape) for weight in network.trainable_variables if len(weight.shape) == 2]
        pairs = [[tf.random.normal(shape) for shape in ((batch_size, n), (n, m), (batch_size, m))] for n, m in products]

        @tf.function(jit_compile=True)
        def multiply():  # forward, and backward to the inputs and to the weights
            return [(x @ w, tf.matmul(y, w, transpose_b=True), tf.matmul(x, y, transpose_a=True)) for x, w, y in pairs]

        ids = embedded_ids(data, embed, order[0])
        # rows read and written, their gradients written, read and summed; of each row once, the table and two moments read and written
        moved = 4 * embed.dim * (4 * len(ids) + 7 * len(np.unique(ids)))
        steps = lambda: model.train(train, tf.constant(order), rates)
        for one in (steps, multiply, copy):
            one()
        ways = {"step": lambda: (seconds(steps, 1)[0] / STEPS_PER_CALL,), "products": lambda: seconds(multiply, 50), "copy": lambda: seconds(copy, 10)}
        found = medians(f"limit {name} {batch_size}", ways, rounds)
        step, arithmetic, bandwidth = found["step"][0], found["products"][0], 8 * len(block) / found["copy"][0]
        memory, flops = moved / bandwidth, sum(6 * batch_size * n * m for n, m in products)
        print(
            f"{name:7}{batch_size:6}: step {1e3 * step:6.2f} ms ({batch_size / step:,.0f} rows/s); matrix products {1e3 * arithmetic:5.2f} ms "
            f"({flops / arithmetic / 1e9:.0f} GFLOP/s); embeddings {moved / 1e6:.1f} MB at {bandwidth / 1e9:.1f} GB/s {1e3 * memory:.2f} ms; "
            f"share of the larger limit {max(arithmetic, memory) / step:.0%}", flush=True,
        )


def embedded_ids(data, embed, rows):
    """The rows of the embedding table that these interactions look up, occurrence by occurrence."""
    import numpy as np

    found = []
    for key, names in embed.spec["ids"].items():
        for name in names:
            codes = data.tables[key][name][data.train[key][rows]] if key else data.train[name][rows]
            found.append(codes.astype(np.int64) + embed.spec["starts"][name])
    for key, names in embed.spec["lists"].items():
        for name in names:
            offsets, values = data.tables[key][name]["offsets"], data.tables[key][name]["values"]
            for row in data.train[key][rows]:
                found.append(values[offsets[row] : offsets[row + 1]] + embed.spec["starts"][name])
    return np.concatenate(found)


def total(source, rounds):
    with tempfile.TemporaryDirectory() as out:
        ways = {"get_data": lambda: timed(sys.executable, "get_data.py", source, "--out", out)}
        ways |= {name: lambda name=name: timed(sys.executable, f"{name}.py", "--user-data", out) for name in SCRIPTS}
        found = medians("total", ways, rounds)
    for name, (seconds, peak) in found.items():
        print(f"{name:12}{seconds:8.1f} s {peak:6.2f} GB")
    print(f"{'together':12}{sum(seconds for seconds, _ in found.values()):8.1f} s")


def tenfold(source, folder):
    """Write to `folder` the CSVs of `source` with ten times the users, their feeds and actions repeated; returns the number of rows."""
    from common.reading import Source

    for path in source.glob("*.csv"):
        if path.name != "user_action.csv":
            (folder / path.name).symlink_to(path.resolve())
    note = Source(source).note()
    (folder / "source.json").write_text(json.dumps({"name": f"rows of {note['name']} ten times", "synthetic": True}))
    with open(source / "user_action.csv", "rb") as log, open(folder / "user_action.csv", "wb") as out:
        out.write(log.readline())
        first, largest = log.tell(), 0
        for n_rows, line in enumerate(log, start=1):
            largest = max(largest, int(line.partition(b",")[0]))
        for copy in range(10):
            log.seek(first)
            shift = copy * (largest + 1)
            out.writelines(b"%d,%s" % (int(user) + shift, rest) for user, _, rest in (line.partition(b",") for line in log))
    return 10 * n_rows


def final(source, rounds):
    with tempfile.TemporaryDirectory() as place:
        place, ways = Path(place), {}
        (place / "tenfold").mkdir()
        n_rows = tenfold(Path(source), place / "tenfold")
        sizes = {"once": (source, n_rows // 10), "ten times": (place / "tenfold", n_rows)}
        for size, (csvs, _) in sizes.items():
            out = place / f"pickles of {size}"
            ways[f"get_data.py, {size}"] = lambda csvs=csvs, out=out: timed(sys.executable, "get_data.py", csvs, "--out", out)
            ways[f"mmoe.py, {size}"] = lambda out=out: timed(sys.executable, "mmoe.py", "--user-data", out)
        found = medians("final", ways, rounds)
    for name, (seconds, peak) in found.items():
        rows = sizes[name.partition(", ")[2]][1]
        print(f"{name:24}{seconds:8.1f} s {peak:6.2f} GB{rows / seconds:12,.0f} rows/s")
    for script in ("get_data.py", "mmoe.py"):
        once, ten = (found[f"{script}, {size}"][0] / n for size, (_, n) in sizes.items())
        print(f"{script} takes {ten / once:.2f} times as long a row with ten times the rows")


FIRST_STEP = """
import os, common.recommender as recommender, {model} as script
made = recommender.Recommender.__init__
def make(self, *given):
    made(self, *given)
    train = self.train
    def first(data, order, rates):
        float(train(data, order[:1], rates[:1]))
        os._exit(0)
    self.train = first
recommender.Recommender.__init__ = make
script.main(["--user-data", {folder!r}, "--quiet"])
"""


def start(folder, rounds):
    code = {name: FIRST_STEP.format(model=name, folder=str(Path(folder).resolve())) for name in SCRIPTS}
    ways = {f"{name}.py, first step": lambda name=name: timed(sys.executable, "-c", code[name], env={"PYTHONPATH": str(ROOT)}) for name in SCRIPTS}
    ways["get_data.py --help"] = lambda: timed(sys.executable, "get_data.py", "--help")
    for name, (seconds, peak) in medians("start", ways, rounds).items():
        print(f"{name:26}{seconds:7.2f} s {peak:6.2f} GB")


def scoring(folder, rounds):
    import numpy as np
    from common.pickles import load
    from common.scoring import score, uauc

    data = load(folder)
    logits = np.random.default_rng(0).normal(size=len(data.valid["day"])).astype(np.float32)
    groups, tasks = data.valid[data.meta["group"]], list(data.meta["tasks"])

    def clock(one):
        since = time.perf_counter()
        for task in tasks:
            one(data.valid[task], logits, groups)
        return (time.perf_counter() - since,)

    found = medians("scoring", {"uAUC": lambda: clock(uauc), "AUC, uAUC and log loss": lambda: clock(score)}, rounds)
    for name, (seconds,) in found.items():
        print(f"{name:24}{seconds:6.2f} s for {len(logits):,} rows and {len(tasks)} tasks")


def main():
    if sys.argv[1:2] in (["ours"], ["plain"]):
        worker, model, batch_size, seed, *places = sys.argv[1:]
        return {"ours": ours, "plain": plain}[worker](model, int(batch_size), int(seed), *places)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["encode", "training", "peers", "limit", "total", "final", "start", "scoring"])
    parser.add_argument("place", help="a folder of CSVs (encode, total, final) or of pickles (the others)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is run (5)")
    parser.add_argument("--rows", type=int, default=600_000, help="training: rows an epoch (600000)")
    parser.add_argument("--models", default="", help=f"training and peers: which, separated by commas (deepfm, mmoe, ple; peers also {', '.join(list(PEERS.values())[:3])})")
    parser.add_argument("--batch-sizes", default="1024,10240", help="training: rows a step, separated by commas")
    given = parser.parse_args()
    models = given.models.split(",") if given.models else None
    more = {
        "training": (given.rows, models or list(EXPERTS), [int(size) for size in given.batch_sizes.split(",")]),
        "peers": (models or list(PEERS.values()),),
    }.get(given.table, ())
    globals()[given.table](given.place, given.rounds, *more)


if __name__ == "__main__":
    main()
