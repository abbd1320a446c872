"""The tables of the documents: run by hand. A command prints one, for each folder side by side.

python tests/by_hand/study.py STUDY FOLDER [FOLDER ...]
python tests/by_hand/study.py keep FOLDER NAME

FOLDER is one that get_data.py wrote, whose missing runs are made and stay in results.csv, so that a
study that was stopped goes on; or the name of a record. `keep` makes the record NAME of a folder,
from which documents.py fills the documents. After a model has changed, begin with a new folder. The
studies:
"""

import itertools
import json
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.command import InputError, Parser, user_errors
from common.contract import LONG

import numpy as np
import pandas as pd
import within_user as within
from runs import (
    MULTI_TASK,
    SINGLE,
    Folder,
    annealed,
    beside,
    cell,
    cells,
    markdown,
    short,
    shown,
    uncalibrated,
)
from scipy.stats import ttest_ind, ttest_rel

GROUPS = {
    "ids": ["userid", "feedid", "authorid", "bgm_song_id", "bgm_singer_id"],
    "lists": ["manual_tag_list", "manual_keyword_list"],
    "history": ["user_history", "feed_history", "author_history"],
    "watch times": ["user_watch_time", "feed_watch_time", "author_watch_time"],
    "tastes": ["user_taste"],
    "co-occurrence": ["user_cooccurrence", "feed_cooccurrence"],
    "exposures": ["user_exposures", "feed_exposures", "author_exposures"],
    "device": ["device"],
    "machine lists": ["machine_tag_list", "machine_keyword_list"],
    "feed embedding": ["feed_embedding"],
    "video length": ["videoplayseconds"],
}
STRAIGHT = "--bins 0"  # linear terms as they were by default when most studies were made
WITHIN = {  # the way's loss, its weight, and the share of units whose rows stay together
    "the same, rows of a user together": "none-0-1",
    "and BPR, weight .1": "bpr-0.1-1",
    "and BPR, weight 1": "bpr-1-1",
    "and softmax, weight .1": "softmax-0.1-1",
    "and JRC, weight .03": "jrc-0.03-1",
    "and JRC with two logits, weight .1": "jrc2-0.1-1",
}
LENGTHS = {  # beside the default, up to eight epochs; embeddings are kept where ids are few
    "straight linear terms": "",
    "the same, 1 epoch": "--epochs 1 --keep-embeddings",
    "4 epochs": "--epochs 4",
    "16 epochs": "--epochs 16 --keep-embeddings",
    "best of 20 epochs, patience 3": "--epochs 20 --patience 3 --keep-embeddings",
    "8 epochs, dropout .3": "--epochs 8 --keep-embeddings --dropout 0.3",
}

SHARED_2021 = (
    "--features userid,feedid,authorid,bgm_song_id,bgm_singer_id,manual_tag_list,"
    "manual_keyword_list,videoplayseconds --learning-rate 0.01 --batch-size 10240 --dropout 0.1 "
    f"--keep-embeddings {STRAIGHT}"
)
OWN_2021 = {
    "deepfm": "--hidden 64,64 --embedding-l2 0 --epochs 4",
    "mmoe": "--epochs 4",
    "ple": "--epochs 4",
    "FocalLoss": "--hidden 64,64 --embedding-l2 0 --epochs 5 --cycles 1,2,2 --gamma 2 --alpha 0.9 "
    "--raw-scores",
}


def everything(folder):
    """{model, mean of several runs or yardstick: its runs}."""
    return folder.compared() | folder.averaged() | folder.marks()


def named(names, *, prefix=""):
    """Names of columns: the first with a prefix."""
    return [f"{prefix} {names[0]}".strip(), *names[1:]]


def results(folder):
    """AUC and uAUC of the target, and the mean AUC over the tasks with positives enough."""
    columns = [f"auc_{folder.target}", f"uauc_{folder.target}", "auc_mean"]
    rows = {name: cells(runs, columns) for name, runs in everything(folder).items()}
    return [f"AUC {folder.target}", "uAUC", "mean AUC"], rows


def models(folder):
    """AUC and uAUC of each task that has positives enough, their means, the weighted uAUC."""
    tasks = [*folder.frequent, "mean"]
    columns = [f"{score}_{task}" for score in ("auc", "uauc") for task in tasks]
    names = [*named(tasks, prefix="AUC"), *named(tasks, prefix="uAUC")]
    if folder.frequent == folder.tasks:
        columns.append("weighted_uauc")
        names.append("weighted uAUC")
    return names, {name: cells(runs, columns) for name, runs in everything(folder).items()}


def cost(folder):
    """Log loss of each task, seconds of training, peak memory of the process, number of runs.

    Seconds are the median, and those of the first seed, in which ours compile for all.
    """
    columns = [f"logloss_{task}" for task in folder.frequent]
    rows = {}
    for name, runs in (folder.compared() | folder.marks()).items():
        is_trained = "seconds" in runs and runs["seconds"].notna().any()
        seconds = [runs["seconds"].median(), runs["seconds"].iloc[0]] if is_trained else []
        seconds = [f"{number:.0f}" for number in seconds] or ["", ""]
        memory = f"{runs['peak_mb'].max() / 1000:.1f}" if is_trained else ""
        n = str(len(runs)) if name[0] != "*" else ""
        rows[name] = [*cells(runs, columns), *seconds, memory, n]
    names = [*named(folder.frequent, prefix="log loss"), "seconds", "first run", "GB", "runs"]
    return names, rows


def pairs(folder):
    """Differences of means over seeds, with Welch's 95 % interval; bold where it leaves 0 out."""
    columns = [f"auc_{folder.target}", f"uauc_{folder.target}", "auc_mean", "uauc_mean"]
    rows = {}
    for one, other, a, b in compared_pairs(folder):
        texts = [difference(a[name], b[name]) for name in columns]
        rows |= {f"{one} − {other}": texts} if any(texts) else {}
    return [f"AUC {folder.target}", "uAUC", "mean AUC", "mean uAUC"], rows


def compared_pairs(folder):
    """[(model, other, runs, the other's runs)], the first of them ours."""
    runs = folder.compared()
    ours = {shown(name) for name in (*SINGLE, *MULTI_TASK)}
    for one, other in itertools.combinations(runs, 2):
        if one in ours:
            columns = runs[one].columns.union(runs[other].columns)
            yield one, other, *(runs[name].reindex(columns=columns) for name in (one, other))


def interval(a, b, paired=False):
    """The mean of a less that of b, numbers by seed, and half of its 95 % interval; nan for one.

    Welch's, of two samples: networks that differ share nothing but a seed's number. paired:
    Student's over the differences, where a seed gives both the same weights and order of rows.
    """
    a, b = a.dropna().astype(float), b.dropna().astype(float)
    if paired:
        seeds = a.index.intersection(b.index)
        a, b = a[seeds], b[seeds]
    if min(len(a), len(b)) < 2:
        return np.nan, np.nan
    test = ttest_rel(a, b) if paired else ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return (low + high) / 2, (high - low) / 2


def difference(a, b, paired=False):
    """`interval` as text, bold where it leaves 0 out, "" where a model lacks the score."""
    middle, half = interval(a, b, paired)
    if np.isnan(middle):
        return ""
    text = short(f"{middle:+.4f} ± {half:.4f}")
    return f"**{text}**" if abs(middle) > half else text


def focal(folder):
    """Focal loss with and without annealing, its scores as they are and as probabilities.

    The last rows are differences with 95 % intervals, those of the loss over equal seeds.
    """
    task = folder.target
    rows = {}
    runs = {}
    losses = {"cross-entropy": "--gamma 0", "focal, gamma .5": "", "focal, gamma 2": "--gamma 2"}
    for loss, flags in losses.items():
        for rate, cycles in {"constant rate": "--cycles=", "annealed": ""}.items():
            settings = f"{STRAIGHT} {flags} {cycles}"
            mapped = runs[loss, rate] = folder.runs("FocalLoss", settings)
            raw = folder.runs("FocalLoss", f"{settings} --raw-scores")
            texts = cells(mapped, [f"auc_{task}", f"uauc_{task}"])
            for score in ("logloss", "calibration"):
                texts += [*cells(raw, [f"{score}_{task}"]), *cells(mapped, [f"{score}_{task}"])]
            rows[f"{loss}, {rate}"] = texts
    pairs = {f"{loss}: gain of annealing": (loss, "annealed", loss) for loss in losses}
    pairs |= {f"gain of {loss}": (loss, "constant rate", "cross-entropy") for loss in losses}
    del pairs["gain of cross-entropy"]
    for name, (loss, rate, other) in pairs.items():
        pair = runs[loss, rate], runs[other, "constant rate"]
        same = rate != "annealed"  # weights and order of rows
        scores = [[part[f"{score}_{task}"] for part in pair] for score in ("auc", "uauc")]
        gains = [difference(*both, paired=same) for both in scores]
        rows[name] = gains + [""] * 4
    names = ["AUC", "uAUC", "log loss, raw", "mapped", "predicted / actual, raw", "mapped"]
    return names, rows


def usual_epochs(folder):
    """How many MMOE and PLE train by default where ids are many."""
    return 1 if folder.facts["rows"]["train"] > (LONG - 1) * 1024 else 2


def annealing(folder):
    """Each model with a constant rate and annealed, one cycle an epoch; gains with 95 % intervals.

    For data whose ids are many, so that two epochs are FocalLoss.py's default. One epoch alone of
    data so long that it is the default of MMOE and PLE.
    """
    rows = {}
    models = {"DeepFM": ("FocalLoss", "--gamma 0"), "DeepFM, focal loss": ("FocalLoss", "")}
    models |= {shown(script): (script, "") for script in MULTI_TASK}
    epochs = range(1, usual_epochs(folder) + 1)
    for n, (model, (script, flags)) in itertools.product(epochs, models.items()):
        flags = f"{STRAIGHT} {flags}"
        if script in MULTI_TASK or n == 1:  # two are the default of FocalLoss.py
            flags = f"{flags} --epochs {n}"
        constant = folder.runs(script, f"{flags} --cycles=" if script == "FocalLoss" else flags)
        if script == "FocalLoss":
            columns = [f"auc_{folder.target}", f"uauc_{folder.target}"]
            cosine = folder.runs(script, flags)
        else:
            columns = ["auc_mean", "uauc_mean"]
            cosine = folder.runs(script, f"{flags} --name {script}-annealed", way=annealed)
        gains = [difference(cosine[column], constant[column]) for column in columns]
        both = [cells(part, columns[:1])[0] for part in (constant, cosine)]
        rows[f"{model}, {n} epoch{'s' if n > 1 else ''}"] = [*both, *gains]
    return ["AUC, constant rate", "annealed", "gain", "gain of uAUC"], rows


def calibration(folder):
    """Predicted over actual positives of each task, below what drift alone makes of them.

    The first two rows are the training days' rate and that of the last of them over the rate of the
    validation day: what a model would predict that knows them and nothing else.
    """
    rates = folder.facts["rates"]
    rows = {
        f"*rate of {name} / of this day*": [
            short(f"{rates[task][key] / rates[task]['valid']:.3f}") for task in folder.frequent
        ]
        for name, key in {"all training days": "train", "the last of them": "last"}.items()
    }
    models = {}
    for script in MULTI_TASK:
        models[shown(script)] = folder.runs(script)
        flags = f"--name {script}-uncalibrated"
        models[f"{shown(script)}, intercepts of 0"] = folder.runs(script, flags, way=uncalibrated)
    models |= folder.averaged() | folder.peers() | folder.marks()
    for model, runs in models.items():
        texts = cells(runs, [f"calibration_{task}" for task in folder.frequent])
        rows |= {model: texts} if all(texts) else {}
    return list(folder.frequent), rows


def within_user(folder):
    """Losses within users beside cross-entropy, one epoch each; gains with 95 % intervals.

    Those of a loss are over cross-entropy in the same order of rows, seed by seed.
    Rows of a user's day stay together on the stand-in; elsewhere those of a user, who has a row or
    two a day on KuaiRand.
    """
    unit = "day" if folder.facts["synthetic"] else "user"
    rows = {}
    for script in ("mmoe", "deepfm"):
        mean = "mean" if script in MULTI_TASK else folder.target
        columns = [f"auc_{mean}", f"uauc_{mean}"]
        more = [f"{score}_{folder.target}" for score in ("logloss", "calibration")]
        usual = folder.runs(script, f"{STRAIGHT} --epochs 1")
        every = {"cross-entropy": usual}
        for name, way in WITHIN.items():
            flags = f"{STRAIGHT} --epochs 1 --name {script}-{way}-{unit}"
            run = partial(within.run, f"{way}-{unit}")
            every[name] = folder.runs(script, flags, len(usual), way=run)
        together = every[next(iter(WITHIN))]  # in the order of rows that the losses have
        for name, runs in every.items():
            texts = [*cells(runs, [*columns, *more]), f"{runs['seconds'].median():.0f}"]
            base = usual if runs is together else together
            gains = [difference(runs[c], base[c], paired=base is together) for c in columns]
            rows[f"{shown(script)}, {name}"] = texts + (gains if runs is not usual else [""] * 2)
    columns = ["AUC", "uAUC", "log loss", "predicted / actual", "seconds"]
    return [*columns, "gain of AUC", "gain of uAUC"], rows


def tasks(folder):
    """The same network with all tasks and with each alone; differences with 95 % intervals."""
    rows = {}
    for score, text in {"auc": "AUC", "uauc": "uAUC"}.items():
        for script in MULTI_TASK:
            columns = [f"{score}_{task}" for task in folder.frequent]
            together = folder.runs(script)
            alone = [folder.runs(script, f"--tasks {task}") for task in folder.frequent]
            both = [(together[c], runs[c]) for runs, c in zip(alone, columns, strict=True)]
            name = f"{text}, {shown(script)}"
            rows[f"{name}, all tasks"] = cells(together, columns)
            rows[f"{name}, each alone"] = [cell(runs) for _, runs in both]
            rows[f"{name}, difference"] = [difference(*pair) for pair in both]
    return list(folder.frequent), rows


def features(folder):
    """MMOE without each group of features and with each that is off; gain ± standard error."""
    columns = ["auc_mean", "uauc_mean"]
    ways = ways_of(folder.facts["features"], folder.facts["every_feature"])
    scores = {
        way: folder.runs("mmoe", f"--features {','.join(names)}", 3)[columns]
        for way, names in ways.items()
    }
    default = scores.pop("default")
    gains = {way: cells(runs - default, columns, "+") for way, runs in scores.items()}
    return ["mean AUC", "mean uAUC"], {"default": cells(default, columns), **gains}


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
    """AUC after each epoch, with new embeddings in each, with the same, without any; two seeds."""
    embedded = [*GROUPS["ids"], *GROUPS["lists"], *GROUPS["device"]]
    others = ",".join(name for name in folder.facts["features"] if name not in embedded)
    ways = {"new embeddings each epoch": "", "the same embeddings": "--keep-embeddings"}
    ways = [(script, *way) for script in (*SINGLE, *MULTI_TASK) for way in ways.items()]
    ways.append(("mmoe", "without ids and lists", f"--features {others} --keep-embeddings"))
    rows = {}
    for script, way, flags in ways:
        tasks = folder.frequent if script in MULTI_TASK else [folder.target]
        flags += " --epochs 4 --cycles 1" if script == "FocalLoss" else " --epochs 3"
        logs = folder.runs(script, f"{STRAIGHT} {flags}", 2)["auc_by_epoch"].map(json.loads)
        curves = pd.DataFrame([pd.DataFrame(log)[tasks].mean(axis=1) for log in logs])
        rows[f"{shown(script)}, {way}"] = cells(curves, range(4))
    return ["epoch 1", "2", "3", "4"], rows


def one_epoch(folder):
    """MMOE and PLE with one epoch, over the models that learn all tasks; with 95 % intervals."""
    others = {n: runs for n, runs in folder.peers().items() if runs["auc_mean"].count() > 1}
    rows = {}
    for script in MULTI_TASK:
        runs = folder.runs(script, "--epochs 1")
        for other, found in others.items():
            gains = [
                difference(runs[column], found[column]) for column in ("auc_mean", "uauc_mean")
            ]
            rows[f"{shown(script)}, 1 epoch − {other}"] = gains
    return ["mean AUC", "mean uAUC"], rows


def second(folder):
    """What a second epoch gains MMOE and PLE over a single one, with 95 % intervals."""
    rows = {}
    for script in MULTI_TASK:
        one, two = (folder.runs(script, f"--epochs {n}") for n in (1, 2))
        rows[shown(script)] = [difference(two[c], one[c]) for c in ("auc_mean", "uauc_mean")]
    return [f"day {folder.facts['valid_day']}: mean AUC", "mean uAUC"], rows


def pieces(folder):
    """What linear terms in pieces gain over straight ones, with 95 % intervals."""
    rows = {}
    for script in (*SINGLE, *MULTI_TASK):
        flags = "--epochs 2" if script in MULTI_TASK and usual_epochs(folder) == 2 else ""
        straight, bent = (folder.runs(script, f"{flags} {more}") for more in (STRAIGHT, ""))
        task = "mean" if script in MULTI_TASK else folder.target
        columns = [f"auc_{task}", f"uauc_{task}"]
        gains = [difference(bent[column], straight[column]) for column in columns]
        rows[shown(script)] = [*cells(straight, columns[:1]), *gains]
    day = folder.facts["valid_day"]
    return [f"day {day}: AUC, straight", "gain of AUC", "gain of uAUC"], rows


def lengths(folder):
    """AUC of each task by default and with other lengths and settings; three seeds."""
    rows = {}
    straight = {name: f"{STRAIGHT} {flags}" for name, flags in LENGTHS.items()}
    for name, flags in {"default": "", **straight}.items():
        texts = []
        for script in ("mmoe", "ple", "deepfm"):
            more = " --target all" if script in SINGLE else ""
            runs = folder.runs(script, flags + more, 3)
            texts.append(", ".join(cells(runs, [f"auc_{task}" for task in folder.tasks])))
        rows[name] = texts
    return named(["MMOE", "PLE", "DeepFM"], prefix=f"AUC {', '.join(folder.tasks)}:"), rows


def of_2021(folder):
    """AUC of the target with the settings that this project began with, and with the defaults."""
    column = [f"auc_{folder.target}"]
    rows = {}
    for script, flags in OWN_2021.items():
        runs = [folder.runs(script, f"{flags} {SHARED_2021}"), folder.runs(script)]
        rows[shown(script)] = [cells(part, column)[0] for part in runs]
    return ["AUC, settings of 2021", "defaults"], rows


TABLES = {f.__name__: f for f in (results, models, cost, pairs, focal, tasks, features, epochs)}
TABLES |= {
    f.__name__: f
    for f in (lengths, of_2021, annealing, calibration, one_epoch, pieces, second, within_user)
}


def table(name, places):
    """A table of these folders, side by side, as Markdown."""
    folders = [Folder(place) for place in places]
    return markdown(*beside([(folder.title, *TABLES[name](folder)) for folder in folders]))


def main(argv=None):
    """Print the table that the command names, or keep a folder as a record."""
    lines = [f"{name:12}{made.__doc__.splitlines()[0]}" for name, made in TABLES.items()]
    parser = Parser("\n".join([__doc__, *lines]))
    parser.add_argument("study", choices=[*TABLES, "keep"])
    parser.add_argument("folder", nargs="+", help="folders or records; for keep one, and its name")
    args = parser.parse_args(argv)
    if args.study != "keep":
        print(table(args.study, args.folder))
    elif len(args.folder) == 2:
        Folder(args.folder[0]).keep(args.folder[1])
    else:
        raise InputError("keep takes a folder and the name of its record: give both.")


if __name__ == "__main__":
    with user_errors():
        main()
