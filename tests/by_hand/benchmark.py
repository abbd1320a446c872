"""What tests/README.md says of speed, measured: run by hand, with nothing else on the machine.

python tests/by_hand/benchmark.py TABLE PLACE [--rounds 5] [--keep NAME]

What is compared runs in turn, and medians are printed; with `--keep NAME` they become the table
NAME of records/speed.csv. `total` and `epochs` also take `--other`, another checkout, whose
commands run in turn with these, `epochs` on pickles of its own: --other CHECKOUT USER_DATA.
The tables:
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.columns import ACTIONS, FEED_IDS, KEYWORD_LISTS, TAG_LISTS
from common.command import Parser, user_errors
from common.contract import load
from common.pickles import FIRST
from common.results import versions
from common.scores import score, uauc

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "by_hand" / "records" / "speed.csv"
SCRIPTS = ("deepfm", "mmoe", "ple", "FocalLoss")
EXPERTS = {"deepfm": {}, "mmoe": {}, "ple": {"own_experts": (5,), "shared_experts": 4}}
COPIES = 10  # of the log of scale 1: 73 million rows in all, as in the final round
BLOCK = 1 << 24  # bytes
PARSING = f"""
import sys, numpy as np, pandas as pd
from pathlib import Path
folder = Path(sys.argv[1])
log = pd.read_csv(folder / "user_action.csv", usecols={["userid", "feedid", "date_", *ACTIONS]})
info = pd.read_csv(folder / "feed_info.csv", usecols={[*FEED_IDS, *TAG_LISTS, *KEYWORD_LISTS]})
path = folder / "feed_embeddings.csv"
for line in path.read_text().splitlines()[1:] if path.exists() else ():
    np.fromstring(line.split(",")[1], np.float32, sep=" ")
"""
FIRST_STEPS = """
import os, sys, common.callbacks
from importlib import import_module
common.callbacks.TrainingLog.on_train_batch_end = lambda *_, **__: os._exit(0)
import_module(sys.argv[1]).main(["--user-data", sys.argv[2], "--quiet"])
"""


def run(*words, cwd=ROOT):
    """Run Python in a process of its own: what it printed, and {"seconds", "GB"} of peak memory.

    On Linux a process begins with the peak of the one that started it, so this module imports
    little.
    """
    since = time.perf_counter()
    words = [sys.executable, *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(cwd)}
    process = subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed.")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    seconds = time.perf_counter() - since
    return output, {"seconds": seconds, "GB": usage.ru_maxrss * unit / 1e9}


def python(*words):
    """A way for `measure`: Python on these words."""
    return lambda _: run(*words)[1]


def timed(work, parts=1, times=1, quantity="seconds", unit=1):
    """A way for `measure`: {quantity: units of `unit` seconds that a part of `work` takes}.

    parts: of equal length in `work`. times: that it is done, for the mean.
    """

    def way(_):
        since = time.perf_counter()
        for _ in range(times):
            work()
        return {quantity: (time.perf_counter() - since) / times / parts / unit}

    return way


def measure(case, ways, rounds, keep=None):
    """The medians of {name: function of the round to {quantity: number}}, in turn, printed.

    keep: the table of the record in which they then stand for this case.
    """
    rows = [{"name": name, **way(i)} for i in range(rounds) for name, way in ways.items()]
    medians = pd.DataFrame(rows).groupby("name", sort=False).median()
    print(case)
    print(medians.to_string(float_format=lambda number: f"{number:,.4g}"), flush=True)
    if keep:
        new = medians.reset_index().melt("name", var_name="quantity", value_name="median")
        about = {"rounds": rounds, "cores": os.cpu_count(), "commit": versions()["commit"]}
        new = new.assign(table=keep, case=case, date=time.strftime("%Y-%m-%d"), **about)
        old = pd.read_csv(RECORD, dtype=str) if RECORD.exists() else new.head(0)
        old = old[(old["table"] != keep) | (old["case"] != case)]
        order = ["table", "case", "name", "quantity", "median", *about, "date"]
        pd.concat([old, new])[order].to_csv(RECORD, index=False, float_format="%.4g")
    return medians


# ---- the tables, each a generator of cases and their ways


def encode(source):
    """get_data.py on CSVs, and pandas parsing what it uses of them."""
    with tempfile.TemporaryDirectory() as out:
        encoding = python("get_data.py", source, "--out", out)
        yield "CSVs", {"get_data.py": encoding, "parsing": python("-c", PARSING, source)}


def limit(folder):
    """A step of training, and its matrix products alone, one after the other."""
    import tensorflow as tf

    for name, size in itertools.product(EXPERTS, (1024, 10240)):
        data = load(folder)
        tasks = list(data.tasks)[: 1 if name == "deepfm" else None]
        script = import_module(name)
        settings = script.Settings(batch_size=size, epochs=1, quiet=True, **EXPERTS[name])
        with tempfile.TemporaryDirectory() as settings.user_data:  # for checkpoints
            model = script.compiled_model(data, tasks, settings)
            script.train(model, data, settings, seed=0)
        batches = model.batches(data.train, size, seed=0)
        fit = partial(model.fit, batches, verbose=0, shuffle=False)
        shapes = [w.shape for w in model.network.trainable_variables if len(w.shape) == 2]
        normal = tf.random.normal
        sets = [(normal((size, n)), normal((n, m)), normal((size, m))) for n, m in shapes]

        @tf.function(jit_compile=True)
        def multiply(sets=sets):  # forward, backward to both factors
            return [(x @ w, y @ tf.transpose(w), tf.transpose(x) @ y) for x, w, y in sets]

        multiply()
        ways = {"step": timed(fit, int(batches.cardinality()))}
        ways["products"] = timed(lambda f=multiply: [f() for _ in range(50)][-1][-1][0].numpy(), 50)
        yield f"{name}, {size}", ways


def total(source, other=None):
    """The five commands on CSVs, and the scripts again or those of another checkout."""
    source = Path(source).resolve()
    with tempfile.TemporaryDirectory() as this, tempfile.TemporaryDirectory() as that:
        for script in ("get_data", *SCRIPTS):
            flags = [source, "--out"] if script == "get_data" else ["--user-data"]
            words = [ROOT / f"{script}.py", *flags]
            ways = {"first": lambda _, words=words: anew(Path(this), *words)}
            if other:
                words = [Path(other).resolve() / f"{script}.py", *flags]
                ways["other"] = lambda _, words=words: anew(Path(that), *words)
            elif script != "get_data":
                ways["again"] = python(*words, this)
            yield script, ways


def anew(folder, script, *words):
    """A checkout's script on these words and the folder, without what was compiled before."""
    shutil.rmtree(folder / ".compiled", ignore_errors=True)
    return run(script, *words, folder, cwd=script.parent)[1]


def final(source):
    """get_data.py and mmoe.py on CSVs, and on ten copies of the rows; 4 GB in /tmp."""
    source = Path(source).resolve()
    with tempfile.TemporaryDirectory() as csvs, tempfile.TemporaryDirectory() as out:
        repeat_rows(source, Path(csvs), COPIES)
        training = (ROOT / "mmoe.py", "--epochs", 1, "--user-data")
        for name, place in {"once": source, f"{COPIES} times": csvs}.items():
            ways = {"get_data.py": python("get_data.py", place, "--out", out)}
            ways["mmoe.py"] = lambda _: anew(Path(out), *training)
            yield f"rows {name}", ways


def repeat_rows(source, out, copies):
    """Write CSVs whose log has the rows of those in `source` again, each copy of other users.

    A copy's users are the former ids, which stand first in a row, behind its number. Feeds stay the
    same, as in the final round.
    """
    for path in (*source.glob("feed_*.csv"), *source.glob("test_?.csv"), source / "source.json"):
        if path.exists():
            os.symlink(path, out / path.name)
    with open(out / "user_action.csv", "wb") as log:
        for number in range(10, 10 + copies):  # of two digits, or two could make the same id
            before = b"\n%d" % number
            with open(source / "user_action.csv", "rb") as rows:
                header = rows.readline().rstrip()
                log.write(header if number == 10 else b"")
                while block := rows.read(BLOCK) + rows.readline():
                    log.write(before + block.rstrip().replace(b"\n", before))


def epochs(folder, other=None, other_folder=None):
    """Two epochs of each script, and those of another checkout."""
    places = {"this": (ROOT, folder)} | ({"other": (other, other_folder)} if other else {})
    for model, size in itertools.product(SCRIPTS, (1024, 10240)):
        ways = {name: partial(training, model, size, *place) for name, place in places.items()}
        yield f"{model}, {size}", ways


def training(model, size, checkout, folder, _):
    """{quantity: number} of two epochs of a checkout's script, in a process of its own."""
    flags = ["--user-data", Path(folder).resolve(), "--epochs", 2, "--batch-size", size]
    output, cost = run(f"{model}.py", *flags, cwd=Path(checkout).resolve())
    return speeds(output) | cost


def speeds(output):
    """{"first rows/s", "last rows/s"} of the lines that a script prints of its epochs."""
    rows = re.findall(r"^epoch .* ([\d,]+) rows/s$", output, re.MULTILINE)
    rows = [int(text.replace(",", "")) for text in rows]
    return {"first rows/s": rows[0], "last rows/s": rows[-1]}


def start(folder):
    """From the command to the end of the first steps that `fit` makes at once."""
    folder = Path(folder).resolve()
    for name in SCRIPTS:
        yield name, {"start": python("-c", FIRST_STEPS, name, folder)}
    yield "get_data.py --help", {"start": python("get_data.py", "--help")}


def scoring(folder):
    """uAUC of all tasks, and all scores."""
    data = load(folder)
    logits = np.random.default_rng(0).normal(size=len(data.valid["day"])).astype(np.float32)
    labels = [data.valid[task] for task in data.tasks]
    groups = data.groups_of(data.valid)
    ways = {"uAUC": timed(lambda: [uauc(y, logits, groups) for y in labels])}
    ways["all scores"] = timed(lambda: [score(y, logits, groups) for y in labels])
    yield f"{len(logits):,} rows", ways


def serving(folder):
    """Probabilities from raw ids by the saved MMOE and PLE, of 2,000 rows."""
    from common import saved

    import tensorflow as tf

    data = load(folder)
    for name in ("mmoe", "ple"):
        import_module(name)  # which makes its layers known to Keras
        model = saved.load(Path(folder) / f"{name}.keras")
        few = {tensor.name: raw_column(data, tensor.name)[:2000] for tensor in model.inputs}
        with tempfile.TemporaryDirectory() as place:
            model.export(f"{place}/served", verbose=False)
            serve = tf.saved_model.load(f"{place}/served").signatures["serving_default"]
            tensors = {column: tf.constant(values) for column, values in few.items()}
            ways = {
                "predict": lambda m=model, x=few: m.predict(x, batch_size=2000, verbose=0),
                "call": lambda m=model, x=tensors: m(x)["like"].numpy(),
                "SavedModel": lambda s=serve, x=tensors: s(**x)["like"].numpy(),
            }
            for work in ways.values():
                work()  # traces it
            options = {
                "parts": len(data.tasks),
                "times": 20,
                "quantity": "ms a task",
                "unit": 0.001,
            }
            yield f"{name}, 2000", {way: timed(work, **options) for way, work in ways.items()}


def prediction(folder):
    """--predict of the saved MMOE and PLE, from a CSV of 300,000 rows to a CSV."""
    from common import saved

    data = load(folder)
    for name in ("mmoe", "ple"):
        import_module(name)
        names = [tensor.name for tensor in saved.load(Path(folder) / f"{name}.keras").inputs]
        rows = {column: np.resize(raw_column(data, column), 300_000) for column in names}
        with tempfile.TemporaryDirectory() as place:
            csv = Path(place) / "rows.csv"
            pd.DataFrame(rows).to_csv(csv, index=False)
            words = ["--user-data", folder, "--predict", csv, "--out", f"{place}/out"]
            yield f"{name}, 300000", {"--predict": python(f"{name}.py", *words)}


def raw_column(data, name):
    """The validation rows' raw ids of a column of a test file, int64 (rows,)."""
    column = {raw: column for column, raw in data.meta["raw"].items()}.get(name, name)
    if column in data.tables:
        return data.tables[column]["key"][data.valid[column]]
    return data.vocabularies[column][np.maximum(data.valid[column] - FIRST, 0)]


def main(argv=None):
    """Make the table that the command names."""
    every = (encode, limit, total, final, epochs, start, scoring, serving, prediction)
    tables = {table.__name__: table for table in every}
    lines = [f"{name:12}{table.__doc__.splitlines()[0]}" for name, table in tables.items()]
    parser = Parser("\n".join([__doc__, *lines]))
    parser.add_argument("table", choices=tables)
    parser.add_argument("place", help="a folder of pickles; of CSVs for encode, total, final")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is run (5)")
    other = "another checkout, for `total`; and its pickles, for `epochs`"
    parser.add_argument("--other", nargs="+", default=[], help=other)
    parser.add_argument("--keep", metavar="NAME", help="the record's table for the medians")
    args = parser.parse_args(argv)
    if len(args.other) not in {"total": (0, 1), "epochs": (0, 2)}.get(args.table, (0,)):
        parser.error(f"--other is {other}")
    for case, ways in tables[args.table](args.place, *args.other):
        measure(case, ways, args.rounds, args.keep)


if __name__ == "__main__":
    with user_errors():
        main()
