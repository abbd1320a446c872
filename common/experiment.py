"""What all scripts do around training: load the data, keep each run, compare the models."""

import gc
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import common.backend  # noqa: F401
from common import plots, results, saved, submission
from common.callbacks import checkpoint_folder
from common.columns import FINAL_ROUND_WEIGHTS, TASK_WEIGHTS
from common.command import InputError
from common.contract import load
from common.scores import score_tasks, weighted, yardsticks
from common.settings import changed, hyperparameters

import keras
import numpy as np
import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Result:
    """What a script's `main` returns.

    target: the task of the last line. scores: of each run {task: {"auc", "uauc", "logloss",
    "calibration"}} on the validation day. models: the last run's Recommenders, one a network.
    """

    target: str
    scores: list
    models: list

    @property
    def model(self):
        """The last run's Recommender, the first if each task has its own."""
        return self.models[0]

    @property
    def aucs(self):
        """The validation AUC of the target, a number a run."""
        return [scores[self.target]["auc"] for scores in self.scores]


class Experiment:
    """The runs of one command on one folder of pickles.

    data: the Data, with the tasks and features that the settings choose. networks: the tasks of
    each network that a run trains, [[every task]] or [[the target]]. Raises InputError, when it is
    made, for what would otherwise be found wrong after a run.
    """

    def __init__(self, settings, single_task=False):
        """single_task: a network learns one task, the target; --target all makes one of each."""
        self.settings = settings
        self.folder = Path(settings.user_data)
        self.label = f"{settings.name} {changed(settings)}".strip()
        self.data = load(self.folder)
        self.data.choose(settings.tasks, settings.task_weights, settings.features)
        tasks = list(self.data.tasks)
        every = single_task and settings.target == "all"
        default = "read_comment" if "read_comment" in tasks else tasks[0]
        self.target = default if every else settings.target or default
        if self.target not in tasks:
            raise InputError(
                f"--target {self.target} is no task of {self.folder}: it has {', '.join(tasks)}; "
                "--tasks can add others."
            )
        self.networks = [[task] for task in tasks if every or task == self.target]
        if not single_task:
            self.networks = [tasks]
        results.check(self.folder)
        self.checkpoints = [
            checkpoint_folder(self.data, settings, group, seed)
            for seed in settings.seeds
            for group in self.networks
        ]
        if settings.resume and not any(path.exists() for path in self.checkpoints):
            raise InputError(
                f"--resume: {self.folder} has no stopped run of {settings.name} with these "
                "settings: give those of that run, or leave --resume out."
            )
        self.runs = []
        self.say(self.headline())

    def say(self, line):
        if not self.settings.quiet:
            print(line, flush=True)

    def title(self):
        """The name of the data, with a mark if they are made up."""
        return self.data.meta["name"] + (" (SYNTHETIC)" if self.data.meta["synthetic"] else "")

    def headline(self):
        """The line that says what is trained on."""
        task = self.networks[0][0]
        n_train = len(self.data.train[task])
        n_valid = len(self.data.valid[task])
        rows = f"{n_train:,} training rows, {n_valid:,} validation rows"
        return f"{self.title()}: {rows} (day {self.data.meta['valid_day']})"

    def keep(self, seed, networks):
        """Add a run to results.csv; networks: [(Recommender, TrainingLog)], those of the run."""
        self.networks_of_last_run = networks
        scores = {task: row for _, log in networks for task, row in log.scores[-1][1].items()}
        self.runs.append(scores)
        results.add(self.folder, self.row(seed, networks, scores))
        gc.collect()  # what trained refers to itself, and holds the columns of the training rows

    def row(self, seed, networks, scores):
        """The row of results.csv of a run."""
        meta = self.data.meta
        tasks = list(scores)
        logs = [log for _, log in networks]
        n_rows = len(self.data.train[tasks[0]]) * sum(len(log.scores) for log in logs)
        seconds = sum(log.seconds for log in logs)
        metrics = {
            f"{name}_{task}": value for task in tasks for name, value in scores[task].items()
        }
        if list(self.data.tasks) == tasks and all("uauc" in scores[task] for task in tasks):
            uaucs = {task: scores[task]["uauc"] for task in tasks}
            metrics["weighted_uauc"] = weighted(uaucs, self.data.tasks)
        by_epoch = {
            task: [round(scores[task]["auc"], 6) for _, scores in log.scores]
            for log in logs
            for task in log.scores[0][1]
        }
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": meta["name"],
            "fingerprint": self.data.fingerprint,
            "synthetic": meta["synthetic"],
            "valid_day": meta["valid_day"],
            "model": self.settings.name,
            "tasks": ",".join(tasks),
            "seed": seed,
            "settings": json.dumps(hyperparameters(self.settings), sort_keys=True),
            "changed": changed(self.settings),
            **metrics,
            "auc_by_epoch": json.dumps(by_epoch),
            "seconds": round(seconds, 2),
            "rows_per_second": round(n_rows / max(seconds, 1e-9)),
            "peak_mb": round(peak_memory() / 1e6),
            **versions(),
        }

    def finish(self, gates=None):
        """Save the last run's model, write submissions, pictures and the comparison: a Result.

        gates: {name of a gate's layer: names of the experts that it weighs}.
        """
        for path in self.checkpoints:
            shutil.rmtree(path, ignore_errors=True)
        models, logs = zip(*self.networks_of_last_run, strict=True)
        weights = gate_weights(self.data, models[0], gates) if gates else {}
        whole = saved.whole_model(self.data, models)
        saved.save(self.folder / f"{self.settings.name}.keras", whole)
        self.submit(whole, [task for model in models for task in model.network.output])
        self.compare()
        path = self.folder / f"{self.settings.name}.png"
        plots.curves(path, f"{self.label}, {self.title()}", [vars(log) for log in logs], weights)
        return Result(self.target, self.runs, list(models))

    def compare(self):
        """Print and draw all models that were run on this data, and the yardsticks."""
        data = self.data
        runs = results.load(self.folder, data.fingerprint)
        marks = {
            name: score_tasks(data.valid, logits, data.groups)
            for name, logits in yardsticks(data).items()
        }
        shown = (runs, marks, data, self.label, self.target)
        if not self.settings.quiet:
            results.print_table(*shown, self.settings.verbose)
        plots.comparison(self.folder / "comparison.png", *shown)

    def submit(self, whole, tasks):
        """Write the submission of each test file, if the tasks are those of one of the rounds."""
        raw = self.data.meta.get("raw", {})
        rounds = [set(TASK_WEIGHTS), set(FINAL_ROUND_WEIGHTS)]
        if not {"userid", "feedid"} <= set(raw.values()) or set(tasks) not in rounds:
            return
        for name in ("test_a", "test_b"):
            rows = self.data.test(name)
            if rows is None:
                continue
            columns = {raw[column]: raw_ids(self.data, column, rows[column]) for column in raw}
            path = self.folder / f"{self.settings.name}_submission_{name[-1]}.csv"
            found = saved.probabilities(whole, columns)
            submission.write(path, columns["userid"], columns["feedid"], found)
            self.say(f"{path}: {len(columns['userid']):,} rows for the contest")


def gate_weights(data, model, experts):
    """{gate: {expert: mean weight}} over the validation rows.

    experts: {name of a gate's layer: names of the experts that it weighs}.
    """
    outputs = {name: model.network.get_layer(name).output for name in experts}
    gates = keras.Model(model.network.inputs, outputs)

    @tf.function(jit_compile=True, autograph=False)
    def weights_of(batch):
        return gates(list(model.embedding(batch)))

    n = len(data.valid[next(iter(data.tasks))])
    means = {name: np.zeros(len(names)) for name, names in experts.items()}
    for i, (batch, _) in enumerate(model.scoring_batches(data.valid)):
        for name, weights in weights_of(batch).items():
            left = n - i * len(weights)  # the last batch begins anew
            means[name] += weights[:left].numpy().sum(axis=0, dtype=np.float64) / n
    return {
        name: dict(zip(experts[name], total.tolist(), strict=True)) for name, total in means.items()
    }


def raw_ids(data, column, codes):
    """The raw ids of a column of interactions; -1 for unknown ones."""
    if column in data.tables:
        return data.tables[column]["key"][codes]
    return np.concatenate([[-1, -1], data.vocabulary(column)])[codes]


def peak_memory():
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions():
    """What a run was made with."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "commit": commit(),
    }


def commit():
    """The commit of the project's folder, -dirty if it was changed since; "" where git has none."""
    try:
        words = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
