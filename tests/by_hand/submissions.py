"""What the last day and the mean of several runs gain a submission: run by hand.

python tests/by_hand/submissions.py SOURCE [--singles 5] [--runs 5]

SOURCE is a folder that data/sample.py made, with the labels of its test files. MMOE trains once
where the last labelled day validates and once on every labelled day: single runs, one a seed, and
the mean of several. The official scores of test_a and test_b and what the commands took are kept in
records/submissions.csv, in the place of earlier ones of these data.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.columns import TESTS
from common.command import Parser, user_errors
from common.pickles import beside
from common.results import versions
from common.submission import check, labels_of, official_score

import pandas as pd
from benchmark import run
from runs import RECORDS

RECORD = RECORDS / "submissions.csv"
DAYS = {"the last labelled day validates": [], "every labelled day": ["--final"]}


def measured(source, days, singles, runs):
    """A row for get_data.py and for each command of MMOE after it: its cost and its scores."""
    with tempfile.TemporaryDirectory() as folder:
        _, cost = run("get_data.py", source, "--out", folder, "--quiet", *DAYS[days])
        yield {"days": days, "runs": 0, **cost}
        for n, seed in [*((1, seed) for seed in range(singles)), (runs, 0)]:
            words = ["--user-data", folder, "--quiet", "--seed", seed, "--runs", n]
            _, cost = run("mmoe.py", *words)
            row = {"days": days, "runs": n, "seed": seed, **cost}
            for test in TESTS:
                submission = Path(folder) / f"mmoe_submission_{test[-1]}.csv"
                columns = check(submission, source / f"{test}.csv")
                labels = labels_of(columns, source / f"{test}_labels.csv")
                row[test] = official_score(columns, labels)[1]
            print(row, flush=True)
            yield row


def main(argv=None):
    """Measure, and keep what was found."""
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, help="folder of the stand-in's CSVs")
    parser.add_argument("--singles", type=int, default=5, help="seeds of single runs (5)")
    parser.add_argument("--runs", type=int, default=5, help="runs of the mean (5)")
    args = parser.parse_args(argv)
    source = args.source.resolve()
    name = json.loads((source / "source.json").read_text(encoding="utf-8"))["name"]
    rows = [row for days in DAYS for row in measured(source, days, args.singles, args.runs)]
    about = {"commit": versions()["commit"], "date": time.strftime("%Y-%m-%d")}
    new = pd.DataFrame(rows).assign(data=name, **about)
    old = pd.read_csv(RECORD) if RECORD.exists() else new.head(0)
    table = pd.concat([old[old["data"] != name], new])
    order = ["data", "days", "runs", "seed", *TESTS, "seconds", "GB", *about]
    with beside(RECORD) as place:
        table[order].to_csv(place, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    with user_errors():
        main()
