"""The file of results, the comparison printed from it, and the plots."""
import json
import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from common import plots, results, scoring
from common.pickles import InputError

TASKS = ["read_comment", "like"]
ADD = """
import sys
from common import results
for i in range(3):
    results.add(sys.argv[1], {"fingerprint": "f", "model": "m", "tasks": "like", "seed": 3 * int(sys.argv[2]) + i,
                              "settings": "x" * 20000, f"own_{sys.argv[2]}": i})
"""


def row(model="mmoe", seed=0, tasks=TASKS, changed="", settings="{}", fingerprint="one", **scores):
    """A row of results.csv; scores such as auc_like=0.8."""
    run = {"model": model, "tasks": ",".join(tasks), "seed": seed, "settings": settings, "changed": changed}
    return {"fingerprint": fingerprint, **run, **scores}


def data(tasks=TASKS, synthetic=False):
    valid = {task: np.arange(100) < 3 for task in tasks}
    meta = {"name": "made up", "synthetic": synthetic, "valid_day": 14, "tasks": dict(zip(tasks, range(len(tasks), 0, -1)))}
    return SimpleNamespace(meta=meta, valid=valid)


def scores(auc, uauc=0.6, tasks=TASKS):
    return {task: {"auc": auc, "uauc": uauc, "logloss": 0.1} for task in tasks}


def printed(capsys, *arguments, **options):
    """{(score, label): (whether it is marked, [n, but of a yardstick, and the cells])} in the order printed, and all lines."""
    results.print_table(*arguments, **options)
    lines = capsys.readouterr().out.splitlines()
    end = lines[1].index("  n ") - 2  # where labels end
    body = [line for line in lines if line.startswith(("AUC", "uAUC", "log loss"))]
    return {
        (line[:9].strip(), line[11:end].strip()): (line[9] == ">", re.split("  +", line[end:].strip())) for line in body
    }, lines


# ---- the file


def test_rows_come_back_as_they_were_written(tmp_path):
    settings = json.dumps({"features": "userid,feedid", "name": 'a "quoted"\nline, é'})
    results.add(tmp_path / "new", row(settings=settings, auc_like=0.1 + 0.2, uauc_like=float("nan"), peak_mb=812))
    (read,) = results.read(tmp_path / "new", "one")
    assert read["settings"] == settings and float(read["auc_like"]) == 0.1 + 0.2
    assert read["uauc_like"] == "" and read["peak_mb"] == "812" and read["tasks"] == "read_comment,like"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".results.lock", "results.csv"]


def test_a_new_column_is_added_and_empty_in_older_rows(tmp_path):
    results.add(tmp_path, row(auc_like=0.5))
    results.add(tmp_path, row(seed=1, auc_forward=0.6))
    first, second = results.read(tmp_path, "one")
    assert list(first) == list(second) == [*row(), "auc_like", "auc_forward"]
    assert (first["auc_like"], first["auc_forward"], second["auc_like"], second["auc_forward"]) == ("0.5", "", "", "0.6")


def test_rows_of_other_data_are_not_read_and_no_file_has_no_rows(tmp_path):
    assert results.read(tmp_path, "one") == [] and results.check(tmp_path) is None and list(tmp_path.iterdir()) == []
    for seed, fingerprint in enumerate(["one", "two", "one", "onetwo"]):
        results.add(tmp_path, row(seed=seed, fingerprint=fingerprint))
    assert [one["seed"] for one in results.read(tmp_path, "one")] == ["0", "2"]
    assert results.read(tmp_path, "three") == []


def test_twenty_processes_that_add_at_the_same_time_lose_and_tear_nothing(tmp_path):
    runs = [subprocess.Popen([sys.executable, "-c", ADD, tmp_path, str(i)], cwd=ROOT) for i in range(20)]
    assert [run.wait() for run in runs] == [0] * 20
    found = results.read(tmp_path, "f")
    assert sorted(int(one["seed"]) for one in found) == list(range(60))
    for one in found:
        process, i = divmod(int(one["seed"]), 3)
        assert one["settings"] == "x" * 20000 and {k: v for k, v in one.items() if k.startswith("own_") and v} == {f"own_{process}": str(i)}


@pytest.mark.parametrize("content, word", [
    (b"", "lacks"),
    (b"time,model,seed\n1,mmoe,0\n", "fingerprint, tasks, settings"),
    (b"fingerprint;model;tasks;seed;settings\n", "lacks"),
    (b"\x93\x00\xff\xfe\x80", "UTF-8"),
    (b"fingerprint,model,tasks,seed,settings\none,mmoe,like\n", "run 1"),
    (b"fingerprint,model,tasks,seed,settings\none,mmoe,like,0,{}\none,mmoe,like,1,{},7\n", "run 2"),
    (b"fingerprint,model,tasks,seed,settings\none,mmoe,like,first,{}\n", "numbers"),
    (b'fingerprint,model,tasks,seed,settings,auc_like\none,mmoe,like,1,{},"0,93"\n', "numbers"),
])
def test_a_file_that_is_no_table_of_runs_is_refused_with_its_name_and_left_alone(content, word, tmp_path):
    file = tmp_path / "results.csv"
    file.write_bytes(content)
    for call in (lambda: results.check(tmp_path), lambda: results.add(tmp_path, row()), lambda: results.read(tmp_path, "one")):
        with pytest.raises(InputError, match=f"(?s)results.csv.*{word}.*: mend it, or move it away") as error:
            call()
        assert "\n" not in str(error.value)
    assert file.read_bytes() == content


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path):
    results.add(tmp_path, row(auc_like=0.5))
    file = tmp_path / "results.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    results.check(tmp_path)
    assert results.read(tmp_path, "one")[0]["auc_like"] == "0.5"


# ---- from rows to models


def models(tmp_path, *rows):
    for one in rows:
        results.add(tmp_path, one)
    return results.models(results.read(tmp_path, "one"))


def test_of_the_same_seed_the_latest_row_counts_and_settings_are_apart(tmp_path):
    flags = {"changed": "--experts 4", "settings": '{"experts": 4}'}
    found = models(tmp_path, row(auc_like=0.1, auc_read_comment=0.2), row(seed=1, auc_like=0.3, auc_read_comment=0.4),
                   row(**flags, auc_like=0.9, auc_read_comment=0.8), row(auc_like=0.5, auc_read_comment=0.6))
    assert found == {
        "mmoe": [{"like": {"auc": 0.5}, "read_comment": {"auc": 0.6}}, {"like": {"auc": 0.3}, "read_comment": {"auc": 0.4}}],
        "mmoe --experts 4": [{"like": {"auc": 0.9}, "read_comment": {"auc": 0.8}}],
    }


def test_runs_of_one_task_each_become_one_model(tmp_path):
    found = models(tmp_path, row("deepfm", tasks=["like"], auc_like=0.1), row("deepfm", tasks=["forward"], auc_forward=0.2),
                   row("deepfm", 1, tasks=["like"], auc_like=0.3), row("deepfm", tasks=["like"], auc_like=0.4))
    assert list(found) == ["deepfm"]
    assert [{task: of["auc"] for task, of in run.items()} for run in found["deepfm"]] == [{"like": 0.4, "forward": 0.2}, {"like": 0.3}]
    assert results.values(found["deepfm"], "like", "auc") == [0.4, 0.3] and results.values(found["deepfm"], "forward", "auc") == [0.2]
    both = models(tmp_path, row("deepfm", tasks=["like", "forward"], auc_like=0.6, auc_forward=0.7))
    assert [{task: of["auc"] for task, of in run.items()} for run in both["deepfm"]] == [{"like": 0.6, "forward": 0.7}, {"like": 0.3}]


def test_an_empty_score_is_nan_and_a_column_that_is_not_there_no_score(tmp_path):
    ((run,),) = models(tmp_path, row(tasks=["like"], auc_like=float("nan"), logloss_like=0.1)).values()
    assert np.isnan(run["like"]["auc"]) and run["like"]["logloss"] == 0.1 and "uauc" not in run["like"]


def test_equal_flags_with_other_defaults_are_not_mixed(tmp_path):
    found = models(tmp_path, *(row(settings=f'{{"dim": {dim}}}', auc_like=dim / 10, auc_read_comment=0.5) for dim in (1, 2, 3, 2)))
    first = {name: runs[0]["like"]["auc"] for name, runs in found.items()}
    assert first == {"mmoe": 0.2, "mmoe (older defaults)": 0.3, "mmoe (older defaults 2)": 0.1}


# ---- the comparison


def test_mean_and_spread():
    assert scoring.mean_and_spread([0.5]) == "0.5000" and scoring.mean_and_spread([0.4, 0.6]) == "0.5000 +- 0.1414"
    assert scoring.mean_and_spread([0.4, float("nan")]) == "n/a"


def test_the_best_is_on_top_and_the_run_just_made_is_marked(capsys):
    made = {"ple": [scores(0.7)], "mmoe --experts 4": [scores(0.8), scores(0.9)], "deepfm": [scores(0.75, tasks=["read_comment"])]}
    marks = {"user's past rate": scores(0.72, 0.5), "oracle": scores(0.95, 0.9)}
    found, lines = printed(capsys, made, marks, data(synthetic=True), TASKS, "mmoe --experts 4")
    order = ["oracle", "mmoe --experts 4", "deepfm", "user's past rate", "ple"]
    assert list(found) == [(score, label) for score in ("AUC", "uAUC", "log loss") for label in order]
    assert [key for key, (mark, _) in found.items() if mark] == [(score, "mmoe --experts 4") for score in ("AUC", "uAUC", "log loss")]
    assert found["AUC", "mmoe --experts 4"][1] == ["2", "0.8500 +- 0.0707", "0.8500 +- 0.0707"]
    assert found["AUC", "oracle"][1] == ["0.9500", "0.9500"] and found["AUC", "deepfm"][1] == ["1", "0.7500", "-"]
    assert found["uAUC", "oracle"][1] == ["0.9000"] * 3 and found["uAUC", "deepfm"][1] == ["1", "0.6000", "-", "-"]
    assert lines[1].split() == ["validation", "(SYNTHETIC)", "n", *TASKS, "weighted", "uAUC"] and lines[2].split()[-2:] == ["3.0000%"] * 2
    cells = {line[-36:] for line in lines if line.startswith("log loss")}
    assert cells == {f"{'0.1000':>18}" * 2, f"{'0.1000 +- 0.0000':>18}" * 2, f"{'0.1000':>18}{'-':>18}"}


def test_the_order_is_that_of_the_target(capsys):
    made = {"a": [{"read_comment": {"auc": 0.9}, "like": {"auc": 0.6}}], "b": [{"read_comment": {"auc": 0.8}, "like": {"auc": 0.7}}],
            "c": [{"read_comment": {"auc": 0.99}}]}
    assert [label for _, label in printed(capsys, made, {}, data(), TASKS, "a", target="like")[0]] == ["b", "a", "c"]
    assert [label for _, label in printed(capsys, made, {}, data(), TASKS, "a")[0]] == ["c", "a", "b"]


def test_the_weighted_score_is_the_contests_and_needs_all_tasks(capsys):
    run = {"read_comment": {"auc": 0.9, "uauc": 0.6, "logloss": 0.1}, "like": {"auc": 0.9, "uauc": 0.9, "logloss": 0.1}}
    found, _ = printed(capsys, {"mmoe": [run]}, {}, data(), TASKS, "mmoe")  # weights 2 and 1
    assert found["uAUC", "mmoe"][1] == ["1", "0.6000", "0.9000", "0.7000"]
    _, lines = printed(capsys, {"mmoe": [run]}, {}, data(), ["like"], "mmoe")
    assert not any("weighted" in line for line in lines)


def test_undefined_scores_are_na_come_last_and_a_score_that_none_has_is_left_out(capsys):
    made = {"nan": [scores(float("nan"), float("nan"))], "good": [scores(0.6, float("nan"))]}
    found, lines = printed(capsys, made, {"oracle": scores(0.7, float("nan"))}, data(), TASKS, "good")
    assert [label for score, label in found if score == "AUC"] == ["oracle", "good", "nan"]
    assert found["AUC", "nan"][1] == ["1", "n/a", "n/a"] and not any("uAUC" in line for line in lines)


def test_runs_are_counted_from_the_fewest_to_the_most_of_a_task(capsys):
    made = {"deepfm": [scores(0.6), scores(0.7, tasks=["read_comment"])], "none": [{}]}
    found, _ = printed(capsys, made, {}, data(), TASKS, "deepfm")
    assert found["AUC", "deepfm"][1] == ["1-2", "0.6500 +- 0.0707", "0.6000"] and found["AUC", "none"][1] == ["0", "-", "-"]


def test_long_labels_are_cut_told_apart_and_named_below(capsys):
    tasks = ["read_comment", "like", "click_avatar", "forward"]
    long = [f"mmoe --features userid,feedid,device,authorid,user_history --learning-rate 0.00{i}" for i in (1, 2)]
    made = {name: [scores(0.9 - i / 10, tasks=tasks)] * 12 for i, name in enumerate(long)}
    _, lines = printed(capsys, made, {"user's past rate": scores(0.7, tasks=tasks)}, data(tasks), tasks, long[0])
    body = [line for line in lines if line.startswith(("AUC", "uAUC", "log loss"))]
    assert len(body) == 9 and max(map(len, body)) <= 133 and all("… [1]" in line for line in body if ">" in line)
    assert [line for line in lines if line.startswith("[")] == [f"[1] {long[0]}", f"[2] {long[1]}"]


# ---- plots


def picture(path):
    """The (height, width, 3) pixels of a PNG whose edges are white, nothing being cut off there."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    return pixels


def shows(pixels, colour):
    """How many pixels are of this colour, "#rrggbb"."""
    return int((pixels == tuple(bytes.fromhex(colour[1:]))).all(axis=-1).sum())


@pytest.mark.parametrize("n_models, n_tasks, n_runs", [(1, 1, 1), (4, 4, 5), (12, 7, 2)])
def test_the_comparison_is_a_picture_of_sensible_size(n_models, n_tasks, n_runs, tmp_path):
    tasks, rng = ["read_comment", "like", "click_avatar", "forward", "favorite", "comment", "follow"][:n_tasks], np.random.default_rng(0)
    draw = lambda: {task: {"auc": rng.uniform(0.80, 0.82), "uauc": rng.uniform(0.6, 0.62), "logloss": 0.1} for task in tasks}
    flags = " --learning-rate 0.002 --dropout 0.2 --epochs 3"
    made = {f"model {i}" + flags * (i % 4): [draw() for _ in range(n_runs)] for i in range(n_models)}
    marks = {"oracle": scores(0.95, 0.9, tasks), "user's past rate": scores(0.79, 0.5, tasks)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is a warning
        plots.comparison(tmp_path / "one.png", made, marks, data(tasks, synthetic=True), tasks, "model 0")
    pixels = picture(tmp_path / "one.png")
    assert 400 < pixels.shape[0] < 3000 and 800 < pixels.shape[1] < 3000
    assert shows(pixels, plots.RED) > 50 * n_tasks and (shows(pixels, plots.BLUE) > 50 * n_tasks) == (n_models > 1)
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]


def test_nan_scores_and_tasks_not_learned_leave_no_dot(tmp_path):
    nan = float("nan")
    made = {"nan": [scores(nan, nan)], "none": [{}], "one task": [scores(0.7, tasks=["like"])] * 2}
    for current in made:
        plots.comparison(tmp_path / f"{current}.png", made, {"oracle": scores(nan, nan)}, data(), TASKS, current)
    dots = {current: shows(picture(tmp_path / f"{current}.png"), plots.RED) for current in made}
    assert 0 < dots["nan"] == dots["none"] < dots["one task"]  # the legend's alone


def history(n_epochs, value=0.8):
    loss = [(step / 10, 0.3 - step / 1000) for step in range(1, 10 * n_epochs + 1)]
    return {"loss": loss, "scores": [(epoch, scores(value)) for epoch in range(1, n_epochs + 1)]}


def test_curves_of_one_epoch_of_several_runs_and_of_gates(tmp_path):
    gates = {"like": {"like 1": 0.3, "like 2": 0.3, "shared": 0.4}, "forward": {"forward 1": 1.0, "shared": 0.0}}
    sizes = {}
    for name, histories, of_gates in (("one", [history(1)], {}), ("three", [history(3)] * 5, {}), ("gates", [history(3)], gates)):
        plots.curves(tmp_path / f"{name}.png", "a run (SYNTHETIC)", histories, of_gates)
        pixels = picture(tmp_path / f"{name}.png")
        sizes[name] = pixels.shape
        assert shows(pixels, plots.COLOURS[1]) > 50
    assert sizes["one"] == sizes["three"] and sizes["gates"][1] > sizes["one"][1] + 300
    assert len(list(tmp_path.iterdir())) == 3


def test_curves_with_nan_scores_or_nothing_to_show_do_not_fail(tmp_path):
    plots.curves(tmp_path / "nan.png", "nan", [history(2, float("nan"))], {"gate": {"expert": float("nan")}})
    plots.curves(tmp_path / "empty.png", "empty", [{"loss": [], "scores": []}], {})
    assert shows(picture(tmp_path / "nan.png"), plots.BLUE) > shows(picture(tmp_path / "empty.png"), plots.BLUE) == 0


def test_experts_that_gates_share_stand_last_and_levels_stay_in_order():
    orders = [["a1", "a2", "s"], ["b1", "s"], ["a1", "a2", "b1", "s"], ["next a1", "next s"]]
    assert plots._merged(orders) == ["a1", "a2", "b1", "s", "next a1", "next s"]


def test_matplotlib_is_not_imported_until_something_is_drawn():
    code = "import sys, common.plots; assert not {'matplotlib', 'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
