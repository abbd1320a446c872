"""The runs on a folder of pickles, made where they are missing, and tables of them in Markdown."""

import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import results
from common.contract import load
from common.settings import hyperparameters, parse

import pandas as pd

SINGLE = ("deepfm", "FocalLoss")
MULTI_TASK = ("mmoe", "ple")
FEW = 100  # validation positives below which a task's AUC is printed and not averaged


class Folder:
    """A folder of pickles and the runs in its results.csv.

    target: the task of the single-task models. frequent: the tasks of which auc_mean is the mean.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.data = load(path)
        self.tasks = list(self.data.tasks)
        self.target = self.data.first_task
        self.frequent = [task for task in self.tasks if self.data.valid[task].sum() >= FEW]
        synthetic = " (SYNTHETIC)" if self.data.meta["synthetic"] else ""
        self.title = self.data.meta["name"] + synthetic

    def runs(self, script, flags="", seeds=5):
        """The runs of the seeds 0, 1, ... with these flags, by seed; those missing are made."""
        words = ["--user-data", str(self.path), "--quiet", *flags.split()]
        settings = parse(import_module(script).Settings, None, words)
        missing = set(range(seeds)) - set(self.runs_of(settings).index)
        if missing:
            first = min(missing)
            apart(train, script, replace(settings, seed=first, runs=seeds - first))
        return self.runs_of(settings).loc[list(range(seeds))]

    def runs_of(self, settings):
        """The runs with these settings, by seed."""
        rows = self.rows()
        key = json.dumps(hyperparameters(settings), sort_keys=True)
        target = settings.tasks[0] if settings.tasks else self.target
        rows = rows[(rows["model"] == settings.name) & (rows["settings"] == key)]
        return self.by_seed(rows.loc[[target in tasks.split(",") for tasks in rows["tasks"]]])

    def rows(self):
        """The rows of results.csv of these data."""
        rows = results.read(self.path)
        rows = rows if len(rows) else pd.DataFrame(columns=results.REQUIRED)
        return rows[rows["fingerprint"] == self.data.fingerprint]

    def by_seed(self, rows):
        """The latest row of each seed: numbers, auc_by_epoch as text, and the means over tasks."""
        rows = rows.assign(seed=rows["seed"].astype(int)).drop_duplicates("seed", keep="last")
        rows = rows.set_index("seed").sort_index()
        numbers = self.with_means(rows.apply(pd.to_numeric, errors="coerce"))
        return numbers.assign(auc_by_epoch=rows.get("auc_by_epoch"))

    def with_means(self, scores):
        """The table with columns more: auc_mean and so on."""
        for score in results.SCORES:
            columns = [f"{score}_{task}" for task in self.frequent]
            mean = scores.reindex(columns=columns).mean(axis=1, skipna=False)
            scores = scores.assign(**{f"{score}_mean": mean})
        return scores

    def compared(self):
        """{model: its runs} of the scripts with default settings, and of what peers.py ran."""
        models = {script: self.runs(script) for script in (*SINGLE, *MULTI_TASK)}
        rows = self.rows()
        peers = rows[rows["settings"].str.startswith('{"peer"')].groupby("model", sort=False)
        return models | {name: self.by_seed(runs) for name, runs in peers}


def apart(function, *args):
    """What a function returns, called in a process of its own, whose peak memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def train(script, settings):
    """Run a script with these settings."""
    import_module(script).main(settings)


def cell(values, sign=""):
    """Mean and deviation, ".9360 ± .0002"; of gains, with sign "+", mean and standard error."""
    values = values.dropna()
    if not len(values):
        return ""
    spread = values.sem() if sign else values.std()
    return short(f"{values.mean():{sign}.4f}" + (f" ± {spread:.4f}" if len(values) > 1 else ""))


def short(text):
    """Numbers without their zero: .9360 for 0.9360."""
    return re.sub(r"(?<!\d)0\.", ".", text)


def table(title, runs, columns, sign=""):
    """Print these columns of {name: runs} as Markdown, a line a name."""
    rows = {name: rows.reindex(columns=columns).astype(float) for name, rows in runs.items()}
    markdown(title, columns, {n: [cell(rows[n][column], sign) for column in columns] for n in rows})


def markdown(title, columns, rows):
    """Print {name: cells} as a Markdown table."""
    print(f"\n**{title}**\n\n| | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
