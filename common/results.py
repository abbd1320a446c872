"""`results.csv`, one row a run, and the comparison of all models that were run on one data set."""
import csv
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.pickles import InputError, beside
from common.scoring import mean_and_spread, weighted

NAME = "results.csv"
SCORES = {"auc": "AUC", "uauc": "uAUC", "logloss": "log loss"}  # a column is named SCORE_TASK
REQUIRED = ("fingerprint", "model", "tasks", "seed", "settings")  # what a comparison cannot do without
REMEDY = "mend it, or move it away and a new one is begun."
LINE = 133  # characters of a printed line; longer labels are cut and named below


# ---- the file


def add(folder, row):
    """Append `row`, {column: str, int or float}, to folder/results.csv; nan is written as "".

    Columns that the file lacks are added to it, empty in the older rows. Processes may add at the same time: each takes the
    lock, and the file is replaced whole. Raises InputError as `check` does.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        header, rows = _load(folder)
        rows.append({column: "" if value != value else value for column, value in row.items()})
        with beside(folder / NAME) as place, open(place, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys([*header, *row])), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())


def read(folder, fingerprint):
    """The rows [{column: str}] of the runs on the data of this fingerprint, in the file's order; [] if there is no file."""
    return [row for row in _load(Path(folder))[1] if row["fingerprint"] == fingerprint]


def check(folder):
    """Raises InputError if folder/results.csv is there but no table of runs, so that no run is made and then not recorded."""
    _load(Path(folder))


@contextmanager
def _locked(folder):
    with open(folder / ".results.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed
        yield


def _load(folder):
    """(columns, rows) of the file, ([], []) if there is none."""
    path = folder / NAME
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark in front
            reader = csv.DictReader(file)
            header, rows = list(reader.fieldnames or []), list(reader)
    except FileNotFoundError:
        return [], []
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is no CSV in UTF-8: {REMEDY}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions.") from None
    lacking = [column for column in REQUIRED if column not in header]
    if lacking:
        raise InputError(f"{path} lacks the columns {', '.join(lacking)}: {REMEDY}")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{path}: run {number} has more or fewer values than there are columns: {REMEDY}")
        try:
            int(row["seed"]), _scores(row)
        except ValueError:
            raise InputError(f"{path}: the seed and scores of run {number} must be numbers: {REMEDY}") from None
    return header, rows


# ---- from rows to models


def label(row):
    """How a row's model is called: its name, and the flags that differ from the defaults."""
    return f"{row['model']} {row['changed']}" if row.get("changed") else row["model"]


def models(rows):
    """{label: [{task: {"auc", "uauc", "logloss"}} of a run]} from the rows of one fingerprint, runs by seed.

    A score is nan where its cell is empty. Of the same seed the latest row counts. Runs that share model, settings and seed
    become one run of all their tasks, as single tasks are learned one after the other. Where equal flags mean other settings, since defaults have changed between two
    versions of a script, the older runs are told apart in the label.
    """
    groups = {}  # (model, settings): (label, {seed: scores})
    for row in rows:
        key = row["model"], row["settings"]
        _, seeds = groups.pop(key, (None, {}))  # popped, so that the group of the latest row is the last
        seeds.setdefault(int(row["seed"]), {}).update(_scores(row))
        groups[key] = label(row), seeds
    found = {}
    for name, seeds in reversed(groups.values()):
        free = (name + (f" (older defaults {i})" if i > 1 else " (older defaults)" if i else "") for i in range(len(groups)))
        found[next(one for one in free if one not in found)] = [scores for _, scores in sorted(seeds.items())]
    return found


def _scores(row):
    return {
        task: {key: float(row[f"{key}_{task}"] or "nan") for key in SCORES if f"{key}_{task}" in row}
        for task in row["tasks"].split(",")
    }


def values(runs, task, key):
    """The score `key` of `task`, a number for each run that has it."""
    return [run[task][key] for run in runs if key in run.get(task, {})]


def totals(runs, weights):
    """The contest's weighted uAUC, a number for each run that has all tasks of {task: weight}."""
    every = [{task: run[task]["uauc"] for task in weights if "uauc" in run.get(task, {})} for run in runs]
    return [weighted(one, weights) for one in every if len(one) == len(weights)]


def ranked(models, marks, target):
    """The labels of models and marks, the highest mean AUC of `target` first, those without one last."""
    means = {one: np.mean(values(runs, target, "auc") or [np.nan]) for one, runs in together(models, marks).items()}
    return sorted(means, key=lambda one: (np.isnan(means[one]), -means[one]))


def together(models, marks):
    """{label: runs} of the models and of the marks, which are as of one run."""
    return {**models, **{who: [scores] for who, scores in marks.items()}}


def there(models, marks, tasks, key):
    """Whether any of them has this score; without a grouping column, none has a uAUC."""
    return any(np.isfinite(values(runs, task, key)).any() for runs in together(models, marks).values() for task in tasks)


# ---- the comparison


def print_table(models, marks, data, tasks, current, target=None):
    """Print a block for each score, the best model of the target's AUC on top: means over runs, and standard deviations of several.

    models: {label: [scores of a run]}. marks: {name: scores} of what they are held against. current: the label of the run just
    made. target: a task, the first if not given. "-": a task not learned; "n/a": a score that is not defined on these rows. n: the
    runs of a model, from the fewest to the most of a task.
    """
    weights, every = data.meta["tasks"], together(models, marks)
    weigh = len(weights) > 1 and set(weights) <= set(tasks) and there(models, marks, tasks, "uauc")
    columns = [*tasks, "weighted uAUC"] if weigh else tasks
    order = ranked(models, marks, target or tasks[0])
    short, notes = _cut(order, max(20, LINE - len("log loss > ") - 6 - 18 * len(columns)))
    title = "validation" + (" (SYNTHETIC)" if data.meta["synthetic"] else "")
    width = max([len("log loss > ") + len(one) for one in short.values()] + [len(title)])
    line = lambda head, n, cells: print(f"{head:{width}}{n:>6}" + "".join(f"{cell:>18}" for cell in cells))
    print()
    line(title, "n", columns)
    line("positive rate", "", [f"{data.valid[task].mean():.4%}" for task in tasks])
    for key, what in SCORES.items():
        if key != "auc" and not there(models, marks, tasks, key):
            continue
        for one in order:
            of_task = [values(every[one], task, key) for task in tasks]
            if weigh and key == "uauc":
                of_task.append(totals(every[one], weights))
            counts = sorted({len(found) for found in of_task[: len(tasks)] if found})
            n = "" if one in marks else "-".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else "0"
            sign = ">" if one == current else " "
            line(f"{what:8} {sign} {short[one]}", n, [mean_and_spread(found) if found else "-" for found in of_task])
    print(*notes, "", sep="\n")


def _cut(labels, width):
    """{label: one of at most `width` characters}, and a line for each label that was cut."""
    short, notes = {}, []
    for one in labels:
        short[one] = one
        if len(one) > width:
            number = f"[{len(notes) + 1}]"
            short[one] = f"{one[: width - len(number) - 2].rstrip()}… {number}"
            notes.append(f"{number} {one}")
    return short, notes
