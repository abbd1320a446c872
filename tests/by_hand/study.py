"""What tests/README.md says of the models, made again: run by hand. A command prints a table.

python tests/by_hand/study.py models USER_DATA    the four scripts, and what peers.py measured
python tests/by_hand/study.py pairs USER_DATA     which of their differences are real
python tests/by_hand/study.py focal USER_DATA     focal loss and annealing apart
python tests/by_hand/study.py tasks USER_DATA     each task alone against all tasks together
python tests/by_hand/study.py features USER_DATA  what each group of features adds
python tests/by_hand/study.py epochs USER_DATA    AUC by epoch, embeddings drawn anew or not
python tests/by_hand/study.py search SOURCE       an equal budget of settings a model: search.csv

USER_DATA is a folder that get_data.py wrote, SOURCE one of CSVs, whose pickles go to
user_data/search; either may be several. Every run stays in results.csv and is not made again: a
study that was stopped goes on. After a model has changed, begin with a new folder.
"""

import itertools
import json
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import get_data
from common.command import Parser, user_errors
from common.csvs import read_columns
from common.results import SCORES
from common.scores import score_yardsticks
from common.source import Source

import numpy as np
import pandas as pd
from runs import MULTI_TASK, SINGLE, Folder, markdown, short, table
from scipy.stats import ttest_rel

HERE = Path(__file__).resolve().parent
PICKLES = HERE.parents[1] / "user_data" / "search"
GROUPS = {
    "ids": ["userid", "feedid", "authorid", "bgm_song_id", "bgm_singer_id"],
    "lists": ["manual_tag_list", "manual_keyword_list"],
    "history": ["user_history", "feed_history", "author_history"],
    "watch times": ["user_watch_time", "feed_watch_time", "author_watch_time"],
    "tastes": ["user_taste"],
    "co-occurrence": ["user_cooccurrence", "feed_cooccurrence"],
    "device": ["device"],
    "machine lists": ["machine_tag_list", "machine_keyword_list"],
    "feed embedding": ["feed_embedding"],
    "video length": ["videoplayseconds"],
}
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


def models(folder):
    """Every score of every model and yardstick, and what a model costs."""
    data = folder.data
    runs = folder.compared()
    for name, scores in score_yardsticks(data, data.valid).items():
        row = {f"{score}_{task}": scores[task][score] for task in scores for score in scores[task]}
        runs[f"*{name}*"] = folder.with_means(pd.DataFrame([row]))
    for score in SCORES:
        columns = [f"{score}_{task}" for task in [*folder.tasks, "mean"]]
        table(f"{folder.title}; mean: of {', '.join(folder.frequent)}", runs, columns)
    table(f"{folder.title}: cost", runs, ["weighted_uauc", "seconds", "peak_mb"])


def pairs(folder):
    """Differences over equal seeds, with Student's 95 % interval; bold where it leaves 0 out."""
    runs = folder.compared()
    columns = [f"auc_{folder.target}", f"uauc_{folder.target}", "auc_mean", "weighted_uauc"]
    rows = {}
    for pair in itertools.combinations(runs, 2):
        a, b = (runs[model].reindex(columns=columns).astype(float) for model in pair)
        seeds = a.index.intersection(b.index)
        cells = [difference(a.loc[seeds, name], b.loc[seeds, name]) for name in columns]
        rows[f"{' - '.join(pair)} (n = {len(seeds)})"] = cells
    markdown(f"{folder.title}: differences over equal seeds, 95 % intervals", columns, rows)


def difference(a, b):
    """Student's 95 % interval of a - b, numbers by seed; bold where it leaves 0 out."""
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    text = short(f"{(low + high) / 2:+.4f} ± {(high - low) / 2:.4f}")
    if np.isnan(low):
        return ""
    return f"**{text}**" if low > 0 or high < 0 else text


def focal(folder):
    """Focal loss with and without annealing, its scores as they are and as probabilities."""
    losses = ("--gamma 0", "", "--raw-scores", "--gamma 2", "--gamma 2 --raw-scores")
    ways = [f"{loss} {cycles}" for loss in losses for cycles in ("--cycles=", "")]
    runs = {f"FocalLoss {flags}": folder.runs("FocalLoss", flags) for flags in ways}
    columns = [f"{score}_{folder.target}" for score in SCORES]
    table(f"{folder.title}: two epochs, DeepFM's network", runs, columns)


def tasks(folder):
    """The same network with all tasks and with each alone."""
    runs = {}
    for script in MULTI_TASK:
        runs[script] = folder.runs(script)
        for task in folder.tasks:
            runs[f"{script} --tasks {task}"] = folder.runs(script, f"--tasks {task}")
    columns = [f"{score}_{task}" for score in ("auc", "uauc") for task in folder.tasks]
    table(f"{folder.title}: all tasks together and each alone", runs, columns)


def features(folder):
    """MMOE without each group of features and with each that is off; gain ± standard error."""
    columns = ["auc_mean", "uauc_mean"]
    scores = {}
    for way, names in ways_of(list(folder.data.features), folder.data.meta["features"]).items():
        scores[way] = folder.runs("mmoe", f"--features {','.join(names)}", 3)[columns]
    gains = {way: runs - scores["default"] for way, runs in scores.items()}
    title = f"{folder.title}, day {folder.data.meta['valid_day']}: MMOE, three seeds"
    table(title, scores, columns)
    table(f"{title}: gain over the default ± standard error", gains, columns, "+")


def ways_of(usual, every):
    """{way: features}: the usual ones, those without a group, with one more, few alone."""
    ways = {"default": usual}
    for group, names in GROUPS.items():
        if set(names) & set(usual):
            ways[f"without {group}"] = [name for name in usual if name not in names]
        elif set(names) <= set(every):
            ways[f"with {group}"] = usual + names
    content = GROUPS["ids"] + GROUPS["lists"] + GROUPS["device"]
    ways["ids and lists alone"] = [name for name in usual if name in content]
    ways["history alone"] = [name for name in usual if name in GROUPS["history"]]
    return ways


def epochs(folder):
    """AUC after each epoch, with new embeddings in each and with the same; two seeds."""
    curves = {}
    for script, keep in itertools.product((*SINGLE, *MULTI_TASK), ("", "--keep-embeddings")):
        shown = folder.frequent if script in MULTI_TASK else [folder.target]
        length = "--epochs 4 --cycles 1" if script == "FocalLoss" else "--epochs 3"
        logs = folder.runs(script, f"{length} {keep}", 2)["auc_by_epoch"].map(json.loads)
        means = [pd.DataFrame(log)[shown].mean(axis=1) for log in logs]
        curves[f"{script} {keep}"] = pd.DataFrame(means).rename(columns=lambda i: f"epoch {i + 1}")
    title = f"{folder.title}: AUC; MMOE and PLE: mean of {', '.join(folder.frequent)}"
    table(title, curves, [f"epoch {n}" for n in range(1, 5)])


# ---- the search


@cache
def encoded(source, min_count):
    """The Folder of the CSVs' pickles that validates the day before the last; made once."""
    place = PICKLES / f"{Path(source).resolve().name}-{min_count}"
    if not (place / "meta.pkl").exists():
        day = np.unique(read_columns(Source(source), "user_action.csv", ["date_"])["date_"])[-2]
        words = [f"--out={place}", f"--valid-day={day}", f"--min-count={min_count}", "--quiet"]
        get_data.main([str(source), *words])
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
    for script, (flags, min_count) in (
        (s, way) for s in (*SINGLE, *MULTI_TASK) for way in drawn(s)
    ):
        task = "mean" if script in MULTI_TASK else None
        row = {"model": script, "flags": flags, "min_count": min_count}
        ranked = []
        for folder in [encoded(source, min_count) for source in sources]:
            is_large = len(folder.data.valid["day"]) >= MANY
            means = folder.runs(script, flags, 1 if is_large else 2).mean(numeric_only=True)
            scores = [means[f"{score}_{task or folder.target}"] for score in ("auc", "uauc")]
            row |= {f"auc, {folder.title}": scores[0], f"uauc, {folder.title}": scores[1]}
            row[f"rows/s, {folder.title}"] = round(means["rows_per_second"])
            ranked += scores if is_large else scores[:1]
        rows.append(row | {"mean": np.mean(ranked)})
    table = pd.DataFrame(rows).round(5).sort_values(["model", "mean"], ascending=[True, False])
    table.to_csv(HERE / "search.csv", index=False, lineterminator="\n")


def main(argv=None):
    """Make the table that the command names, for each folder."""
    studies = {f.__name__: f for f in (models, pairs, focal, tasks, features, epochs)}
    parser = Parser(__doc__)
    parser.add_argument("study", choices=[*studies, "search"])
    parser.add_argument("folder", nargs="+")
    args = parser.parse_args(argv)
    if args.study == "search":
        search(args.folder)
    else:
        for path in args.folder:
            studies[args.study](Folder(path))


if __name__ == "__main__":
    with user_errors():
        main()
