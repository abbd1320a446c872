"""Fill the tables of README.md and tests/README.md from the records, and draw two pictures.

python tests/by_hand/documents.py

A table of the documents stands below its comment, `<!-- table: NAME RECORD ... -->`; NAME is one of
study.py's or of those below. What the comment names is put in the table's place.
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.command import Parser, user_errors

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import study
from runs import RECORDS, Folder, beside, cell, cells, markdown, short, shown

matplotlib.use("agg")
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "tests" / "README.md"]
PICTURES = ROOT / ".readme"
EXPERTS = {"A": ["e1", "e2"], "shared": ["e6", "e7"], "B": ["e3", "e4", "e5"]}
PICTURED = ("stand-in-0.1", "kuairand-13")
PLACE = re.compile(r"(<!-- table: ([\w. -]+) -->\n\n)((?:\|.*\n)*)")


def filled(text):
    """A document's text with its tables made from the records."""

    def made(place):
        end = "" if text.startswith("\n", place.end()) else "\n"
        return place[1] + table(*place[2].split()) + end

    return PLACE.sub(made, text)


def table(name, *records):
    """A table as Markdown."""
    if name in study.TABLES:
        return study.table(name, records)
    others = (earlier, peers, regimes, search, speed, submissions, turned, users, versions)
    return markdown(*{f.__name__: f for f in others}[name](*records))


def turned(*records):
    """The README's table, a column a model; a cell has its three scores, a line each."""
    rows = {}
    for folder in map(Folder, records):
        scores, found = study.results(folder)
        cells = {name: "<br>".join(text for text in texts if text) for name, texts in found.items()}
        rows["<br>".join([folder.title, *scores])] = cells
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return names, {title: [row.get(name, "") for name in names] for title, row in rows.items()}


def search():
    """What search.py found: the best of eight settings of each script, the defaults, the worst."""
    found = pd.read_csv(RECORDS / "search.csv", keep_default_na=False)
    rows = {}
    for script, ways in found.groupby("model"):
        by_flags = ways.set_index("flags")["mean"]
        usual = ways[ways["min_count"] == 5].set_index("flags")["mean"]
        others = [usual[flags] for flags in usual.index if flags.startswith("--epochs")]
        scores = [by_flags.max(), usual[""], *others[:1], by_flags.min()]
        best = by_flags.idxmax() or "nothing"
        rows[shown(script)] = [*(short(f"{x:.4f}") for x in scores), f"`{best}`"]
    return ["best of eight", "defaults", "other epochs", "worst", "the best has"], rows


def peers():
    """What `peers.py search` found: each peer's best settings by data set, the defaults' score."""
    found = pd.read_csv(RECORDS / "peers.csv")
    rows = {}
    for (data, day, peer), ways in found.groupby(["data", "valid_day", "peer"], sort=True):
        best = ways.loc[ways["auc_mean"].idxmax()]
        usual = ways.loc[ways["settings"] == json.dumps({"columns": "ours"}), "auc_mean"].max()
        chosen = json.loads(best["settings"])
        words = [f"columns {chosen.pop('columns')}", *(f"{k} {v}" for k, v in chosen.items())]
        words.append(", ".join(f"{k} {v}" for k, v in json.loads(best["length"]).items()))
        scores = [ways["auc_mean"].max(), usual, ways["auc_mean"].min()]
        name = data.partition(",")[0] + "".join(data.partition(", regime ")[1:])
        name += ", *synthetic*" if data.startswith("stand-in") else ""
        row = f"{name}, day {day}: {shown(peer)}"
        texts = ["" if np.isnan(x) else short(f"{x:.4f}") for x in scores]  # defaults not tried
        rows[row] = [*texts, "; ".join(words), str(len(ways))]
    return ["best AUC", "defaults", "worst", "the best has", "settings tried"], rows


def speed(table, one, other):
    """What benchmark.py measured: of each case both ways, and how they compare.

    other: "-" for one way alone.
    """
    found = pd.read_csv(RECORDS / "speed.csv")
    found = found[found["table"] == table]
    quantities = list(dict.fromkeys(found["quantity"]))
    columns = []
    for quantity in quantities:
        ways = [one] if other == "-" else [one, other]
        columns += [f"{quantity}: {ways[0]}", *ways[1:]]
        columns += ["ratio"] if other != "-" and "AUC" not in quantity else []
    rows = {}
    for case, ways in found.groupby("case", sort=False):
        median = ways.set_index(["name", "quantity"])["median"]
        texts = []
        for quantity in quantities:
            pair = [median.get((name, quantity)) for name in (one, other) if name != "-"]
            texts += [short(f"{x:.4f}") if "AUC" in quantity else of_three_digits(x) for x in pair]
            if other != "-" and "AUC" not in quantity:
                texts.append("" if None in pair else f"{pair[0] / pair[1]:.2f}")
        name, _, size = case.partition(", ")
        rows[f"{shown(name)}, batch {size}" if size else shown(name)] = texts
    return columns, rows


def earlier(name):
    """NAME.csv, what earlier runs found whose rows were not kept."""
    found = pd.read_csv(RECORDS / f"{name}.csv", dtype=str, keep_default_na=False)
    return list(found)[1:], {row: texts for row, *texts in found.itertuples(index=False)}


def submissions():
    """The official scores of submissions.csv, the mean of both test files, and their gains."""
    found = pd.read_csv(RECORDS / "submissions.csv")
    found["score"] = (found["test_a"] + found["test_b"]) / 2
    rows = {}
    for data, trained in found[found["runs"] > 0].groupby("data"):
        title = f"{data.partition(',')[0]}, *synthetic*"
        single = trained[trained["runs"] == 1].pivot(index="seed", columns="days", values="score")
        several = trained[trained["runs"] > 1].set_index("days")
        for days, row in several.iterrows():
            texts = [cell(single[days]), short(f"{row['score']:.4f}")]
            rows[f"{title}: {days}"] = [*texts, f"{row['seconds']:.0f}", f"{row['GB']:.1f}"]
        old, new = several.index
        gains = single[new] - single[old]
        gain = study.difference(single[new], single[old]) or short(f"{gains.mean():+.4f}")
        of_mean = short(f"{several['score'][new] - several['score'][old]:+.4f}")
        rows[f"{title}: gain of the last day"] = [gain, of_mean, "", ""]
    n = found["runs"].max()
    return ["single run", f"mean of {n} runs", f"seconds of the {n}", "GB"], rows


def users():
    """What `peers.py users` found: differences in AUC, and 95 % of them over draws of the users."""
    found = pd.read_csv(RECORDS / "users.csv")
    rows = {}
    for (data, one, other), scores in found.groupby(["data", "one", "other"], sort=False):
        texts = {
            row.score: short(f"{row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f})")
            for row in scores.itertuples()
        }
        synthetic = ", *synthetic*" if data.startswith("stand-in") else ""
        rows[f"{data.partition(',')[0]}{synthetic}: {one} − {other}"] = texts
    names = list(dict.fromkeys(score for texts in rows.values() for score in texts))
    return names, {row: [texts.get(name, "") for name in names] for row, texts in rows.items()}


def regimes(*records):
    """What the regime `exposures` gains over `daily`, with 95 % intervals: records in pairs."""
    tables = []
    for daily, exposed in zip(map(Folder, records[::2]), map(Folder, records[1::2]), strict=True):
        names = [f"auc_{daily.target}", f"uauc_{daily.target}", "auc_mean", "uauc_mean"]
        usual = daily.compared()
        rows = {
            model: [study.difference(runs[name], usual[model][name]) for name in names]
            for model, runs in exposed.compared().items()
            if model in usual
        }
        heads = [f"AUC {daily.target}", "uAUC", "mean AUC", "mean uAUC"]
        tables.append((daily.title, heads, rows))
    return beside(tables)


def versions(*records):
    """AUC of the target and weighted uAUC of our scripts by the commits of records."""
    rows = {}
    for folder in map(Folder, records):
        every = folder.rows()
        every = every[every["changed"] == ""] if "changed" in every else every
        for (model, commit), runs in every.groupby(["model", "commit"], sort=False):
            runs = folder.by_seed(runs)
            columns = [f"auc_{folder.target}", "weighted_uauc"]
            rows[f"{shown(model)}, {commit}"] = [*cells(runs, columns), str(len(runs))]
    return ["AUC", "weighted uAUC", "runs"], dict(sorted(rows.items()))


def of_three_digits(number):
    """A number as text, all of its digits before the point and three at least; "" for None."""
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}".rstrip(".")


def forest(path):
    """Draw the differences of `pairs`: mean AUC, or of the target where a model has one task."""
    folders = [Folder(name) for name in PICTURED]
    figure, plots = plt.subplots(1, len(folders), figsize=(10, 5), sharey=True, squeeze=False)
    names = []
    for plot, folder in zip(plots[0], folders, strict=True):
        for one, other, a, b in study.compared_pairs(folder):
            is_mean = a["auc_mean"].notna().any() and b["auc_mean"].notna().any()
            column = "auc_mean" if is_mean else f"auc_{folder.target}"
            middle, half = study.interval(a[column], b[column])
            if np.isnan(middle):
                continue
            name = f"{one} − {other}"
            names += [name] if name not in names else []
            color = "gray" if abs(middle) <= half else "tab:green" if middle > 0 else "tab:red"
            plot.errorbar(
                middle, names.index(name), xerr=half, color=color, capsize=3,
                marker="o", markerfacecolor=color if is_mean else "white",
            )  # fmt: skip
        plot.axvline(0, color="black", linewidth=0.8)
        plot.set_title(folder.title.replace("*synthetic*", "SYNTHETIC"))
        plot.set_xlabel("difference in AUC, 95 % interval over seeds")
        plot.locator_params(axis="x", nbins=5)
        plot.grid(axis="x", alpha=0.3)
    plots[0][0].set_yticks(np.arange(len(names)), names)
    plots[0][0].invert_yaxis()
    words = (
        f"filled: mean over the tasks, open: {folders[0].target};   "
        "green: the first is better, red: the second, gray: 0 lies in the interval;   "
        "the scales of the panels differ"
    )
    figure.text(0.5, 0.015, words, fontsize=9, ha="center")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def extraction(path):
    """Draw PLE's experts, gates and towers for two tasks, with the experts of EXPERTS."""
    figure, axes = plt.subplots(figsize=(8, 3.4))
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white"}
    colors = {"A": "tab:blue", "shared": "tab:gray", "B": "tab:orange"}
    gates = {"A": 1.5, "B": 6.5}
    place = 0
    for group, names in EXPERTS.items():
        for name in names:
            own = box | {"edgecolor": colors[group]}
            axes.text(place, 1, name, ha="center", va="center", bbox=own)
            axes.plot([4, place], [0.1, 0.8], color="0.8", zorder=0)
            for task in gates if group == "shared" else [group]:
                axes.plot([place, gates[task]], [1.2, 1.95], color=colors[task], zorder=0)
            place += 1.3
    for task, where in gates.items():
        own = box | {"edgecolor": colors[task]}
        side = -0.9 if task == "A" else 8.7
        axes.plot([4, side, where], [-0.1, 0.6, 2.1], color="0.6", linestyle=":", zorder=0)
        axes.text(where, 2.1, f"gate of {task}: softmax", ha="center", va="center", bbox=own)
        axes.plot([where, where], [2.3, 2.8], color=colors[task], zorder=0)
        axes.text(where, 3, f"tower of {task}: logit", ha="center", va="center", bbox=own)
    axes.text(4, 0, "x: embeddings and dense values", ha="center", va="center", bbox=box)
    notes = {"A": (0.6, -0.15), "B": (7.3, -0.15), "shared": (4, -0.55)}
    for group, place in notes.items():
        words = f"experts of {group} alone"
        if group == "shared":
            words = "gray: shared experts; dotted: by what a gate weighs"
        axes.text(*place, words, ha="center", fontsize=9, color=colors[group])
    axes.set(xlim=(-1.1, 8.9), ylim=(-0.7, 3.4))
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv=None):
    """Write both documents and the pictures."""
    Parser(__doc__).parse_args(argv)
    for path in DOCUMENTS:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    forest(PICTURES / "forest.png")
    extraction(PICTURES / "extraction.png")


if __name__ == "__main__":
    with user_errors():
        main()
