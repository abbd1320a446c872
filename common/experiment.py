"""What all scripts do around training: load the data, keep each run, compare the models."""

import gc
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from common import backend, plots, results, saved
from common.columns import TESTS
from common.command import InputError
from common.compiled import keep_programs, list_programs
from common.contract import load
from common.resume import checkpoint_folder
from common.scores import add_tests, score_tasks, score_yardsticks
from common.settings import changed, hyperparameters
from common.submission import submit, tests_of

import keras
import numpy as np


@dataclass
class Result:
    """What a script's `main` returns.

    target: the task of the last line. scores: of each run {task: {"auc", "uauc", "logloss",
    "calibration"}} on the validation day, and {"testauc", "testuauc"} where there is a test.pkl.
    models: the last run's Recommenders, one a network. mean: the scores of the mean logit of
    several runs, which is what is saved.
    """

    target: str
    scores: list
    models: list
    mean: dict | None = None

    @property
    def model(self):
        """The last run's Recommender, the first if each task has its own."""
        return self.models[0]

    @property
    def aucs(self):
        """The validation AUC of the target, a number a run; nan where no day validates."""
        return [scores[self.target]["auc"] if scores else np.nan for scores in self.scores]


class Experiment:
    """The runs of one command on one folder of pickles.

    data: the Data, with the tasks and features that the settings choose. task_groups: those of
    each network that a run trains, [[every task]] or [[the target]]. Raises InputError, when it is
    made, for what would otherwise be found wrong after a run.
    """

    def __init__(self, settings, single_task=False):
        """single_task: a network learns the target alone; --target all makes one a task."""
        self.settings = settings
        self.folder = Path(settings.user_data)
        self.label = f"{settings.name} {changed(settings)}".strip()
        self.data = load(self.folder)
        self.data.choose(settings.tasks, settings.task_weights, settings.features)
        tasks = list(self.data.tasks)
        every = single_task and settings.target == "all"
        self.target = self.data.first_task if every else settings.target or self.data.first_task
        if self.target not in tasks:
            raise InputError(
                f"--target {self.target} is no task of {self.folder}: it has {', '.join(tasks)}; "
                "--tasks can add others."
            )
        self.task_groups = [[task] for task in tasks if every or task == self.target]
        if not single_task:
            self.task_groups = [tasks]
        results.read(self.folder)  # raises InputError where no row could be added later
        self.checkpoints = [
            checkpoint_folder(self.data, settings, group, seed)
            for seed in settings.seeds
            for group in self.task_groups
        ]
        if settings.resume and not any(path.exists() for path in self.checkpoints):
            raise InputError(
                f"--resume: {self.folder} has no stopped run of {settings.name} with these "
                "settings: give those of that run, or leave --resume out."
            )
        backend.settle()
        self.programs = keep_programs(self.folder)
        keras.utils.set_random_seed(settings.seed)  # for weights that no run draws
        self.runs = []  # their scores
        self.rows = []  # of results.csv
        self.parts = []
        self.totals = {}  # {split: {task: sum of the runs' logits}}
        self.say(self.headline())

    def say(self, line):
        if not self.settings.quiet:
            print(line, flush=True)

    @property
    def title(self):
        return self.data.meta["name"] + (" (SYNTHETIC)" if self.data.meta["synthetic"] else "")

    def headline(self):
        """The line that says what is trained on."""
        task = self.task_groups[0][0]
        rows = f"{self.title}: {len(self.data.train[task]):,} training rows"
        if not self.data.valid:
            return f"{rows} of every labelled day, no validation"
        day = self.data.meta["valid_day"]
        valid = f"{rows}, {len(self.data.valid[task]):,} validation rows"
        valid += f" (day {day})" if day else ""
        return f"{valid}, {len(self.data.test[task]):,} test rows" if self.data.test else valid

    def keep(self, seed, models, logs):
        """Add a run to results.csv: its trained Recommenders and their TrainingLogs, one a network.

        A run that was not validated has no scores, and is no row.
        """
        self.models = models
        self.logs = logs
        if not self.runs:
            self.tests = tests_of(self.data, [task for model in models for task in model.tasks])
            self.splits = {"test": self.data.test, **self.tests}
            if self.settings.runs > 1:
                self.splits["valid"] = self.data.valid
        scores = {task: row for log in logs for task, row in log.final_scores.items()}
        self.parts += [saved.Part.of(model) for model in models]
        for model in models:
            logits = {split: self.logits(model, split) for split in self.splits}
            add_tests(scores, self.scores("test", logits["test"]))
        self.runs.append(scores)
        if scores:
            self.rows.append(self.row(seed, scores))
            results.add(self.folder, self.rows[-1])
        gc.collect()  # what trained refers to itself, and holds the columns of the training rows

    def logits(self, model, split):
        """{task: logits} of a split's rows, which are added to the sum over runs; {} of none."""
        logits = model.logits(self.splits[split]) if self.splits[split] else {}
        for task, values in logits.items():
            total = self.totals.setdefault(split, {})
            total[task] = total.get(task, 0) + values.astype(np.float64)
        return logits

    def scores(self, split, logits):
        """{task: scores} of {task: logits} of a split's rows."""
        rows = self.splits[split]
        return score_tasks(rows, logits, self.data.groups_of(rows))

    @property
    def means(self):
        """{split: {task: mean logit of the runs}}."""
        return keras.tree.map_structure(lambda total: total / len(self.runs), self.totals)

    def mean_of_runs(self):
        """The scores of the mean logit of all runs, added to results.csv; None of a single run."""
        n = len(self.rows)
        if n < 2:
            return None
        scores = self.scores("valid", self.means["valid"])
        add_tests(scores, self.scores("test", self.means.get("test", {})))
        settings = json.loads(self.rows[-1]["settings"])
        row = {
            "seed": self.settings.seed,
            "settings": json.dumps(settings | {"mean_of": n}, sort_keys=True),
            "changed": f"{changed(self.settings)} mean of {n} runs".strip(),
            "auc_by_epoch": "",
            "seconds": round(sum(row["seconds"] for row in self.rows), 2),
        }
        results.add(self.folder, self.rows[-1] | results.columns(scores, self.data.tasks) | row)
        return scores

    def row(self, seed, scores):
        """The row of results.csv of the last run."""
        meta = self.data.meta
        n_rows = len(self.data.train[self.target]) * sum(len(log.scores) for log in self.logs)
        seconds = sum(log.seconds for log in self.logs)
        settings = hyperparameters(self.settings, self.logs[0].params["epochs"])
        by_epoch = {
            task: [round(scores[task]["auc"], 6) for _, scores in log.scores]
            for log in self.logs
            for task in log.scores[0][1]
        }
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": meta["name"],
            "fingerprint": self.data.fingerprint,
            "synthetic": meta["synthetic"],
            "valid_day": meta["valid_day"],
            "model": self.settings.name,
            "tasks": ",".join(scores),
            "seed": seed,
            "settings": json.dumps(settings, sort_keys=True),
            "changed": changed(self.settings),
            **results.columns(scores, self.data.tasks),
            "auc_by_epoch": json.dumps(by_epoch),
            "seconds": round(seconds, 2),
            "rows_per_second": round(n_rows / max(seconds, 1e-9)),
            "peak_mb": round(results.peak_memory() / 1e6),
            **results.versions(),
        }

    def finish(self, gates=None):
        """Save the mean of the runs, write submissions, pictures and the comparison: a Result.

        gates: {name of a gate's layer: names of the experts that it weighs}.
        """
        if self.programs:
            list_programs(self.programs)
        valid = self.data.valid
        means = self.models[0].mean_outputs(valid, list(gates)) if gates and valid else {}
        weights = {
            gate: dict(zip(gates[gate], mean.tolist(), strict=True)) for gate, mean in means.items()
        }
        mean = self.mean_of_runs()
        name = self.settings.name
        saved.save(self.folder / f"{name}.keras", saved.whole_model(self.data, self.parts))
        several = f", the mean of {len(self.runs)} runs" if len(self.runs) > 1 else ""
        for test in TESTS:
            path = self.folder / f"{name}_submission_{test[-1]}.csv"
            if test in self.tests:
                n_rows = submit(path, self.data, self.tests[test], self.means[test])
                self.say(f"{path}: {n_rows:,} rows for the contest{several}")
            elif path.exists():
                path.unlink()
                self.say(f"{path}: removed, being of an earlier run of this name")
        if valid:
            self.compare()
        plots.curves(
            self.folder / f"{name}.png",
            f"{self.label}, {self.title}",
            [vars(log) for log in self.logs],
            weights,
        )
        for path in self.checkpoints:  # now that all is written
            shutil.rmtree(path, ignore_errors=True)
        return Result(self.target, self.runs, self.models, mean)

    def compare(self):
        """Print and draw all models that were run on this data, and the yardsticks."""
        runs = results.load(self.folder, self.data.fingerprint)
        marks = score_yardsticks(self.data, self.data.valid)
        tests = score_yardsticks(self.data, self.data.test) if self.data.test else {}
        for name in marks.keys() & tests.keys():
            add_tests(marks[name], tests[name])
        shown = (runs, marks, self.data, self.label, self.target)
        if not self.settings.quiet:
            results.print_table(*shown, self.settings.verbose)
        plots.comparison(self.folder / "comparison.png", *shown)
