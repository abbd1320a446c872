"""The contest's submission files: written, checked and scored.

python -m common.submission SUBMISSION.csv TEST.csv [LABELS.csv]

Checks that SUBMISSION has a row for each row of TEST (`userid,feedid,device`), in its order, and
probabilities of 6 decimals. With LABELS (`userid,feedid` and the actions, in the same order) it
prints the official score: the mean of the tasks' uAUC, weighted 4, 3, 2, 1, and 1 each for
favorite, comment and follow where the submission has the final round's seven tasks.
"""

import re
from pathlib import Path

from common.columns import FINAL_ROUND_WEIGHTS, TASK_WEIGHTS
from common.command import InputError, Parser, user_errors
from common.csvs import read_columns
from common.lines import write_columns
from common.scores import uauc, weighted
from common.source import file_of

import numpy as np
from scipy.special import expit

PROBABILITY = re.compile(r"0\.\d{6}|1\.000000")


def tests_of(data, tasks):
    """{name: rows} of the test files of a Data that a model of these tasks can answer.

    Empty unless the tasks are those of one of the rounds, and the rows are of users and feeds.
    """
    rounds = [set(TASK_WEIGHTS), set(FINAL_ROUND_WEIGHTS)]
    raw = {raw for column, raw in data.meta.get("raw", {}).items() if column in data.tables}
    if not {"userid", "feedid"} <= raw or set(tasks) not in rounds:
        return {}
    return data.unlabelled


def submit(path, data, rows, logits):
    """Write the submission of a test file of a Data: the number of its rows.

    rows: {column: (rows,)}; logits: {task: (rows,)}. An id that the data do not know is -1.
    """
    keys = {raw: key for key, raw in data.meta["raw"].items()}
    ids = {raw: data.tables[keys[raw]]["key"][rows[keys[raw]]] for raw in ("userid", "feedid")}
    write(path, **ids, probabilities={task: expit(values) for task, values in logits.items()})
    return len(ids["userid"])


def write(path, userid, feedid, probabilities):
    """Write ids (rows,) and {task: probability (rows,)}, the tasks in the contest's order."""
    tasks = {task: probabilities[task] for task in FINAL_ROUND_WEIGHTS if task in probabilities}
    write_columns(path, {"userid": userid, "feedid": feedid} | tasks)


def check(submission, test):
    """The {column: array} of a submission; InputError for what the contest would refuse."""
    rows = read_columns(*file_of(test), ("userid", "feedid"))
    try:
        header, *lines = Path(submission).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise InputError(f"{submission} does not exist: give the path of a CSV.") from None
    except UnicodeDecodeError:
        raise InputError(f"{submission} is no text in UTF-8: write it anew.") from None
    names = tuple(header.rstrip("\r").split(","))
    rounds = [("userid", "feedid", *tasks) for tasks in (TASK_WEIGHTS, FINAL_ROUND_WEIGHTS)]
    if names not in rounds:
        expected = ",".join(rounds[0])
        raise InputError(f"{submission}: the header must be {expected}, or that of 7 tasks.")
    n_rows = len(rows["userid"])
    if len(lines) != n_rows:
        what = f"{submission} has {len(lines):,} rows and {test} has {n_rows:,}"
        raise InputError(f"{what}: write it anew.")
    values = np.empty((n_rows, len(names) - 2))
    ids = zip(rows["userid"].tolist(), rows["feedid"].tolist(), strict=True)
    for number, (line, (user, feed)) in enumerate(zip(lines, ids, strict=True)):
        words = line.rstrip("\r").split(",")
        place = f"{submission}, line {number + 2}"
        if words[:2] != [str(user), str(feed)]:
            raise InputError(f"{place}: it is not of user {user} and feed {feed}, as in {test}.")
        if len(words) != len(names) or not all(map(PROBABILITY.fullmatch, words[2:])):
            n = len(names) - 2
            raise InputError(f"{place}: {n} probabilities of 6 decimals must follow the ids.")
        values[number] = [float(word) for word in words[2:]]
    return rows | dict(zip(names[2:], values.T, strict=True))


def labels_of(columns, path):
    """The true actions {task: (rows,)} of a checked submission's rows. Raises InputError."""
    labels = read_columns(*file_of(path), tuple(columns))
    if any(not np.array_equal(labels[name], columns[name]) for name in ("userid", "feedid")):
        raise InputError(f"{path}: its rows are not those of the submission in its order.")
    return labels


def official_score(columns, labels):
    """{task: uAUC} and the official score of a checked submission; labels: {task: (rows,)}."""
    weights = FINAL_ROUND_WEIGHTS if "favorite" in columns else TASK_WEIGHTS
    users = np.unique(columns["userid"], return_inverse=True)[1]
    uaucs = {task: uauc(labels[task], columns[task], users) for task in weights}
    return uaucs, weighted(uaucs, weights)


def main(argv=None):
    """Check a submission and, given labels, print its official score. Raises InputError."""
    parser = Parser(__doc__)
    parser.add_argument("submission", metavar="SUBMISSION", help="the CSV to check")
    parser.add_argument("test", metavar="TEST", help="the test file that it answers")
    parser.add_argument("labels", metavar="LABELS", nargs="?", help="true actions of the same rows")
    args = parser.parse_args(argv)
    columns = check(args.submission, args.test)
    print(f"{args.submission}: {len(columns['userid']):,} rows in the contest's format")
    if args.labels:
        uaucs, total = official_score(columns, labels_of(columns, args.labels))
        parts = [f"{task} {value:.6f}" for task, value in uaucs.items()]
        print("  ".join([*parts, f"score {total:.6f}"]))


if __name__ == "__main__":
    with user_errors():
        main()
