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
    every = [load(folder) for folder in parser.parse_args(argv).folder]
    data = every[-1]
    for other in every:
        if not other.valid or other.tasks != data.tasks:
            raise InputError(f"{other.folder} has no validation day, or other tasks: leave it out.")
        if other.meta["name"] != data.meta["name"]:
            names = f"{other.meta['name']}, and {data.folder} of {data.meta['name']}"
            raise InputError(f"{other.folder} is of {names}: average days of the same data.")
    tables = [results.load(of_day.folder, of_day.fingerprint) for of_day in every]
    groups = pd.concat(tables, ignore_index=True).groupby(results.TIDY[:-1], sort=False)["value"]
    runs = groups.mean()[groups.size() == len(tables)].reset_index()  # of what every day has
    if not len(runs):
        folders = ", ".join(str(of_day.folder) for of_day in every)
        raise InputError(f"no model was run on every folder of {folders}: run one.")
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
