"""`results.csv`, a row a run, and the comparison of all models that were run on one data set."""

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import unicodedata
from importlib import metadata
from pathlib import Path

from common.command import InputError
from common.pickles import beside
from common.scores import mean_and_spread, weighted

import pandas as pd
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
NAME = "results.csv"
SCORES = {"auc": "AUC", "uauc": "uAUC", "logloss": "log loss", "calibration": "calibration"}
TEST_SCORES = {"testauc": "test AUC", "testuauc": "test uAUC"}
REQUIRED = ["fingerprint", "model", "tasks", "seed", "settings"]
REMEDY = "mend it, or move it away and a new one is begun."
TIDY = ["model", "seed", "task", "score", "value"]


def add(folder, row):
    """Append `row`, {column: str or number}, to folder/results.csv.

    Columns that the file lacks are added to it. Processes may add at the same time: each takes the
    lock, and the file is replaced whole. Where it was broken since the run began, the row goes to a
    file beside it. Raises InputError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".results.lock"):
        try:
            table = read(folder)
        except InputError as error:
            aside = folder / f"results-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.csv"
            pd.DataFrame([row]).to_csv(aside, index=False)
            raise InputError(f"{error} This run is kept in {aside}.") from None
        texts = {column: "" if pd.isna(value) else str(value) for column, value in row.items()}
        table = pd.concat([table, pd.DataFrame([texts])], ignore_index=True).fillna("")
        with beside(folder / NAME) as place:
            table.to_csv(place, index=False, lineterminator="\n")


def read(folder):
    """All rows of the file as text, an empty table without one. Raises InputError."""
    path = Path(folder) / NAME
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        return pd.DataFrame()
    except ValueError as error:  # of the parser or of the encoding
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no CSV in UTF-8 ({reason}): {REMEDY}") from None
    lacking = [column for column in REQUIRED if column not in table]
    if lacking:
        raise InputError(f"{path} lacks the columns {', '.join(lacking)}: {REMEDY}")
    if not table["seed"].str.fullmatch("[0-9]+").all():
        raise InputError(f"{path}: column seed must hold whole numbers: {REMEDY}")
    for column in score_columns(table):
        if pd.to_numeric(table[column].replace("", "0"), errors="coerce").isna().any():
            raise InputError(f"{path}: column {column} must hold numbers: {REMEDY}")
    return table


def columns(scores, tasks):
    """{column: number} of {task: scores}, with the weighted uAUC where all tasks have one."""
    row = {f"{name}_{task}": value for task in scores for name, value in scores[task].items()}
    uaucs = {task: scores[task]["uauc"] for task in scores if "uauc" in scores[task]}
    if list(uaucs) == list(tasks):
        row["weighted_uauc"] = weighted(uaucs, tasks)
    return row


def score_columns(table):
    """The columns SCORE_TASK of a task that a row names."""
    tasks = {task for names in table["tasks"] for task in names.split(",")}
    wanted = {f"{score}_{task}" for score in SCORES | TEST_SCORES for task in tasks}
    return [column for column in table if column in wanted]


def load(folder, fingerprint):
    """The scores of the runs on the data of this fingerprint, a line a (model, seed, task, score).

    A DataFrame with the columns model, seed, task, score and value. `model` is the name and the
    flags that differ from the defaults. Of the same settings and seed the latest value counts, and
    runs of single tasks become one. Where equal flags mean other settings, since defaults have
    changed, the older ones are told apart.
    """
    table = read(folder)
    if len(table):
        table = table[table["fingerprint"] == fingerprint].reset_index(drop=True)
    columns = score_columns(table) if len(table) else []
    if not columns:
        return pd.DataFrame(columns=TIDY)
    changed = table["changed"] if "changed" in table else ""
    table["label"] = (table["model"] + " " + changed).str.strip()
    versions = table.groupby(["label", "settings"]).tail(1)[["label", "settings"]]
    age = versions.iloc[::-1].groupby("label").cumcount()  # 0 for the latest settings
    suffix = age.map(lambda n: "" if n == 0 else f" (older defaults{f' {n}' if n > 1 else ''})")
    versions = versions.assign(model=versions["label"] + suffix)
    table = table.drop(columns="model").merge(versions, on=["label", "settings"])
    tidy = table.melt(["model", "seed", "tasks"], columns, "column", "value", ignore_index=False)
    tidy[["score", "task"]] = tidy["column"].str.split("_", n=1, expand=True)
    learned = [task in tasks.split(",") for task, tasks in zip(tidy.task, tidy.tasks, strict=True)]
    tidy = tidy[learned].sort_index(kind="stable")
    tidy["seed"] = tidy["seed"].astype(int)
    tidy["value"] = pd.to_numeric(tidy["value"], errors="coerce")
    filled = tidy.groupby("score")["value"].transform("count") > 0
    tidy = tidy[filled | (tidy["score"] == "auc")]  # without the columns of other data's scores
    latest = tidy.drop_duplicates(["model", "seed", "task", "score"], keep="last")
    return latest.sort_values(["model", "seed"], kind="stable")[TIDY].reset_index(drop=True)


def values(runs, model, task, score):
    """The score of a task, a number for each run of the model that has it, in order of seeds."""
    rows = (runs["model"] == model) & (runs["task"] == task) & (runs["score"] == score)
    return runs.loc[rows, "value"].tolist()


def with_marks(runs, marks, tasks):
    """The runs of these tasks and, as models of one run each, the yardsticks {name: scores}."""
    rows = [
        (name, 0, task, score, value)
        for name, scores in marks.items()
        for task, of_task in scores.items()
        for score, value in of_task.items()
    ]
    every = [runs, pd.DataFrame(rows, columns=TIDY)]
    every = pd.concat([part for part in every if len(part)] or every[:1], ignore_index=True)
    return every[every["task"].isin(tasks)]


def ranked(runs, target):
    """The names of the models, the highest mean AUC of `target` first, those without one last."""
    rows = runs[(runs["task"] == target) & (runs["score"] == "auc")]
    means = rows.groupby("model")["value"].mean()
    return means.reindex(runs["model"].unique()).sort_values(ascending=False).index.tolist()


def weighted_uaucs(runs, model, weights):
    """The contest's weighted uAUC, a number for each run that has all tasks of {task: weight}."""
    rows = runs[(runs["model"] == model) & (runs["score"] == "uauc")]
    table = rows.pivot_table(index="seed", columns="task", values="value", dropna=False)
    if not set(weights) <= set(table):
        return []
    return [weighted(row, weights) for row in table[list(weights)].dropna().to_dict("records")]


def print_table(runs, marks, data, current, target, verbose=False):
    """Print a block for each score: a line a model or yardstick, ordered by the target's AUC.

    runs: of `load`. marks: {yardstick: {task: scores}}. current: the model just run, marked with >.
    "-": a task that is not learned; "n/a": a score that these rows do not define. n: the runs.
    """
    tasks = list(data.tasks)
    every = with_marks(runs, marks, tasks)
    order = ranked(every, target)
    is_weighted = len(tasks) > 1 and every["score"].eq("uauc").any()
    names, notes = shortened(order, 40)
    synthetic = " (SYNTHETIC)" if data.meta["synthetic"] else ""
    lines = [(f"validation{synthetic}", "n", [*tasks, *(["weighted"] if is_weighted else [])])]
    lines.append(("positive rate", "", [f"{data.valid[task].mean():.4%}" for task in tasks]))
    shown = dict(list(SCORES.items())[: 4 if verbose else 2]) | TEST_SCORES
    for score in shown:
        for model in order if every["score"].eq(score).any() else ():
            cells = [values(every, model, task, score) for task in tasks]
            counts = {len(cell) for cell in cells if cell}
            if score == "uauc" and is_weighted:
                cells.append(weighted_uaucs(every, model, data.tasks))
            if counts:
                sign = ">" if model == current else " "
                n = "" if model in marks else "-".join(map(str, sorted(counts)))
                text = [mean_and_spread(cell) if cell else "-" for cell in cells]
                lines.append((f"{shown[score]:8} {sign} {names[model]}", n, text))
    first = max(places(head) for head, _, _ in lines)
    width = 2 + max(len(cell) for _, _, cells in lines for cell in cells)
    print()
    for head, n, cells in lines:
        row = "".join(f"{cell:>{width}}" for cell in cells)
        print(head + " " * (first - places(head)) + f"{n:>4}" + row)
    print(*notes, "", sep="\n")


def places(text):
    """The places that a text takes in a terminal."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def shortened(labels, width):
    """{label: at most `width` characters of it}, and a note for each label that was cut."""
    short = {}
    notes = []
    for label in labels:
        short[label] = label
        if len(label) > width:
            number = f"[{len(notes) + 1}]"
            short[label] = f"{label[: width - len(number) - 2].rstrip()}… {number}"
            notes.append(f"{number} {label}")
    return short, notes


def peak_memory():
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions():
    """What a run was made with; commit: the project's, -dirty if changed since, "" without git."""
    packages = {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    machine = f"{platform.system()} {platform.machine()}"
    commit = ""
    if (ROOT / ".git").exists() and shutil.which("git"):
        words = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
        commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return {"python": platform.python_version(), **packages, "machine": machine, "commit": commit}
