"""Plots of the results as PNG: the comparison of all models, and the course of a training run.

Told apart by markers and line styles first, and by the colours of Okabe and Ito, so that they can be read in grey.
matplotlib is imported inside the functions, being slow, and used without pyplot, which would look for a screen.
"""
import textwrap

import numpy as np

from common.pickles import beside
from common.results import SCORES, ranked, there, values

INK, BLUE, RED, GREY = "#000000", "#0072B2", "#D55E00", "#666666"
COLOURS = (BLUE, RED, "#009E73", "#CC79A7", INK, "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
DPI = 150


def comparison(path, models, marks, data, tasks, current, target=None):
    """Write a PNG: a panel for each task (columns) and for AUC and uAUC (rows), a dot for each model, the best on top.

    models: {label: [scores of a run]}. marks: {name: scores}, drawn as vertical lines; one so far away that the models could
    no longer be told apart is written above the panel instead. current: the label of the run just made. target: the task
    whose mean AUC orders the models, the first if not given. Error bars are one sample standard deviation.
    """
    figure = _figure()
    keys = [key for key in ("auc", "uauc") if key == "auc" or there(models, marks, tasks, key)]
    order = ranked(models, {}, target or tasks[0])
    names = [textwrap.shorten(one, 84, placeholder=" …") for one in order]
    names = [textwrap.fill(one, 30) for one in names]
    lines = max(name.count("\n") + 1 for name in names)
    height = len(order) * (0.12 + 0.15 * lines) + 0.8
    width = max(2.3 * len(tasks) + 2.4, 5.6)
    figure.set_size_inches(width, len(keys) * height + 1.2)
    panels = figure.subplots(len(keys), len(tasks), sharey=True, squeeze=False)
    for key, row in zip(keys, panels):
        for task, axes in zip(tasks, row):
            _panel(axes, order, models, marks, task, key, current)
        row[0].set_yticks(range(len(order)), names, fontsize=8)
        row[0].set_ylim(len(order) - 0.4, -0.6)
    synthetic = " (SYNTHETIC)" if data.meta["synthetic"] else ""
    title = f"{data.meta['name']}{synthetic}, validation, day {data.meta['valid_day']}"
    figure.suptitle(textwrap.fill(title, int(width * 9)), fontsize=11)
    _legend(figure, models, marks, current, 5 if width > 7 else 2)
    _write(figure, path)


def _panel(axes, order, models, marks, task, key, current):
    spans, dots = [], 0
    for y, one in enumerate(order):
        found = values(models[one], task, key)
        if not found or not np.isfinite(found).all():
            continue
        mean, spread = np.mean(found), np.std(found, ddof=1) if len(found) > 1 else 0.0
        axes.errorbar(mean, y, xerr=spread or None, **_dot(one == current))
        spans, dots = [*spans, mean - spread, mean + spread], dots + 1
    axes.grid(axis="y", color="0.88", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"{task} {SCORES[key]}", fontsize=9, pad=6 + 9 * len(marks))
    if not spans:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no run", transform=axes.transAxes, ha="center", va="center", fontsize=8, color=GREY)
        return
    span = max(max(spans) - min(spans), 0.004)
    low, high = min(spans) - 1.2 * span, max(spans) + 1.2 * span
    inside, notes = {}, []
    for who, scores in marks.items():
        value = scores.get(task, {}).get(key, np.nan)
        if low <= value <= high or dots == 1 and np.isfinite(value):
            inside[who] = value
        elif np.isfinite(value):
            notes.append((value > high, f"{who} {value:.4f} →" if value > high else f"← {who} {value:.4f}"))
    for who, value in inside.items():
        axes.axvline(value, **_line(list(marks).index(who)))
    for i, (right, note) in enumerate(notes):
        axes.annotate(
            note, (float(right), 1), (0, 4 + 9 * (len(notes) - 1 - i)), xycoords="axes fraction", textcoords="offset points",
            ha="right" if right else "left", fontsize=7.5, color=GREY,
        )
    shown = [*spans, *inside.values()]
    margin = 0.12 * max(max(shown) - min(shown), 0.004)
    axes.set_xlim(min(shown) - margin, max(shown) + margin)
    axes.locator_params(axis="x", nbins=3)
    axes.xaxis.set_major_formatter("{x:.4f}")


def _dot(is_current):
    if is_current:
        style = {"fmt": "D", "markersize": 7, "color": RED}
    else:
        style = {"fmt": "o", "markersize": 6, "color": BLUE, "mfc": "white"}
    return {**style, "capsize": 3, "elinewidth": 1.2, "zorder": 3}


def _line(number):
    return {"color": INK if number % 2 else GREY, "linestyle": DASHES[1 + number % (len(DASHES) - 1)], "linewidth": 1.3}


def _legend(figure, models, marks, current, columns):
    from matplotlib.lines import Line2D

    entries = []
    kinds = (current in models, True, "the model just run"), (set(models) - {current}, False, "other models")
    for wanted, is_current, text in kinds:
        if wanted:
            dot = _dot(is_current)
            shape = {"marker": dot["fmt"], "color": dot["color"], "mfc": dot.get("mfc"), "markersize": dot["markersize"]}
            entries.append(Line2D([], [], linestyle="", label=text, **shape))
    if any(len(runs) > 1 for runs in models.values()):
        entries.append(Line2D([], [], marker="|", color=BLUE, linewidth=1.2, markersize=7, label="standard deviation over runs"))
    entries += [Line2D([], [], **_line(i), label=who) for i, who in enumerate(marks)]
    figure.legend(handles=entries, loc="outside lower center", ncols=min(columns, len(entries)), fontsize=8, frameon=False)


def curves(path, title, histories, gates):
    """Write a PNG of the runs of one model: training loss, validation AUC of each task, and a heat map: a row a gate, a column an expert.

    histories: a run each, {"loss": [(epochs done, mean loss since the last point)], "scores": [(epoch, {task: scores})]}.
    gates: {gate: {expert: mean weight}}, or {}; an expert that a gate does not see is left blank.
    """
    experts = _merged([list(weights) for weights in gates.values()])
    widths = [3.6, 3.6] + ([0.42 * max(len(experts), 4) + 1.6] if gates else [])
    figure = _figure()
    figure.set_size_inches(sum(widths) + 0.6, max(3.9, 0.3 * len(gates) + 2.2))
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    figure.suptitle(textwrap.fill(title, int(sum(widths) * 9)), fontsize=11)
    _losses(panels[0], histories)
    _aucs(panels[1], histories)
    for axes in panels[:2]:
        axes.set_xlabel("epochs", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="0.88", linewidth=0.6)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    if gates:
        _heat_map(panels[2], gates, experts)
    _write(figure, path)


def _losses(axes, histories):
    for history in histories:
        if history["loss"]:
            marker = "." if len(history["loss"]) == 1 else ""
            axes.plot(*zip(*history["loss"]), color=BLUE, linewidth=0.8, alpha=0.8, marker=marker)
    axes.set_xlim(left=0)
    axes.set_title("training loss" + (f", {len(histories)} runs" if len(histories) > 1 else ""), fontsize=9)


def _aucs(axes, histories):
    found = {}  # {task: {epoch: [AUC of a run]}}
    for history in histories:
        for epoch, scores in history["scores"]:
            for task, of_task in scores.items():
                found.setdefault(task, {}).setdefault(epoch, []).append(of_task["auc"])
    for i, (task, at) in enumerate(found.items()):
        axes.plot(
            list(at), [np.mean(one) for one in at.values()], color=COLOURS[i % 7], linestyle=DASHES[i % 7], marker=MARKERS[i % 7],
            markersize=5, linewidth=1.3, label=task, clip_on=False,
        )
    last = max((epoch for at in found.values() for epoch in at), default=1)
    axes.set_xlim(0, last * 1.05)
    axes.set_title("validation AUC" + (f", mean of {len(histories)} runs" if len(histories) > 1 else ""), fontsize=9)
    if found:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False, handlelength=3.2)


def _heat_map(axes, gates, experts):
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    top = max((weight for weights in gates.values() for weight in weights.values() if np.isfinite(weight)), default=1.0)
    for y, weights in enumerate(gates.values()):
        for expert, weight in weights.items():
            share = weight / top if np.isfinite(weight) and top > 0 else 0.0
            x = experts.index(expert)
            shade = colormaps["Greys"](0.6 * share)  # no darker, so that black can be read on it
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=shade, edgecolor="0.6", linewidth=0.6))
            axes.text(x, y, f"{weight:.2f}", ha="center", va="center", fontsize=7.5, color=INK)
    axes.set_xlim(-0.5, len(experts) - 0.5)
    axes.set_ylim(len(gates) - 0.5, -0.5)
    axes.set_xticks(range(len(experts)), experts, rotation=90, fontsize=8)
    axes.set_yticks(range(len(gates)), list(gates), fontsize=8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title("mean gate weights", fontsize=9)


def _merged(orders):
    """One order that keeps each of `orders`: a new name goes in front of the one that follows it, so that shared ones stay last."""
    merged = []
    for order in orders:
        at = len(merged)
        for name in reversed(order):
            if name in merged:
                at = merged.index(name)
            else:
                merged.insert(at, name)
    return merged


def _figure():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure, path):
    with beside(path) as place:
        figure.savefig(place, format="png", dpi=DPI)
