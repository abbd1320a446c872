"""The table of all models averaged over several validation days.

python get_data.py --valid-days 3
for d in user_data/day-*; do python mmoe.py --user-data $d --runs 5; done
python -m common.days user_data/day-*

A seed's score is its mean over the days, and what stands behind +- is the deviation over seeds. The
last lines say how much the days differ.
"""

from common import results
from common.command import InputError, Parser, user_errors
from common.contract import load
from common.scores import score_yardsticks

import numpy as np
import pandas as pd

KEY = ["model", "seed", "task", "score"]


def mean_over_days(tables):
    """Runs, as results.load gives them, with their means: of what every day has."""
    groups = pd.concat(tables, ignore_index=True).groupby(KEY, sort=False)["value"]
    return groups.mean()[groups.size() == len(tables)].reset_index()


def mean_of_yardsticks(every):
    """{yardstick: {task: scores}} of the validation rows of several Data, averaged."""
    marks = [score_yardsticks(data, data.valid) for data in every]
    return {
        name: {
            task: {score: np.mean([mark[name][task][score] for mark in marks]) for score in scores}
            for task, scores in tasks.items()
        }
        for name, tasks in marks[0].items()
        if all(name in mark for mark in marks)
    }


def main(argv=None):
    """Print the table; argv: a list of folders, None for the process's own. Raises InputError."""
    parser = Parser(__doc__)
    parser.add_argument("folder", nargs="+", help="a folder of pickles, with its results.csv")
    folders = parser.parse_args(argv).folder
    every = [load(folder) for folder in folders]
    data = every[-1]
    for folder, other in zip(folders, every, strict=True):
        if not other.valid or other.tasks != data.tasks:
            raise InputError(f"{folder} has no validation day, or other tasks: leave it out.")
        if other.meta["name"] != data.meta["name"]:
            names = f"{other.meta['name']}, and {folders[-1]} of {data.meta['name']}"
            raise InputError(f"{folder} is of {names}: average days of the same data.")
    tables = [
        results.load(folder, of_day.fingerprint)
        for folder, of_day in zip(folders, every, strict=True)
    ]
    runs = mean_over_days(tables)
    if not len(runs):
        raise InputError(f"no model was run on every folder of {', '.join(folders)}: run one.")
    days = [str(of_day.meta["valid_day"]) for of_day in every]
    target = data.first_task
    print(f"{data.meta['name']}: means over the days {', '.join(days)}; positive rates of the last")
    results.print_table(runs, mean_of_yardsticks(every), data, "", target)
    for model in results.ranked(runs, target):
        aucs = [np.mean(results.values(table, model, target, "auc")) for table in tables]
        print(f"{model}, {target} AUC by day: {'  '.join(f'{auc:.4f}' for auc in aucs)}")


if __name__ == "__main__":
    with user_errors():
        main()
