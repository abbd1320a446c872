"""The file of results, the comparison printed from it, and the pictures."""

import multiprocessing
import re
import sys
import warnings
from types import SimpleNamespace

import get_data
from common import days, plots, results
from common.command import InputError
from common.contract import load
from common.pickles import read, write_all

import numpy as np
import pandas as pd
import pytest
from PIL import Image

NAN = float("nan")
TASKS = ("read_comment", "like")
SEVEN = (*TASKS, "click_avatar", "forward", "favorite", "comment", "follow")
HEAD = b"fingerprint,model,tasks,seed,settings"


def row(model="mmoe", seed=0, tasks="like", changed="", settings="{}", fingerprint="this", **more):
    """A row of results.csv; more: scores such as auc_like=0.8."""
    run = {"fingerprint": fingerprint, "model": model, "tasks": tasks, "seed": seed}
    return {**run, "settings": settings, "changed": changed, **more}


def loaded(folder, *rows):
    """{(model, task): [AUC by seed]} once these rows are added."""
    for content in rows:
        results.add(folder, content)
    runs = results.load(folder, "this").query("score == 'auc'")
    return runs.groupby(["model", "task"], sort=False)["value"].apply(list).to_dict()


def scores(auc):
    return {"auc": auc, "uauc": auc - 0.2, "logloss": 0.1, "calibration": 1.5}


def runs_of(models):
    """What `load` gives, of {model: [{task: AUC} of each run]}."""
    rows = [
        (model, seed, task, score, value)
        for model, runs in models.items()
        for seed, run in enumerate(runs)
        for task, auc in run.items()
        for score, value in scores(auc).items()
    ]
    return pd.DataFrame(rows, columns=results.TIDY)


def marks_of(**aucs):
    return {name: dict.fromkeys(SEVEN, scores(auc)) for name, auc in aucs.items()}


def data(tasks=TASKS):
    meta = {"name": "made up", "synthetic": True, "valid_day": 14}
    weights = dict(zip(tasks, range(len(tasks), 0, -1), strict=True))
    valid = dict.fromkeys(tasks, np.arange(100) < 3)
    return SimpleNamespace(meta=meta, valid=valid, tasks=weights)


def test_rows_come_back_as_they_were_written_and_columns_are_added(tmp_path):
    settings = '{"name": "a ""quoted"" \\n, é 多任务"}\n,'
    folder = tmp_path / "new"
    results.add(folder, row(settings=settings, auc_like=0.1 + 0.2, uauc_like=NAN, peak_mb=812))
    results.add(folder, row("nan", auc_forward=0.6))
    first = ["this", "mmoe", "like", "0", settings, "", "0.30000000000000004", "", "812", ""]
    second = ["this", "nan", "like", "0", "{}", "", "", "", "", "0.6"]
    table = results.read(folder)
    assert list(table) == [*row(), "auc_like", "uauc_like", "peak_mb", "auc_forward"]
    assert table.values.tolist() == [first, second]
    assert sorted(path.name for path in folder.iterdir()) == [".results.lock", "results.csv"]
    file = folder / "results.csv"  # as a spreadsheet saves it
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"0.6\n", b"0.6\r\n"))
    assert results.read(folder).values.tolist() == [first, second]


def add_ten(folder, number, start):
    """What a process does. It needs neither Matplotlib nor TensorFlow, which take long."""
    start.wait()
    assert not {"matplotlib", "tensorflow"} & set(sys.modules)
    for i in range(10):
        results.add(folder, row(seed=10 * number + i, settings="x" * 200_000))


def test_processes_that_add_at_the_same_time_lose_and_tear_nothing(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    adders = [spawn.Process(target=add_ten, args=(tmp_path, n, start)) for n in range(2)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    assert [adder.exitcode for adder in adders] == [0, 0]
    table = results.read(tmp_path)
    assert sorted(table["seed"].astype(int)) == list(range(20))
    assert (table["settings"] == "x" * 200_000).all()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no CSV"),
        (HEAD.replace(b"tasks,", b""), "lacks the columns tasks"),
        (b"\x93\x00\xff\xfe\x80", "UTF-8"),
        (HEAD + b"\nthis,mmoe,like,1.5,{}\n", "column seed must hold whole numbers"),
        (HEAD + b"\nthis,mmoe,like,0,{}\nthis,mmoe,like,1,{},7\n", "line 3, saw 6"),
        (HEAD + b',auc_like\nthis,mmoe,like,1,{},"0,93"\n', "column auc_like must hold numbers"),
    ],
)
def test_a_file_that_breaks_during_a_run_stays_and_the_run_is_kept_beside(content, word, tmp_path):
    results.read(tmp_path)
    (tmp_path / "results.csv").write_bytes(content)
    refused = f"results[.]csv.*{word}.*: mend it, or move it away and a new one is begun[.]"
    with pytest.raises(InputError, match=f"{refused}$"):
        results.read(tmp_path)
    with pytest.raises(InputError, match=f"{refused} This run is kept in .*[.]$") as error:
        results.add(tmp_path, row(auc_like=0.5))
    assert (tmp_path / "results.csv").read_bytes() == content
    (kept,) = tmp_path.glob("results-*.csv")
    assert str(error.value).endswith(f"kept in {kept}.")
    assert pd.read_csv(kept, keep_default_na=False).to_dict("records") == [row(auc_like=0.5)]


def test_latest_rows_of_a_seed_count_and_settings_defaults_and_data_are_apart(tmp_path):
    assert results.load(tmp_path, "this").empty
    other = row(auc_like=0.7, uauc_like=0.7, fingerprint="other")
    flags = row(changed="--experts 4", settings='{"experts": 4}', auc_like=0.9)
    rows = [row(seed=1, auc_like=0.3), row(auc_like=0.1), flags, row(auc_like=0.5), other]
    aucs = {("mmoe", "like"): [0.5, 0.3], ("mmoe --experts 4", "like"): [0.9]}
    assert loaded(tmp_path, *rows) == aucs
    assert set(results.load(tmp_path, "this")["score"]) == {"auc"}  # the uAUC is of other data
    rows = [row("ple", settings=str(dim), auc_like=dim / 10) for dim in (1, 2, 3, 2)]
    aucs |= {("ple", "like"): [0.2], ("ple (older defaults)", "like"): [0.3]}
    assert loaded(tmp_path, *rows) == aucs | {("ple (older defaults 2)", "like"): [0.1]}


def test_runs_of_single_tasks_become_one_model_and_an_empty_score_is_nan(tmp_path):
    rows = [("like", 0, 0.1), ("forward", 0, 0.2), ("like", 1, 0.3), ("like", 0, 0.4)]
    single = [row("deepfm", seed, task, **{f"auc_{task}": auc}) for task, seed, auc in rows]
    aucs = {("deepfm", "like"): [0.4, 0.3], ("deepfm", "forward"): [0.2]}
    assert loaded(tmp_path, *single) == aucs
    both = row("deepfm", 0, "like,forward", auc_like=0.6, auc_forward=NAN)
    aucs = {("deepfm", "like"): [0.6, 0.3], ("deepfm", "forward"): [NAN]}
    assert str(loaded(tmp_path, both)) == str(aucs)


def printed(capsys, *arguments, **options):
    """{(score, model): [sign, n if it has one, cells]} in the order printed, and all lines."""
    results.print_table(*arguments, **options)
    lines = capsys.readouterr().out.splitlines()
    form = re.compile("(AUC|uAUC|log loss|calibration) +(>?) *([^ ].*?)  +(.*)")
    rows = [match.groups() for match in map(form.fullmatch, lines) if match]
    table = {(score, name): [sign, *re.split("  +", end)] for score, sign, name, end in rows}
    return table, lines


def test_the_best_of_the_target_is_on_top_and_the_model_just_run_is_marked(capsys):
    models = {"ple": [{"read_comment": 0.9, "like": 0.7}], "deepfm": [{"read_comment": 0.95}]}
    models |= {"mmoe --experts 4": [dict.fromkeys(TASKS, auc) for auc in (0.8, 0.9)]}
    models |= {"nan": [{"read_comment": NAN, "like": NAN}, {"read_comment": NAN}]}
    marks = marks_of(past=0.72, oracle=0.97)
    arguments = (capsys, runs_of(models), marks, data(), "mmoe --experts 4")
    table, lines = printed(*arguments, "like")
    order = ["oracle", "mmoe --experts 4", "past", "ple"]
    assert [name for _, name in table if name not in ("deepfm", "nan")] == order * 2
    head = ["validation", "(SYNTHETIC)", "n", *TASKS, "weighted"]
    assert [*map(str.split, lines[1:3])] == [head, ["positive", "rate", "3.0000%", "3.0000%"]]
    assert table["AUC", "mmoe --experts 4"] == [">", "2", *["0.8500 +- 0.0707"] * 2]
    assert table["uAUC", "oracle"] == ["", *["0.7700"] * 3]
    assert table["uAUC", "ple"] == ["", "1", "0.7000", "0.5000", "0.6333"]  # weights 2 and 1
    assert table["uAUC", "deepfm"] == ["", "1", "0.7500", "-", "-"]
    assert table["AUC", "nan"] == ["", "1-2", "n/a", "n/a"]
    table, _ = printed(*arguments, "read_comment", verbose=True)
    order = ["oracle", "deepfm", "ple", "mmoe --experts 4", "past", "nan"]
    assert [name for _, name in table] == order * 4
    assert table["calibration", "past"] == ["", "1.5000", "1.5000"]


def test_long_names_are_cut_and_named_below_and_chinese_ones_keep_the_columns(capsys):
    long = [f"mmoe --features userid,feedid,device,authorid --learning-rate 0.{i}" for i in (1, 2)]
    models = {name: [{"like": 0.8}] for name in [*long, "多任务模型", "mmoe"]}
    _, lines = printed(capsys, runs_of(models), {}, data(["like"]), "多任务模型", "like")
    *body, first, second, last = lines[1:]
    assert (first, second, last) == (f"[1] {long[0]}", f"[2] {long[1]}", "")
    assert {results.places(line) for line in body} == {64}
    assert [results.places(line) - len(line) for line in body if "多任务模型" in line] == [5, 5]


def draw(function, path, *arguments):
    """{colour: where it is} in the PNG that is drawn. Its edges are white: nothing is cut off."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit, a letter that is in no font
        function(path, *arguments)
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert all((edge == 255).all() for edge in (pixels[[0, -1]], pixels[:, [0, -1]]))
    colours = (plots.BLUE, plots.RED, plots.GREY)
    return {colour: (pixels == [*bytes.fromhex(colour[1:])]).all(-1) for colour in colours}


@pytest.mark.parametrize("n_models, n_tasks, n_runs", [(1, 1, 1), (4, 4, 5), (12, 7, 2)])
def test_a_comparison_of_few_and_of_many_models(n_models, n_tasks, n_runs, tmp_path):
    aucs = np.random.default_rng(0).uniform(0.8, 0.82, (n_models, n_runs, n_tasks)).tolist()
    flags = ["", " --learning-rate 0.002 --dropout 0.2", f" --features {'userid,' * 20}"]
    models = {
        f"模型 {i}{flags[i % 3]}": [dict(zip(SEVEN, run, strict=False)) for run in runs]
        for i, runs in enumerate(aucs)
    }
    arguments = (marks_of(oracle=0.95, past=0.79), data(SEVEN[:n_tasks]), "模型 0", "like")
    shown = draw(plots.comparison, tmp_path / "a.png", runs_of(models), *arguments)
    assert 400 < min(shown[plots.RED].shape) < max(shown[plots.RED].shape) < 3000
    assert shown[plots.RED].sum() > 300 * n_tasks
    assert (shown[plots.BLUE].sum() > 100 * n_tasks) == (n_models > 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_yardstick_is_a_line_if_near_and_else_named_above_and_nan_is_no_dot(tmp_path):
    runs = runs_of({"mmoe": [{"like": 0.80}], "ple": [{"like": 0.81}], "nan": [{"like": NAN}]})
    more = pd.concat([runs, runs_of({"of another task": [{"stay": 0.9}]})])  # is not drawn
    for auc, lowest, highest in ((0.815, 0.15, 1), (0.95, 0, 0.05), (NAN, -1, 0.01)):
        arguments = (marks_of(past=auc), data(["like"]))
        shown = draw(plots.comparison, tmp_path / "a.png", runs, *arguments, "ple", "like")
        height, width = shown[plots.RED].shape
        assert lowest < shown[plots.GREY].sum(axis=0).max() / height < highest, auc
        assert (shown[plots.GREY][: height // 4].sum() > 25) == np.isfinite(auc), auc
        places = [np.median(np.nonzero(shown[dot])[1]) for dot in (plots.RED, plots.BLUE)]
        assert abs(places[0] - places[1]) > 0.3 * width, auc  # the models are still told apart
        other = draw(plots.comparison, tmp_path / "a.png", more, *arguments, "nan", "like")
        assert not other[plots.RED].any() and shown[plots.RED].any()


def test_curves_of_few_steps_of_epochs_of_many_networks_and_of_gates(tmp_path):
    def log(n_epochs, auc=0.8):
        losses = [(step / 10, 0.3 - step / 1000) for step in range(1, 10 * n_epochs + 1)]
        aucs = [{task: scores(auc + i / 100) for task in TASKS} for i in range(n_epochs)]
        return {"losses": losses, "scores": list(enumerate(aucs, start=1))}

    ple = {f"gate_2_{task}": {"own 1": 0.6, "own 2": 0.0, "shared 1": 0.4} for task in TASKS}
    mmoe = {f"gate_{task}": {f"expert {i}": 1 / 8 for i in range(8)} for task in SEVEN}
    cases = {"a step": ([{**log(1), "losses": [(1.0, 0.3)]}], {}), "an epoch": ([log(1)], {})}
    cases |= {"epochs": ([log(3)], {}), "networks": ([log(3)] * 5, {}), "ple": ([log(3)], ple)}
    cases |= {"mmoe": ([log(1)], mmoe), "nan": ([log(2, NAN)], {})}
    widths = {}
    for name, arguments in cases.items():
        shown = draw(plots.curves, tmp_path / "a.png", f"多任务 {name}", *arguments)
        assert shown[plots.BLUE].sum() > 20, name
        assert (shown[plots.RED].sum() > 300) == (name in ("epochs", "networks", "ple")), name
        widths[name] = shown[plots.RED].shape[1]
    assert widths["a step"] == widths["an epoch"] < widths["mmoe"] - 300
    assert widths["an epoch"] < widths["epochs"] - 300
    assert widths["epochs"] == widths["networks"] == widths["nan"] < widths["ple"] - 300


def test_pictures_are_the_same_whatever_matplotlib_is_told(tmp_path):
    """By a matplotlibrc or in a notebook, whose own settings stay."""
    import matplotlib

    named = ("a $^$ b $x_1$", [{"losses": [(1.0, 0.3)], "scores": []}], {})
    plain = draw(plots.curves, tmp_path / "a.png", *named)
    own = {"text.usetex": True, "font.family": ["serif"], "lines.linestyle": "--"}
    own |= {"axes.facecolor": "red", "savefig.bbox": "tight", "axes.formatter.use_mathtext": True}
    with matplotlib.rc_context(own):
        shown = draw(plots.curves, tmp_path / "a.png", *named)
        assert {name: matplotlib.rcParams[name] for name in own} == own
    for colour, where in plain.items():
        np.testing.assert_array_equal(shown[colour], where)


def test_a_mean_of_few_steps_is_left_out():
    ends = [0.375, 0.75, 1.0, 1.375, 1.75, 1.875, 2.0]  # two epochs, short at their ends
    losses = list(zip(ends, [5.0, 3.0, 1.0, 2.0, 2.5, 9.0, 7.0], strict=True))
    assert plots.even(losses) == losses[:5]  # half of the longest is no few
    assert plots.even([(1.0, 0.3)]) == [(1.0, 0.3)]


def test_the_table_of_several_days_is_their_mean(tiny, tmp_path, capsys):
    get_data.main([str(tiny), "--out", str(tmp_path), "--valid-days", "2", "--quiet"])
    folders = [str(tmp_path / name) for name in ("day-13", "day-14")]
    with pytest.raises(InputError, match="no model was run on every folder"):
        days.main(folders)
    aucs = np.random.default_rng(0).random((2, 3))  # by day and seed
    for folder, by_seed in zip(folders, aucs, strict=True):
        data = load(folder)
        assert data.meta["valid_day"] == int(folder[-2:])
        assert data.train["day"].max() < data.meta["valid_day"]
        for seed, auc in enumerate(by_seed):
            results.add(folder, row("mine", seed, fingerprint=data.fingerprint, auc_like=auc))
    last = row("mine", 7, fingerprint=data.fingerprint, auc_like=0.1)  # a seed that one day has
    results.add(folders[1], last)
    capsys.readouterr()
    days.main(folders)
    shown = capsys.readouterr().out
    means = aucs.mean(axis=0)
    assert f"{means.mean():.4f} +- {means.std(ddof=1):.4f}" in shown
    assert "means over the days 13, 14" in shown and "oracle" in shown
    meta = read(tmp_path / "day-14" / "meta.pkl") | {"name": "it, regime exposures"}
    write_all(tmp_path / "day-14", {"meta.pkl": meta})
    with pytest.raises(InputError, match=r"day-13 is of .*regime exposures: average days of the"):
        days.main(folders)
