"""The scores: exact AUC, the contest's uAUC, log loss. Nowhere else is a score computed."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.special import expit


def auc(labels, scores):
    """Exact area under the ROC curve over all rows; nan where only one class is there."""
    return uauc(labels, scores, np.zeros(len(labels), np.uint8))


def uauc(labels, scores, groups):
    """The contest's uAUC: mean over users of the AUC within the user, one-class users left out.

    labels, scores, groups: (rows,), groups being small integers. Within a group the AUC is
    (R - P (P + 1) / 2) / (P N), R the sum of the positives' ranks (ties share their mean rank), P
    and N the numbers of positives and negatives (Mann and Whitney, 1947). nan where no group has
    both classes. Raises ValueError for a score that is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    order = np.lexsort((scores, groups))
    groups = np.asarray(groups)[order]
    scores = np.asarray(scores)[order]
    positive = np.asarray(labels)[order] > 0
    new_group = np.concatenate([[True], groups[1:] != groups[:-1]])
    new_tie = new_group | np.concatenate([[True], scores[1:] != scores[:-1]])
    starts = np.flatnonzero(new_tie)
    ends = np.append(starts[1:], len(scores))  # one past the last row of each tie
    rank = ((starts + ends + 1) / 2)[np.cumsum(new_tie) - 1]  # ranks from 1, over all rows
    group = np.cumsum(new_group) - 1
    rank -= np.flatnonzero(new_group)[group]  # ranks within the group
    positives = np.bincount(group, weights=positive)
    negatives = np.bincount(group) - positives
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return float("nan")
    rank_sums = np.bincount(group, weights=np.where(positive, rank, 0.0))[both]
    positives = positives[both]
    pairs = positives * negatives[both]
    return float(np.mean((rank_sums - positives * (positives + 1) / 2) / pairs))


def mean_auc(scores):
    """Mean AUC over the tasks of {task: scores}, those without both classes left out."""
    aucs = [of_task["auc"] for of_task in scores.values() if not np.isnan(of_task["auc"])]
    return float(np.mean(aucs)) if aucs else float("nan")


def weighted(values, weights):
    """Mean of {task: value} with the contest's {task: weight}; nan where a value is."""
    total = sum(values[task] * weight for task, weight in weights.items())
    return total / sum(weights.values())


def score(labels, logits, groups=None):
    """{"auc", "uauc", "logloss", "calibration"} of a task; uauc only with groups.

    logits: (rows,), taken in float64, in which the log loss is exact however large they are.
    Calibration is the mean predicted probability over the share of positives; nan without any.
    """
    logits = np.asarray(logits, np.float64)
    positive = np.asarray(labels) > 0
    scores = {"auc": auc(labels, logits)}
    if groups is not None:
        scores["uauc"] = uauc(labels, logits, groups)
    losses = np.logaddexp(0.0, logits) - np.where(positive, logits, 0.0)  # cross-entropy
    scores["logloss"] = float(np.mean(losses))
    rate = np.mean(positive)
    scores["calibration"] = float(np.mean(expit(logits)) / rate) if rate else float("nan")
    return scores


def score_tasks(rows, logits, groups=None):
    """{task: scores} of {task: logits (rows,)} and the labels {task: (rows,)}, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each worker sorts in memory of its own
        futures = {task: pool.submit(score, rows[task], logits[task], groups) for task in logits}
        return {task: future.result() for task, future in futures.items()}


def add_tests(scores, tests):
    """Put the AUC and uAUC of {task: scores} of test rows into those of the validation rows."""
    for task, of_task in tests.items():
        for name in ("auc", "uauc"):
            if name in of_task:
                scores[task][f"test{name}"] = of_task[name]


def mean_and_spread(values):
    """ "0.9260", of several "0.9260 +- 0.0004" (sample standard deviation), "n/a" without one."""
    if np.isnan(values).any():
        return "n/a"
    spread = f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def yardsticks(data, rows):
    """{name: {task: logits (rows,)}} of what a model is compared with, on these rows of a Data.

    The past rate of each row's user comes from `user_history`, whose log lift orders the rows of a
    day as the smoothed rate does; the oracle from the true probabilities that the synthetic
    stand-in keeps. A data set without them has fewer yardsticks.
    """
    marks = {}
    history = data.meta["features"].get("user_history", {})
    columns = history.get("columns", [])
    if history.get("daily") and set(data.tasks) <= set(columns):
        table = data.tables[history["table"]]["user_history"]
        past = table[rows["day"], rows[history["table"]]].astype(np.float64)  # (rows, columns)
        marks["user's past rate"] = {
            task: data.log_odds(task) + past[:, columns.index(task)] for task in data.tasks
        }
    if all(f"true_{task}" in rows for task in data.tasks):
        truth = {task: rows[f"true_{task}"].astype(np.float64) for task in data.tasks}
        marks["oracle"] = {task: np.log(p) - np.log1p(-p) for task, p in truth.items()}
    return marks


def score_yardsticks(data, rows):
    """{yardstick: {task: scores}} of these rows of a Data."""
    groups = data.groups_of(rows)
    marks = yardsticks(data, rows)
    return {name: score_tasks(rows, logits, groups) for name, logits in marks.items()}
