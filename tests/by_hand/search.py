"""An equal budget of settings for each script: run by hand.

python tests/by_hand/search.py SOURCE [SOURCE ...]

SOURCE is a folder of CSVs, whose pickles go to user_data/search. Each script gets its defaults,
another number of epochs, and settings drawn from its own ranges, eight in all, on the day before
the last; records/search.csv ranks them by the mean over sources of AUC and, where that is steady,
uAUC. Every run stays in results.csv and is not made again.
"""

import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import get_data
from common.command import Parser, user_errors
from common.csvs import read_columns
from common.source import Source

import numpy as np
import pandas as pd
from runs import MULTI_TASK, RECORDS, SINGLE, Folder

PICKLES = Path(__file__).resolve().parents[2] / "user_data" / "search"
MIN_COUNT = 5  # get_data.py's default
BUDGET = 8  # settings a model that are searched
MANY = 100_000  # validation rows from which one seed is enough, and uAUC steady enough to rank by
SPACE = {  # what is drawn from, each value as likely
    "embedding-dim": [8, 16, 32],
    "learning-rate": [0.0005, 0.001, 0.002],
    "batch-size": [512, 1024, 2048],
    "embedding-l2": [0.0, 0.0001, 0.001],
    "dropout": [0.0, 0.1, 0.3],
    "min-count": [2, 5, 20],
}
HIDDEN = {"hidden": ["64,64", "128,64", "256,128"]}
WIDTH = {"expert-dim": [16, 32, 64]}
OWN_SPACE = {
    "deepfm": HIDDEN,
    "FocalLoss": HIDDEN | {"gamma": [0.5, 1.0, 2.0]},
    "mmoe": {"experts": [4, 8, 12]} | WIDTH | {"tower": ["", "32"]},
    "ple": {"own-experts": [1, 2, 3], "shared-experts": [1, 2, 4], "levels": [1, 2]} | WIDTH,
}


@cache
def encoded(source, min_count):
    """The Folder of the CSVs' pickles that validates the day before the last; made once."""
    place = PICKLES / f"{Path(source).resolve().name}-{min_count}"
    if not (place / "meta.pkl").exists():
        log = read_columns(Source.of_contest(source), "user_action.csv", ["date_"])
        words = [f"--valid-day={np.unique(log['date_'])[-2]}", f"--min-count={min_count}"]
        get_data.main([str(source), f"--out={place}", *words, "--quiet"])
    return Folder(place)


def drawn(script):
    """[(flags, min_count)], BUDGET of them: the defaults, two epochs for one or one for two, ..."""
    rng = np.random.default_rng(0)
    settings = [("", MIN_COUNT), (f"--epochs={1 if script == 'FocalLoss' else 2}", MIN_COUNT)]
    while len(settings) < BUDGET:
        space = SPACE | OWN_SPACE[script]
        values = {name: choices[rng.integers(len(choices))] for name, choices in space.items()}
        min_count = values.pop("min-count")
        flags = " ".join(f"--{name}={value}" for name, value in values.items())
        settings += [(flags, min_count)] if (flags, min_count) not in settings else []
    return settings


def search(sources):
    """Rank the settings of each model by the mean over sources of AUC and, where steady, uAUC."""
    rows = []
    ways = [(script, *way) for script in (*SINGLE, *MULTI_TASK) for way in drawn(script)]
    for script, flags, min_count in ways:
        task = "mean" if script in MULTI_TASK else None
        row = {"model": script, "flags": flags, "min_count": min_count}
        ranked = []
        for folder in [encoded(source, min_count) for source in sources]:
            is_large = folder.facts["rows"]["valid"] >= MANY
            means = folder.runs(script, flags, 1 if is_large else 2).mean(numeric_only=True)
            scores = [means[f"{score}_{task or folder.target}"] for score in ("auc", "uauc")]
            row |= {f"auc, {folder.title}": scores[0], f"uauc, {folder.title}": scores[1]}
            row[f"rows/s, {folder.title}"] = round(means["rows_per_second"])
            ranked += scores if is_large else scores[:1]
        rows.append(row | {"mean": np.mean(ranked)})
    table = pd.DataFrame(rows).round(5).sort_values(["model", "mean"], ascending=[True, False])
    table.to_csv(RECORDS / "search.csv", index=False, lineterminator="\n")


def main(argv=None):
    """Search on the sources that the command names."""
    parser = Parser(__doc__)
    parser.add_argument("source", nargs="+", help="folders of CSVs")
    search(parser.parse_args(argv).source)


if __name__ == "__main__":
    with user_errors():
        main()
