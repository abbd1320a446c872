"""What tests/README.md says of speed, measured: run by hand, with nothing else on the machine.

python tests/by_hand/benchmark.py encode SOURCE      get_data.py against parsing what it uses
python tests/by_hand/benchmark.py limit USER_DATA    a step, and its matrix products alone
python tests/by_hand/benchmark.py total SOURCE       from the CSVs to the AUCs of the four scripts
python tests/by_hand/benchmark.py start USER_DATA    from the command to the first training steps
python tests/by_hand/benchmark.py scoring USER_DATA  the scores of the validation day

What is compared runs in turn, and medians are printed. `data/sample.py --scale 10` makes as many
rows as the final round of the contest has.
"""

import itertools
import os
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
from common.scores import score, uauc

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("deepfm", "mmoe", "ple", "FocalLoss")
EXPERTS = {"deepfm": {}, "mmoe": {}, "ple": {"own_experts": (5,), "shared_experts": 4}}
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
    """Run Python in a process of its own: what it printed, and {"seconds", "GB"} of peak memory."""
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


def timed(work, times=1):
    """A way for `measure`: the seconds of one of the times that `work` works."""

    def way(_):
        since = time.perf_counter()
        work()
        return {"seconds": (time.perf_counter() - since) / times}

    return way


def measure(ways, rounds):
    """The medians of {name: function of the round to {quantity: number}}, printed; in turn."""
    rows = [{"name": name, **way(i)} for i in range(rounds) for name, way in ways.items()]
    medians = pd.DataFrame(rows).groupby("name", sort=False).median()
    print(medians.to_string(float_format=lambda number: f"{number:,.4g}"), flush=True)
    return medians


# ---- the tables


def encode(source, rounds):
    """get_data.py, and only parsing what it uses."""
    with tempfile.TemporaryDirectory() as out:
        encoding = python("get_data.py", source, "--out", out)
        measure({"get_data.py": encoding, "parsing": python("-c", PARSING, source)}, rounds)


def limit(folder, rounds):
    """A step of training, and its matrix products alone, one after the other."""
    import tensorflow as tf

    for name, size in itertools.product(EXPERTS, (1024, 10240)):
        data = load(folder)
        tasks = list(data.tasks)[: 1 if name == "deepfm" else None]
        script = import_module(name)
        settings = script.Settings(batch_size=size, quiet=True, **EXPERTS[name])
        with tempfile.TemporaryDirectory() as settings.user_data:  # for checkpoints
            model = script.recommender(data, tasks, settings)
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
        ways = {
            "step": timed(fit, int(batches.cardinality())),
            "products": timed(lambda f=multiply: [f() for _ in range(50)][-1][-1][0].numpy(), 50),
        }
        print(
            f"\n{name}, batches of {size}: {sum(6e-9 * size * n * m for n, m in shapes):.2f} GFLOP"
        )
        measure(ways, rounds)


def total(source, rounds):
    """get_data.py and the four scripts."""
    with tempfile.TemporaryDirectory() as out:
        ways = {"get_data": python("get_data.py", source, "--out", out)}
        ways |= {name: python(f"{name}.py", "--user-data", out) for name in SCRIPTS}
        measure(ways, rounds)


def start(folder, rounds):
    """From the command to the end of the first steps that `fit` makes at once."""
    folder = Path(folder).resolve()
    ways = {name: python("-c", FIRST_STEPS, name, folder) for name in SCRIPTS}
    measure(ways | {"get_data.py --help": python("get_data.py", "--help")}, rounds)


def scoring(folder, rounds):
    """uAUC of all tasks, and all scores."""
    data = load(folder)
    logits = np.random.default_rng(0).normal(size=len(data.valid["day"])).astype(np.float32)
    labels = [data.valid[task] for task in data.tasks]
    ways = {
        "uAUC": timed(lambda: [uauc(y, logits, data.groups_of(data.valid)) for y in labels]),
        "all scores": timed(lambda: [score(y, logits, data.groups_of(data.valid)) for y in labels]),
    }
    measure(ways, rounds)


def main(argv=None):
    """Make the table that the command names."""
    tables = {table.__name__: table for table in (encode, limit, total, start, scoring)}
    parser = Parser(__doc__)
    parser.add_argument("table", choices=tables)
    parser.add_argument("place", help="a folder of CSVs or of pickles")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is run (5)")
    args = parser.parse_args(argv)
    tables[args.table](args.place, args.rounds)


if __name__ == "__main__":
    with user_errors():
        main()
