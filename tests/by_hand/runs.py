"""The runs on a data set, made where they are missing, and tables of them in Markdown."""

import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import results
from common.command import InputError
from common.contract import load
from common.scores import score_yardsticks
from common.settings import changed, parse

import numpy as np
import pandas as pd

RECORDS = Path(__file__).resolve().parent / "records"
SINGLE = ("deepfm", "FocalLoss")
MULTI_TASK = ("mmoe", "ple")
FEW = 100  # validation positives below which a task's AUC is printed and not averaged
NAMES = {"deepfm": "DeepFM", "mmoe": "MMOE", "ple": "PLE"}  # of the scripts in tables


class Folder:
    """The runs in the results.csv of one data set.

    place: a folder of pickles, for which `runs` makes what is missing, or the name of a record in
    `records`, which holds what is left of one: its results.csv, and the facts in data.json. target:
    the task of the single-task models. frequent: the tasks of which auc_mean is the mean. Raises
    InputError.
    """

    def __init__(self, place):
        self.path = Path(place)
        self.is_live = (self.path / "meta.pkl").exists()
        if self.is_live:
            self.facts = facts_of(load(self.path))
        else:
            self.path = RECORDS / place
            if not (self.path / "data.json").exists():
                raise InputError(f"{place} is neither a folder of pickles nor a record.")
            self.facts = json.loads((self.path / "data.json").read_text(encoding="utf-8"))
        self.tasks = list(self.facts["tasks"])
        self.target = self.facts["target"]
        self.frequent = [task for task in self.tasks if self.facts["positives"][task] >= FEW]
        synthetic = ", *synthetic*" if self.facts["synthetic"] else ""
        regime = self.facts["name"].partition(", regime ")[2]
        self.title = self.facts["name"].partition(",")[0] + synthetic
        self.title += f", regime *{regime}*" if regime else ""

    def runs(self, script, flags="", seeds=5, way=None):
        """The runs of the seeds 0, 1, ... with these flags, by seed; those missing are made.

        way: what makes them, as `annealed`, whose flags must name the model; None for `train`.
        """
        words = ["--user-data", str(self.path), "--quiet", *flags.split()]
        settings = parse(import_module(script).Settings, None, words)
        found = self.runs_of(settings)
        missing = set(range(seeds)) - set(found.index)
        if missing and not self.is_live:
            words = f"{script} {flags} with seed {min(missing)}"
            raise InputError(f"{self.path} lacks the run of {words}: keep it anew.")
        if missing:
            first = min(missing)
            apart(way or train, script, replace(settings, seed=first, runs=seeds - first))
            found = self.runs_of(settings)
        return found.loc[list(range(seeds))]

    def runs_of(self, settings):
        """The runs of these settings, known by their flags, by seed."""
        rows = self.rows()
        target = settings.tasks[0] if settings.tasks else self.target
        flags = rows["changed"] if "changed" in rows else ""  # a record is without empty columns
        rows = rows[(rows["model"] == settings.name) & (flags == changed(settings))]
        return self.by_seed(rows.loc[[target in tasks.split(",") for tasks in rows["tasks"]]])

    def rows(self):
        """The rows of results.csv of these data, as `typed`."""
        path = self.path / results.NAME
        rows = typed(self.path, path.stat().st_mtime_ns if path.exists() else None)
        return rows[rows["fingerprint"] == self.facts["fingerprint"]]

    def by_seed(self, rows):
        """The latest row of each seed: numbers, auc_by_epoch as text, and the means over tasks."""
        rows = rows.drop_duplicates("seed", keep="last").set_index("seed").sort_index()
        numbers = rows.select_dtypes("number")
        return self.with_means(numbers).assign(auc_by_epoch=rows.get("auc_by_epoch"))

    def with_means(self, scores):
        """The table with columns more: auc_mean and so on."""
        for score in results.SCORES:
            columns = [f"{score}_{task}" for task in self.frequent]
            mean = scores.reindex(columns=columns).mean(axis=1, skipna=False)
            scores = scores.assign(**{f"{score}_mean": mean})
        return scores

    def compared(self):
        """{model: its runs} of the scripts with default settings, and of what peers.py ran."""
        return {shown(name): self.runs(name) for name in (*SINGLE, *MULTI_TASK)} | self.peers()

    def peers(self):
        """{peer: its runs} of what peers.py ran."""
        rows = self.rows()
        peers = rows[rows["settings"].str.startswith('{"peer"')].groupby("model", sort=True)
        return {shown(name): self.by_seed(runs) for name, runs in peers}

    def averaged(self):
        """{"MMOE, mean of 5": its scores as one run}, and PLE's: of the mean logit of five runs."""
        rows = self.rows()
        rows = rows[rows["changed"] == "mean of 5 runs"] if "changed" in rows else rows[:0]
        models = {name: runs for name, runs in rows.groupby("model") if name in MULTI_TASK}
        return {f"{shown(name)}, mean of 5": self.by_seed(runs) for name, runs in models.items()}

    def marks(self):
        """{yardstick: its scores as one run}."""
        tables = {}
        for name, scores in self.facts["yardsticks"].items():
            row = {f"{s}_{task}": x for task, found in scores.items() for s, x in found.items()}
            tables[f"*{name}*"] = self.with_means(pd.DataFrame([row]))
        return tables

    def keep(self, name):
        """Write the record `name`: the latest of equal runs, and the facts."""
        rows = self.rows()
        same = {"model", "settings", "changed", "seed", "tasks"} & {*rows}  # `runs` goes by flags
        rows = rows.drop_duplicates([*same], keep="last")
        rows = results.read(self.path).loc[rows.index]  # as they were written
        place = RECORDS / name
        place.mkdir(parents=True, exist_ok=True)
        columns = [column for column in rows if (rows[column] != "").any()]
        rows[columns].to_csv(place / results.NAME, index=False, lineterminator="\n")
        facts = json.dumps(self.facts, indent=1) + "\n"
        (place / "data.json").write_text(facts, encoding="utf-8")


@cache
def typed(folder, changed):
    """The rows of a folder's results.csv as it was at a time; columns of numbers are such."""
    rows = results.read(folder)
    if not len(rows):
        return pd.DataFrame(columns=results.REQUIRED)
    numbers = rows.apply(pd.to_numeric, errors="coerce")
    are = (numbers.isna() == (rows == "")).all() & numbers.notna().any()
    return rows.assign(**numbers.loc[:, are]).astype({"seed": int})


def shown(name):
    """The name of a model in tables: "DeepCTR MMOE" of "DeepCTR mmoe"."""
    return " ".join(NAMES.get(word, word) for word in name.split(" "))


def facts_of(data):
    """What tables say of a Data besides its runs."""
    valid = data.valid
    return {
        **{key: data.meta[key] for key in ("name", "synthetic", "valid_day", "tasks")},
        "fingerprint": data.fingerprint,
        "target": data.first_task,
        "rows": {"train": len(data.train[data.first_task]), "valid": len(valid[data.first_task])},
        "positives": {task: int(valid[task].sum()) for task in data.tasks},
        "rates": {task: rates_of(data, task) for task in data.tasks},
        "features": list(data.features),
        "every_feature": list(data.meta["features"]),
        "yardsticks": score_yardsticks(data, valid),
    }


def rates_of(data, task):
    """Rates of positives: on all training days, on the last of them, on the validation day."""
    label = data.train[task]
    day = data.train.get("day", np.zeros(len(label)))
    rates = {"train": label.mean(), "last": label[day == day.max()].mean()}
    return {name: float(rate) for name, rate in {**rates, "valid": data.valid[task].mean()}.items()}


def apart(function, *args):
    """What a function returns, called in a process of its own, whose peak memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def train(script, settings):
    """Run a script with these settings."""
    import_module(script).main(settings)


def annealed(script, settings):
    """Run a script with FocalLoss.py's annealing, one cycle an epoch, in the place of its rate."""
    module = import_module(script)
    schedule = import_module("FocalLoss").WarmRestarts
    steps = load(settings.user_data).steps(settings.batch_size)
    adam = module.LazyAdam
    module.LazyAdam = lambda rate, **options: adam(schedule(rate, 0.0, [steps]), **options)
    module.main(settings)


def uncalibrated(script, settings):
    """Run a script whose networks keep the level at which the last step leaves them."""
    module = import_module(script)
    module.CalibratedIntercepts = lambda data: module.keras.callbacks.Callback()
    module.main(settings)


def cell(values, sign=""):
    """Mean and deviation, ".9360 ± .0002"; of gains, with sign "+", mean and standard error."""
    values = values.astype(float).dropna()
    if not len(values):
        return ""
    spread = values.sem() if sign else values.std()
    return short(f"{values.mean():{sign}.4f}" + (f" ± {spread:.4f}" if len(values) > 1 else ""))


def short(text):
    """Numbers without their zero: .9360 for 0.9360."""
    return re.sub(r"(?<!\d)0\.", ".", text)


def cells(runs, columns, sign=""):
    """The cell of each of these columns of runs; "" for one that they lack."""
    return [cell(runs[name], sign) if name in runs else "" for name in columns]


def beside(tables):
    """One table, (columns, {row: cells}), of [(title, columns, {row: cells})], side by side."""
    columns = []
    rows = {}
    for title, names, found in tables:
        prefix = f"{title}: " if len(tables) > 1 else ""
        for row in found:
            rows.setdefault(row, [""] * len(columns))
        columns += [prefix + names[0], *names[1:]]
        for row, texts in rows.items():
            texts += found.get(row, [""] * len(names))
    return columns, rows


def markdown(columns, rows):
    """(columns, {row: cells}) as a Markdown table."""
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *texts] for name, texts in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
