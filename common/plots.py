"""Pictures of the results as PNG: the comparison of all models, and the course of a training run.

Markers and line styles tell things apart first, then the colours of Okabe and Ito, so that the
pictures can be read in grey. pyplot is not used: it would look for a screen.
"""

import textwrap
import threading
import warnings
from contextlib import contextmanager

from common.pickles import beside
from common.results import SCORES, ranked, shortened, values

import numpy as np

BLUE = "#0072B2"
RED = "#D55E00"
GREY = "#666666"
COLOURS = (BLUE, RED, "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS", "SimHei")
STYLE = threading.RLock()  # Matplotlib's settings are of the whole process
FEWEST = 30  # positives of a task below which its scores mean nothing


@contextmanager
def own_style():
    """Matplotlib's defaults, whatever a matplotlibrc says, and Chinese letters if a font has them.

    A $ is a dollar. What a notebook has set comes back afterwards.
    """
    from matplotlib import font_manager, rc_context, rcParamsDefault

    fonts = {font.name for font in font_manager.fontManager.ttflist}
    style = {name: value for name, value in rcParamsDefault.items() if name != "backend"}
    style["font.family"] = ["DejaVu Sans", *(name for name in FONTS if name in fonts)]
    with STYLE, rc_context(style | {"text.parse_math": False}):
        yield


def new_figure(width, height, title):
    """A figure that needs no screen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # inches
    figure.suptitle(textwrap.fill(title, int(width * 9)), fontsize=11)
    return figure


def save(figure, path):
    with beside(path) as place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box
        figure.savefig(place, format="png", dpi=150)


@own_style()
def comparison(path, runs, marks, data, current, target):
    """Write a PNG: a row of panels for AUC and one for uAUC, a panel a task, a dot a model.

    runs: of `common.results.load`. marks: {yardstick: {task: scores}}, vertical lines; one so far
    away that models could no longer be told apart is named above the panel instead. current: the
    model just run. target: the task that orders the models. Bars: one sample standard deviation.
    """
    tasks = list(data.tasks)
    runs = runs[runs["task"].isin(tasks)]
    scores = [score for score in ("auc", "uauc") if runs["score"].eq(score).any()]
    order = ranked(runs, target)
    short, notes = shortened(order, 60)
    names = [textwrap.fill(short[name].replace(",", ", "), 30) for name in order]
    width = max(2.3 * len(tasks) + 2.4, 5.6)
    notes = [textwrap.fill(note, int(width * 17), subsequent_indent="      ") for note in notes]
    n_lines = max(name.count("\n") + 1 for name in names)
    height = len(scores) * (len(order) * (0.12 + 0.15 * n_lines) + 0.8) + 1.2
    height += 0.12 * sum(1 + note.count("\n") for note in notes)
    synthetic = " (SYNTHETIC)" if data.meta["synthetic"] else ""
    title = f"{data.meta['name']}{synthetic}, validation, day {data.meta['valid_day']}"
    figure = new_figure(width, height, title)
    panels = figure.subplots(len(scores), len(tasks), sharey=True, squeeze=False)
    drawn = {}  # an artist of each kind, for the legend
    for score, row in zip(scores, panels, strict=True):
        for task, axes in zip(tasks, row, strict=True):
            cells = {name: values(runs, name, task, score) for name in order}
            points = {name: marks[name][task][score] for name in marks if task in marks[name]}
            drawn |= draw_panel(axes, cells, points, current)
        pad = 6 + 9 * max(len(axes.texts) for axes in row)  # of yardsticks named above the panels
        for task, axes in zip(tasks, row, strict=True):
            heading = f"{task} {SCORES[score]}"
            if data.valid[task].sum() < FEWEST:
                heading += f"\nfewer than {FEWEST} positives"
                axes.set_facecolor("0.92")
            axes.set_title(heading, fontsize=9, pad=pad)
        row[0].set_yticks(range(len(order)), names, fontsize=8)
        row[0].set_ylim(len(order) - 0.4, -0.6)
    draw_legend(figure, drawn, ["bars: the standard deviation over runs", *notes])
    save(figure, path)


def draw_panel(axes, cells, points, current):
    """Draw {model: scores of its runs} and {mark: score}; gives an artist of each kind drawn."""
    spans = []
    drawn = {}
    for place, (name, cell) in enumerate(cells.items()):
        if cell and np.isfinite(cell).all():
            deviation = np.std(cell, ddof=1) if len(cell) > 1 else 0.0
            is_current = name.partition(" mean of ")[0] == current
            kind = "the model just run" if is_current else "other models"
            bar = deviation or None
            drawn[kind] = axes.errorbar(np.mean(cell), place, xerr=bar, **dot(is_current))
            spans += [np.mean(cell) - deviation, np.mean(cell) + deviation]
    axes.grid(axis="y", color="0.88", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if not spans:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "no run", transform=axes.transAxes, ha="center", fontsize=8)
        return drawn
    reach = 1.2 * max(max(spans) - min(spans), 0.004)
    low, high = min(spans) - reach, max(spans) + reach
    near = {name: point for name, point in points.items() if low <= point <= high}
    for number, (name, point) in enumerate(points.items()):  # of equal style in all panels
        if name in near:
            style = {"color": GREY, "linestyle": DASHES[1 + number % 6], "linewidth": 1.3}
            drawn[name] = axes.axvline(point, **style)
        elif np.isfinite(point):
            right = point > max(spans)
            note = f"{name} {point:.4f} →" if right else f"← {name} {point:.4f}"
            where = {"ha": "right" if right else "left", "fontsize": 7.5, "color": GREY}
            offset = (0, 4 + 9 * len(axes.texts))
            axes.annotate(
                note, (right, 1), offset, "axes fraction", textcoords="offset points", **where
            )
    shown = [*spans, *near.values()]
    margin = 0.12 * max(max(shown) - min(shown), 0.004)
    axes.set_xlim(min(shown) - margin, max(shown) + margin)
    axes.locator_params(axis="x", nbins=3)
    axes.xaxis.set_major_formatter("{x:.4f}")
    return drawn


def dot(is_current):
    """The style of a model's dot."""
    style = {"capsize": 3, "elinewidth": 1.2, "zorder": 3}
    if is_current:
        return style | {"fmt": "D", "markersize": 7, "color": RED}
    return style | {"fmt": "o", "markersize": 6, "color": BLUE, "mfc": "white"}


def draw_legend(figure, drawn, notes):
    """Explain below all panels what is drawn in them, {text: artist}, and there give the notes."""
    place = {"loc": "outside lower center", "ncols": min(len(drawn), 3) or 1}
    texts = {"title": "\n".join(notes), "title_fontsize": 7, "fontsize": 8, "frameon": False}
    figure.legend(list(drawn.values()), list(drawn), **place, **texts)


@own_style()
def curves(path, title, logs, gates):
    """Write a PNG of a run: training loss, validation AUC by epoch, and what each gate weighs.

    logs: of each network {"losses": [(epochs done, mean loss)], "scores": [(epoch, {task:
    scores})]}. gates: {gate: {expert: mean weight}}, or {}. A single epoch has no curve of AUC.
    """
    n_epochs = max((epoch for log in logs for epoch, row in log["scores"] if row), default=0)
    experts = list(dict.fromkeys(name for weights in gates.values() for name in weights))
    experts.sort(key=lambda name: name.startswith("shared"))
    widths = [3.6] + ([3.6] if n_epochs > 1 else [])
    if gates:
        widths.append(0.42 * max(len(experts), 4) + 1.6)
    figure = new_figure(max(sum(widths) + 0.6, 5), max(3.9, 0.3 * len(gates) + 2.2), title)
    panels = list(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0])
    if gates:
        draw_gates(panels.pop(), gates, experts)
    for log in logs:
        losses = even(log["losses"])
        marker = "." if len(losses) < 2 else ""
        panels[0].plot(*np.transpose(losses), color=BLUE, linewidth=0.8, marker=marker)
    panels[0].set_xlim(left=0)
    panels[0].set_title("training loss", fontsize=9)
    if n_epochs > 1:
        draw_aucs(panels[1], logs)
    for axes in panels:
        axes.set_xlabel("epochs", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="0.88", linewidth=0.6)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def even(losses):
    """The losses [(epochs done, mean since the last)] without means of few steps.

    Few are less than half of the most, as at the end of an epoch.
    """
    steps = np.diff([end for end, _ in losses], prepend=0)
    return [mean for mean, n in zip(losses, steps, strict=True) if n >= steps.max() / 2]


def draw_aucs(axes, logs):
    """Draw each task's validation AUC by epoch, over a range of at least .01."""
    aucs = {}  # {task: [AUC by epoch]}
    for log in logs:
        for _, scores in log["scores"]:
            for task, row in scores.items():
                aucs.setdefault(task, []).append(row["auc"])
    for i, (task, curve) in enumerate(aucs.items()):
        style = {"color": COLOURS[i % 7], "linestyle": DASHES[i % 7], "marker": MARKERS[i % 7]}
        axes.plot(range(1, len(curve) + 1), curve, label=task, markersize=5, **style)
    low, high = axes.get_ylim()
    more = max(0.01 - (high - low), 0) / 2
    axes.set_ylim(low - more, high + more)
    axes.set_xlim(left=0)
    axes.set_title("validation AUC", fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)


def draw_gates(axes, gates, experts):
    """Draw a heat map, a row a gate, a column an expert; what a gate does not see is blank."""
    table = np.full((len(gates), len(experts)), np.nan)
    for row, weights in enumerate(gates.values()):
        for expert, weight in weights.items():
            column = experts.index(expert)
            table[row, column] = weight
            place = {"ha": "center", "va": "center", "fontsize": 7.5}
            axes.text(column, row, f"{weight:.2f}", **place)
    axes.imshow(table, cmap="Greys", vmin=0, vmax=1.7 * np.nanmax(table), aspect="auto")
    axes.set_xticks(range(len(experts)), experts, rotation=90, fontsize=8)
    axes.set_yticks(range(len(gates)), list(gates), fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("mean gate weights", fontsize=9)
