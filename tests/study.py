"""What the README says of the models, made again: run by hand. One command a table, printed as Markdown:

    python tests/study.py search SOURCE [SOURCE ..]  an equal budget of settings a model, on the day before the reported one; tests/search.csv
    python tests/study.py models USER_DATA           the four scripts, five seeds, beside what benchmark.py peers measured
    python tests/study.py pairs USER_DATA            which of their differences are real: paired over seeds, 95 % intervals
    python tests/study.py focal USER_DATA            focal loss and annealing apart: the 2 x 2, and the scores mapped to probabilities
    python tests/study.py tasks USER_DATA            each task alone against all tasks together
    python tests/study.py features USER_DATA         what each group of features adds
    python tests/study.py epochs USER_DATA           AUC by epoch, with new embeddings in each epoch and without
    python tests/study.py first USER_DATA            the settings that this project started from in 2021

USER_DATA is a folder that get_data.py wrote; SOURCE, one of CSVs, is encoded in user_data/search. Every run is one of a script, as a
user would make it, and stays in results.csv beside the pickles: a run that is there is not made again, so that a study that was stopped
goes on. After a model has changed, begin with a new folder. Several folders may be given.
"""
import argparse
import csv
import functools
import importlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from common import results  # noqa: E402
from common.command import hyperparameters, parse  # noqa: E402
from common.pickles import known, load, read, write_all  # noqa: E402
from common.reading import Source, read_columns  # noqa: E402
from common.scoring import weighted, yardsticks, score_tasks  # noqa: E402
from get_data import cooccurrence  # noqa: E402

MULTI_TASK, SINGLE = ("mmoe", "ple"), ("deepfm", "FocalLoss")
FEW = 100  # validation positives below which a task's AUC says nothing: its scores are printed and not averaged
DEFAULT_MIN_COUNT = 5  # get_data.py's
BUDGET = 8  # settings a model that are searched: the defaults, another number of epochs, and as many drawn as are left
MANY = 100_000  # validation rows from which one seed is enough to search, and uAUC steady enough to rank by: on KuaiRand it moves by .01 with the seed
SPACE = {  # what is drawn from, each value as likely
    "embedding_dim": (8, 16, 32), "learning_rate": (0.0005, 0.001, 0.002), "batch_size": (512, 1024, 2048), "embedding_l2": (0.0, 0.0001, 0.001),
    "dropout": (0.0, 0.1, 0.3), "min_count": (2, 5, 20),
}
OWN_SPACE = {
    "deepfm": {"hidden": ("64,64", "128,64", "256,128")}, "FocalLoss": {"hidden": ("64,64", "128,64", "256,128"), "gamma": (0.5, 1.0, 2.0)},
    "mmoe": {"experts": (4, 8, 12), "expert_dim": (16, 32, 64), "tower": ("", "32")},
    "ple": {"own_experts": ("1", "2", "3"), "shared_experts": (1, 2, 4), "levels": (1, 2), "expert_dim": (16, 32, 64)},
}
FIRST = "--features userid,feedid,authorid,bgm_song_id,bgm_singer_id,manual_tag_list,manual_keyword_list,videoplayseconds --learning-rate 0.01 --batch-size 10240 --dropout 0.1 --keep-embeddings"
FIRST_OF = {
    "deepfm": "--hidden 64,64 --embedding-l2 0 --epochs 4", "mmoe": "--epochs 4", "ple": "--epochs 4",
    "FocalLoss": "--hidden 64,64 --embedding-l2 0 --epochs 5 --cycles 1,2,2 --gamma 2 --alpha 0.9 --raw-scores",
}
GROUPS = {
    "ids": ("userid", "feedid", "authorid", "bgm_song_id", "bgm_singer_id"), "lists": ("manual_tag_list", "manual_keyword_list"),
    "history": ("user_history", "feed_history", "author_history"), "watch times": ("user_watch_time", "feed_watch_time", "author_watch_time"),
    "tastes": ("user_taste",), "co-occurrence": ("user_cooccurrence", "feed_cooccurrence"), "device": ("device",),
}
LESS = {"views": "user_taste_without_views", "watch_time": "user_taste_without_watch_times"}  # user_taste without one of its columns
ADDED = {"machine lists": ("machine_tag_list", "machine_keyword_list"), "feed embedding": ("feed_embedding",), "video length": ("videoplayseconds",),
         "co-occurrence": ("user_cooccurrence", "feed_cooccurrence")}


class Folder:
    """A folder of pickles and the runs on it."""

    def __init__(self, path):
        data = load(path)
        self.path, self.meta, self.fingerprint = Path(path), data.meta, data.fingerprint
        self.tasks, self.title = list(data.meta["tasks"]), data.meta["name"] + " (SYNTHETIC)" * data.meta["synthetic"]
        self.told = [task for task in self.tasks if data.valid[task].sum() >= FEW]  # tasks with enough positives
        self.n_valid = len(data.valid["day"])
        groups = data.valid.get(data.meta["group"])
        self.marks = {who: score_tasks(data.valid, logits, groups) for who, logits in yardsticks(data, self.tasks).items()}

    def runs(self, script, flags="", seeds=5):
        """{seed: row of results.csv} of the seeds 0, 1, .. of a script with these flags; those that are missing are run."""
        settings = parse(importlib.import_module(script).Settings, None, flags.split())
        settings.features = known(settings.features, self.meta)
        key = json.dumps(hyperparameters(settings), sort_keys=True)
        alone = self.tasks if settings.target == "all" else [settings.target]
        tasks = alone if script in SINGLE else settings.tasks.split(",") if settings.tasks else self.tasks

        def found():
            rows = results.read(self.path, self.fingerprint)
            return {int(row["seed"]): row for row in rows if (row["model"], row["settings"], row["tasks"]) == (script, key, ",".join(tasks))}

        missing = sorted(set(range(seeds)) - set(found()))
        if missing:  # the last ones, as runs take seeds in order
            which = ["--seed", missing[0], "--runs", seeds - missing[0]]
            command = [sys.executable, ROOT / f"{script}.py", "--user-data", self.path, *which, "--quiet", *flags.split()]
            if subprocess.run([*map(str, command)], stdout=subprocess.DEVNULL).returncode:
                raise SystemExit(f"{script}.py {flags} failed.")
        return {seed: row for seed, row in sorted(found().items()) if seed < seeds}

    def peers(self):
        """{name: {seed: row}} of what benchmark.py peers ran here."""
        found = {}
        for row in results.read(self.path, self.fingerprint):
            if not (ROOT / f"{row['model']}.py").exists():
                found.setdefault(row["model"], {})[int(row["seed"])] = row
        return found


def number(row, column):
    return float(row.get(column) or "nan")


def mean_of_tasks(row, score, tasks):
    return float(np.mean([number(row, f"{score}_{task}") for task in tasks])) if tasks else np.nan


def cell(values):
    """Mean and standard deviation as in `.9360 ± .0002`; nothing where a task was not learned."""
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return short(f"{np.mean(values):.4f}{spread}")


def short(text):
    """Numbers without their zero: .9360 for 0.9360."""
    return re.sub(r"(?<!\d)0\.", ".", text)


def markdown(title, columns, rows):
    """Print {name: cells} as a Markdown table."""
    print(f"\n**{title}**\n", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", sep="\n")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    sys.stdout.flush()


# ---- the studies


@functools.cache
def encoded(source, min_count):
    """The Folder of the CSVs' pickles that validates the day before the last, ids of fewer than min_count rows sharing one; made once."""
    place = ROOT / "user_data" / "search" / f"{Path(source).resolve().name}-{min_count}"
    if not (place / "meta.pkl").exists():
        days = np.unique(read_columns(Source(source), "user_action.csv", ["date_"])["date_"])
        command = [sys.executable, ROOT / "get_data.py", source, "--out", place, "--valid-day", days[-2], "--min-count", min_count, "--quiet"]
        if subprocess.run([*map(str, command)]).returncode:
            raise SystemExit(f"get_data.py {source} failed.")
    return Folder(place)


def drawn(script):
    """[(flags, min_count)] of the settings that are searched, BUDGET of them: the defaults, two epochs for one or one for two, and what is drawn from SPACE and OWN_SPACE."""
    rng, epochs = np.random.default_rng(0), 3 - importlib.import_module(script).Settings.epochs
    found = [("", DEFAULT_MIN_COUNT), (f"--epochs {epochs}", DEFAULT_MIN_COUNT)]
    while len(found) < BUDGET:
        values = {name: some[rng.integers(len(some))] for name, some in (SPACE | OWN_SPACE[script]).items()}
        min_count = values.pop("min_count")
        flags = " ".join(f"--{name.replace('_', '-')} {value}" if value != "" else f"--{name.replace('_', '-')}=" for name, value in values.items())
        found += [(flags, min_count)] if (flags, min_count) not in found else []
    return found


def search(sources):
    """Print the settings of each model and rank them by the mean over sources of AUC and, from MANY validation rows on, uAUC; all go to tests/search.csv."""
    rows = []
    for script, (flags, min_count) in ((script, one) for script in (*SINGLE, *MULTI_TASK) for one in drawn(script)):
        row, ranked = {"model": script, "flags": flags, "min_count": min_count}, []
        for folder in (encoded(source, min_count) for source in sources):
            large = folder.n_valid >= MANY
            runs = folder.runs(script, flags, 1 if large else 2).values()
            tasks = folder.told if script in MULTI_TASK else folder.told[:1]
            for score in ("auc", "uauc"):
                mean = float(np.mean([mean_of_tasks(run, score, tasks) for run in runs]))
                row[f"{score}, {folder.title}"] = round(mean, 5)
                ranked += [mean] if score == "auc" or large else []
            row[f"rows/s, {folder.title}"] = round(float(np.mean([float(run["rows_per_second"]) for run in runs])))
        row["mean"] = round(float(np.mean(ranked)), 5)
        rows.append(row)
        print(*row.values(), sep="  ", flush=True)
    rows.sort(key=lambda row: (row["model"], -row["mean"]))
    with open(ROOT / "tests" / "search.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def compared(folder):
    """{name: {seed: row}} of the four scripts with default settings and of the peers."""
    return {script: folder.runs(script) for script in (*SINGLE, *MULTI_TASK)} | folder.peers()


def models(folder):
    found, total = compared(folder), folder.meta["tasks"]
    for score, what in results.SCORES.items():
        columns = [*folder.tasks, *(["mean"] if score == "auc" else ["weighted"] if score == "uauc" else [])]

        def cells(each):  # of {task: score} dicts, one a run
            more = {"auc": [np.mean([one[task] for task in folder.told]) for one in each], "uauc": [weighted(one, total) for one in each]}.get(score)
            return [cell([one[task] for one in each]) for task in folder.tasks] + ([cell(more)] if more else [])

        table = {name: cells([{task: number(row, f"{score}_{task}") for task in folder.tasks} for row in rows.values()]) for name, rows in found.items()}
        table |= {f"*{who}*": cells([{task: scores[task][score] for task in folder.tasks}]) for who, scores in folder.marks.items()}
        markdown(f"{folder.title}: {what}; mean: of {', '.join(folder.told)}", columns, table)
    cost = {name: [f"{np.mean([number(row, 'seconds') for row in rows.values()]):.0f}", f"{max(number(row, 'peak_mb') for row in rows.values()) / 1000:.1f}", str(len(rows))] for name, rows in found.items()}
    markdown(f"{folder.title}: training seconds, peak memory in GB, runs", ["seconds", "GB", "runs"], cost)


def pairs(folder):
    """Differences of each pair of models on the same seeds, with the 95 % interval of Student's t; bold where it leaves 0 out."""
    from scipy.stats import t

    found = compared(folder)
    wanted = {"read_comment AUC": lambda row: number(row, "auc_read_comment"), "read_comment uAUC": lambda row: number(row, "uauc_read_comment"),
              "mean AUC": lambda row: mean_of_tasks(row, "auc", folder.told), "weighted uAUC": lambda row: number(row, "weighted_uauc")}
    table = {}
    for one, other in itertools.combinations(found, 2):
        seeds, cells = sorted(set(found[one]) & set(found[other])), []
        for of in wanted.values():
            differences = np.array([of(found[one][seed]) - of(found[other][seed]) for seed in seeds])
            if len(seeds) < 2 or np.isnan(differences).any():
                cells.append("")
                continue
            half = t.ppf(0.975, len(seeds) - 1) * differences.std(ddof=1) / np.sqrt(len(seeds))
            text = short(f"{differences.mean():+.4f} ± {half:.4f}")
            cells.append(f"**{text}**" if abs(differences.mean()) > half else text)
        if any(cells):
            table[f"{one} - {other} (n = {len(seeds)})"] = cells
    markdown(f"{folder.title}: differences over equal seeds, 95 % intervals", list(wanted), table)


def focal(folder):
    table = {}
    for name, gamma in (("cross-entropy", "--gamma 0"), ("focal loss, gamma .5", ""), ("focal loss, gamma 2", "--gamma 2")):
        for how, cycles in (("constant rate", "--cycles="), ("annealed", "")):
            runs = folder.runs("FocalLoss", f"{gamma} {cycles}".strip()).values()
            raw = folder.runs("FocalLoss", f"{gamma} {cycles} --raw-scores".strip()).values() if "focal" in name else runs
            columns = [(runs, "auc"), (runs, "uauc"), (raw, "logloss"), (runs, "logloss"), (raw, "calibration"), (runs, "calibration")]
            table[f"{name}, {how}"] = [cell([number(row, f"{score}_read_comment") for row in rows]) for rows, score in columns]
    heads = ["AUC", "uAUC", "log loss, as it is", "log loss, mapped", "predicted / actual, as it is", "predicted / actual, mapped"]
    markdown(f"{folder.title}: read_comment, two epochs, DeepFM's network", heads, table)


def tasks(folder):
    table = {}
    for score, what in (("auc", "AUC"), ("uauc", "uAUC")):
        for script in MULTI_TASK:
            together = folder.runs(script)
            for name, rows_of in (("all tasks", lambda task: together), ("each task alone", lambda task: folder.runs(script, f"--tasks {task} --target {task}"))):
                table[f"{what}, {script}, {name}"] = [cell([number(row, f"{score}_{task}") for row in rows_of(task).values()]) for task in folder.tasks]
    markdown(f"{folder.title}: the same network with all tasks and with one", folder.tasks, table)


def features(folder):
    mine = known(importlib.import_module("mmoe").FEATURES, folder.meta).split(",")
    folder = with_more(folder)
    ways = {"default": mine}
    ways |= {f"without {group}": [name for name in mine if name not in names] for group, names in GROUPS.items() if set(names) & set(mine)}
    if "user_taste" in mine:
        ways["without views"] = [name.replace("user_taste", LESS["views"]) for name in mine]
        ways["without watch times"] = [name.replace("user_taste", LESS["watch_time"]) for name in ways["without watch times"]]
    ways |= {f"with {group}": [*mine, *names] for group, names in ADDED.items() if set(names) <= set(folder.meta["features"]) - set(mine)}
    ways |= {"ids and lists alone": [name for name in mine if name in GROUPS["ids"] + GROUPS["lists"] + GROUPS["device"]], "history alone": [name for name in mine if name in GROUPS["history"]]}
    found = {way: folder.runs("mmoe", f"--features {','.join(names)}", 3) for way, names in ways.items()}
    measures = {"mean AUC": "auc", "mean uAUC": "uauc"}
    table = {}
    for way, rows in found.items():
        table[way] = []
        for score in measures.values():
            values = {seed: mean_of_tasks(row, score, folder.told) for seed, row in rows.items()}
            base = {seed: mean_of_tasks(row, score, folder.told) for seed, row in found["default"].items()}
            gains = [values[seed] - base[seed] for seed in values]
            table[way] += [cell(values.values()), "" if way == "default" else short(f"{np.mean(gains):+.4f} ± {np.std(gains, ddof=1) / np.sqrt(len(gains)):.4f}")]
    markdown(f"{folder.title}, day {folder.meta['valid_day']}: MMOE, three seeds", ["mean AUC", "gain ± standard error", "mean uAUC", "gain ± standard error"], table)


def with_more(folder):
    """The Folder `more` within this one, whose tables also have co-occurrence where get_data.py leaves it out, and the tastes of LESS."""
    place = folder.path / "more"
    if not (place / "meta.pkl").exists() or read(place / "meta.pkl")["stamp"] != folder.meta["stamp"] + "-more":
        train, files = read(folder.path / "train.pkl"), {f"{name}.pkl": read(folder.path / f"{name}.pkl") for name in ("user", "feed", "meta")}
        both = "user", "feed"
        for name, vectors in zip(both, cooccurrence(train["user"], train["feed"], *(len(files[f"{name}.pkl"]["key"]) for name in both))):
            files[f"{name}.pkl"][f"{name}_cooccurrence"] = vectors
            files["meta.pkl"]["features"][f"{name}_cooccurrence"] = {"kind": "dense", "table": name, "daily": False}
        for column, part in LESS.items() if "user_taste" in files["user.pkl"] else ():
            taste = files["meta.pkl"]["features"]["user_taste"]
            kept = [i for i, name in enumerate(taste["columns"]) if name != column]
            files["user.pkl"][part] = files["user.pkl"]["user_taste"][:, :, kept]
            files["meta.pkl"]["features"][part] = {**taste, "columns": [taste["columns"][i] for i in kept]}
        for content in files.values():
            content["stamp"] += "-more"
        for name in ("train", "valid", "vocabularies"):
            files[f"{name}.pkl"] = {**read(folder.path / f"{name}.pkl"), "stamp": files["meta.pkl"]["stamp"]}
        write_all(place, files)
    return Folder(place)


def epochs(folder):
    table = {}
    for script, own in (("deepfm", 1), ("FocalLoss", 2), ("mmoe", 1), ("ple", 1)):
        shown = folder.told[:1] if script in SINGLE else folder.told
        longest = max(2 * own, 3)
        cycles = " --cycles 1" if script == "FocalLoss" else ""
        for how, flag in (("new embeddings each epoch", ""), ("the same embeddings", " --keep-embeddings")):
            curves = [json.loads(row["auc_by_epoch"]) for row in folder.runs(script, f"--epochs {longest}{cycles}{flag}", 2).values()]
            table[f"{script}, {how}"] = [cell([np.mean([curve[task][epoch] for task in shown]) for curve in curves]) if epoch < longest else "" for epoch in range(4)]
    markdown(f"{folder.title}: AUC after each epoch, two seeds; MMOE and PLE: mean of {', '.join(folder.told)}", [f"epoch {n}" for n in range(1, 5)], table)


def first(folder):
    table = {script: [cell([number(row, f"auc_{folder.tasks[0]}") for row in folder.runs(script, f"{FIRST} {flags}").values()])] for script, flags in FIRST_OF.items()}
    markdown(f"{folder.title}: AUC of {folder.tasks[0]} with the settings of 2021", ["AUC"], table)


def main():
    studies = {one.__name__: one for one in (models, pairs, focal, tasks, features, epochs, first)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["search", *studies])
    parser.add_argument("folder", nargs="+", help="a folder of pickles; of CSVs for the search")
    given = parser.parse_args()
    if given.study == "search":
        return search(given.folder)
    for path in given.folder:
        studies[given.study](Folder(path))


if __name__ == "__main__":
    main()
