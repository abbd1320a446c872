"""The contest's submission files: written, checked and scored.

    python -m common.submission SUBMISSION.csv TEST.csv [LABELS.csv]

Checks that SUBMISSION has a row for each row of TEST (`userid,feedid,device`), in its order, and probabilities of 6 decimals. With
LABELS (`userid,feedid` and the actions, in the same order) it prints the official score: the mean of the tasks' uAUC,
weighted 4, 3, 2, 1, and 1 each for favorite, comment and follow where the submission has the final round's seven tasks.
"""
import re
import sys
from pathlib import Path

import numpy as np

from common.columns import FINAL_ROUND_WEIGHTS, TASK_WEIGHTS
from common.command import Parser, main as command
from common.pickles import InputError, beside
from common.reading import Source, read_columns
from common.scoring import uauc, weighted

DECIMALS = re.compile(r"[01]\.\d{6}")


def write(path, userid, feedid, probabilities):
    """Write a submission: ids (rows,) and {task: probability (rows,)}, the tasks in the contest's order."""
    import pandas as pd

    tasks = [task for task in FINAL_ROUND_WEIGHTS if task in probabilities]
    frame = pd.DataFrame({"userid": userid, "feedid": feedid, **{task: probabilities[task] for task in tasks}})
    with beside(path) as place:
        frame.to_csv(place, index=False, float_format="%.6f", lineterminator="\n")


def check(submission, test):
    """The {column: array} of a submission. Raises InputError for the first thing in it that the contest would refuse."""
    submission, test = Path(submission), Path(test)
    rows = read_columns(Source(test.parent), test.name, ("userid", "feedid"))
    with open(submission, encoding="utf-8", newline="") as file:
        header = tuple(file.readline().rstrip("\n").split(","))
        body = file.read()
    rounds = [("userid", "feedid", *tasks) for tasks in (TASK_WEIGHTS, FINAL_ROUND_WEIGHTS)]
    if header not in rounds:
        raise InputError(f"{submission}: the header must be {','.join(rounds[0])}, or end in favorite,comment,follow.")
    lines = body.split("\n")[:-1] if body.endswith("\n") else body.split("\n")
    if len(lines) != len(rows["userid"]):
        raise InputError(f"{submission} has {len(lines):,} rows and {test} has {len(rows['userid']):,}: write one row a test row.")
    values = np.empty((len(lines), len(header) - 2))
    for number, (line, user, feed) in enumerate(zip(lines, rows["userid"].tolist(), rows["feedid"].tolist()), start=2):
        words = line.split(",")
        if words[:2] != [str(user), str(feed)]:
            raise InputError(f"{submission}, line {number}: it is not of user {user} and feed {feed}: keep the order of {test}.")
        if len(words) != len(header) or not all(map(DECIMALS.fullmatch, words[2:])) or max(words[2:]) > "1.000000":
            raise InputError(f"{submission}, line {number}: {len(header) - 2} probabilities of 6 decimals must follow the ids.")
        values[number - 2] = [float(word) for word in words[2:]]
    return rows | dict(zip(header[2:], values.T))


def official_score(columns, labels):
    """{task: uAUC} and the official score of a checked submission, labels {task: (rows,)} being in its order."""
    weights = FINAL_ROUND_WEIGHTS if "favorite" in columns else TASK_WEIGHTS
    _, users = np.unique(columns["userid"], return_inverse=True)
    found = {task: uauc(labels[task], columns[task], users) for task in weights}
    return found, weighted(found, weights)


def run(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("submission", metavar="SUBMISSION", help="the CSV to check")
    parser.add_argument("test", metavar="TEST", help="the test file that it answers")
    parser.add_argument("labels", metavar="LABELS", nargs="?", help="true actions of the same rows: prints the official score")
    args = parser.parse_args(argv)
    for path in (args.submission, args.test, *([args.labels] if args.labels else [])):
        if not Path(path).is_file():
            raise InputError(f"{path} does not exist: give the path of a CSV.")
    columns = check(args.submission, args.test)
    print(f"{args.submission}: {len(columns['userid']):,} rows in the contest's format")
    if args.labels:
        tasks = [name for name in columns if name not in ("userid", "feedid")]
        labels = read_columns(Source(Path(args.labels).parent), Path(args.labels).name, ("userid", "feedid", *tasks))
        if any(not np.array_equal(labels[name], columns[name]) for name in ("userid", "feedid")):
            raise InputError(f"{args.labels}: its rows are not those of {args.test}, in the same order.")
        found, score = official_score(columns, labels)
        print("  ".join(f"{task} {value:.6f}" for task, value in found.items()) + f"  score {score:.6f}")


if __name__ == "__main__":
    sys.exit(command(run))
