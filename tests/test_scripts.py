"""The four scripts as a user runs them, from an empty folder."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from types import SimpleNamespace

import deepfm
from common.columns import ACTIONS
from common.command import InputError
from common.contract import load
from common.pickles import read, write_all
from common.scores import uauc, yardsticks

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import KUAIRAND, ROOT, assert_one_sentence, in_terminal, run_main, script
from sklearn.metrics import roc_auc_score

SCRIPTS = ["deepfm.py", "FocalLoss.py", "mmoe.py", "ple.py"]
TASKS = ["read_comment", "like", "click_avatar", "forward"]
LAST_LINE = re.compile(r"\w+ validation AUC: (\d\.\d{4})( \+- \d\.\d{4})?")


def last_auc(run):
    """The AUC of the last line, whose form is part of what users rely on."""
    match = LAST_LINE.fullmatch(run.stdout.splitlines()[-1])
    assert match, run.stdout
    return float(match[1])


def table(run, score, model, task="read_comment"):
    """A number of the printed table of a single run."""
    lines = run.stdout.splitlines()
    heads = next(line for line in lines if line.startswith("validation")).split()
    row = next(line for line in lines if re.match(rf"{score} +(> )?{re.escape(model)}  ", line))
    cells = re.findall(r"(?<=  )(?:\d\.\d{4}|n/a|-)(?=  |$)", row)
    return float(cells[[head for head in heads if head in (*TASKS, "weighted")].index(task)])


def epochs(run):
    """The lines of the epochs, without their speed."""
    lines = [line for line in run.stdout.splitlines() if line.startswith("epoch")]
    return [re.sub(r"[\d,]+ rows/s", "", line) for line in lines]


def epochs_of_deepfm(folder):
    """Those of the fixture `deepfm_made`."""
    return epochs(SimpleNamespace(stdout=(folder / "printed.txt").read_text()))


def results_of(folder):
    return pd.read_csv(folder / "results.csv")


# ---- results


@pytest.mark.parametrize("name", ["mmoe.py"] if KUAIRAND.is_dir() else SCRIPTS)  # to be quicker
def test_on_the_stand_in_each_beats_the_users_past_rate(name, stand_in_pickles, tmp_path):
    run = run_main(name, "--user-data", stand_in_pickles, "--epochs", 1)
    data = load(stand_in_pickles)
    past = yardsticks(data, data.valid)["user's past rate"]["read_comment"]
    floor = roc_auc_score(data.valid["read_comment"], past)
    model = f"{name[:-3]} --epochs 1"
    assert last_auc(run) > floor > 0.92
    assert last_auc(run) == table(run, "AUC", model)
    assert table(run, "AUC", "user's past rate") == pytest.approx(floor, abs=6e-5)
    assert table(run, "uAUC", "user's past rate") == 0.5
    assert table(run, "uAUC", model) >= 0.6
    assert 0.94 < table(run, "AUC", "oracle") < 0.965
    assert table(run, "uAUC", "oracle") > table(run, "uAUC", model)
    assert "SYNTHETIC" in run.stdout
    if name in ("mmoe.py", "ple.py"):
        for task, auc in zip(TASKS, (0.93, 0.86, 0.83, 0.83), strict=True):
            assert auc < table(run, "AUC", model, task) < table(run, "AUC", "oracle", task)
        assert 0.64 < table(run, "uAUC", model, "weighted") < 0.68


def test_users_past_rate_is_the_smoothed_rate_over_earlier_days(stand_in, stand_in_pickles):
    log = pd.read_csv(stand_in / "user_action.csv")
    data = load(stand_in_pickles)
    train = log[log.date_ < 14]
    valid = log[log.date_ == 14]
    by_user = train.groupby("userid").read_comment.agg(["sum", "size"])
    rate = (by_user["sum"] + 20 * train.read_comment.mean()) / (by_user["size"] + 20)
    rates = valid.userid.map(rate).fillna(train.read_comment.mean())
    past = yardsticks(data, data.valid)["user's past rate"]["read_comment"]
    wanted = roc_auc_score(valid.read_comment, rates)
    found = roc_auc_score(data.valid["read_comment"], past)
    assert found == pytest.approx(wanted, abs=2e-4)  # statistics are kept in half precision
    assert uauc(data.valid["read_comment"], past, data.valid["user"]) == 0.5


@pytest.fixture(scope="module")
def real_pickles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kuairand")
    script("data/kuairand.py", KUAIRAND, folder / "csv", cwd=folder)
    script("get_data.py", folder / "csv", "--out", folder / "pickles", cwd=folder)
    return folder / "pickles"


@cache
def of_kuairand(folder, name, *flags):
    """A run of a script on the real data, and its row of results.csv; each is made once."""
    run = run_main(name, "--user-data", folder, *flags)
    return run, results_of(folder).iloc[-1]


@pytest.mark.xdist_group("kuairand")
@pytest.mark.parametrize("name", SCRIPTS if KUAIRAND.is_dir() else [])
def test_on_kuairand_each_reaches_what_known_libraries_get(name, real_pickles):
    run, _ = of_kuairand(real_pickles, name)
    assert 0.80 <= last_auc(run) < 0.82
    assert "SYNTHETIC" not in run.stdout


def test_shuffled_training_labels_bring_auc_to_a_half(stand_in_pickles):
    train = read(stand_in_pickles / "train.pkl")
    rng = np.random.default_rng(0)
    train |= {task: rng.permutation(train[task]) for task in TASKS}
    contents = {"train.pkl": train}
    for key in ("user", "feed"):  # the statistics would still know the labels
        content = read(stand_in_pickles / f"{key}.pkl")
        for name in content:
            if name.endswith(("_history", "_watch_time", "_taste")):
                content[name] = np.zeros_like(content[name])
        contents[f"{key}.pkl"] = content
    write_all(stand_in_pickles, contents)
    few = "userid,feedid,device,manual_tag_list,user_history,feed_history,user_taste"
    run = run_main("deepfm.py", "--user-data", stand_in_pickles, "--features", few)
    assert abs(last_auc(run) - 0.5) < 0.05


@pytest.mark.xdist_group("kuairand")
@pytest.mark.parametrize("name", ["mmoe.py"] if KUAIRAND.is_dir() else [])
def test_a_second_epoch_has_new_embeddings_and_learns_nothing_by_heart(name, real_pickles):
    rows = [of_kuairand(real_pickles, name, *flags)[1] for flags in ((), ("--keep-embeddings",))]
    curves = [json.loads(row["auc_by_epoch"]) for row in rows]
    last = [curve["read_comment"][-1] for curve in curves]
    assert last == pytest.approx([row["auc_read_comment"] for row in rows], abs=1e-6)
    for curve in curves:
        del curve["forward"]  # of 20 positives
    anew, same = (np.mean(list(curve.values()), axis=0) for curve in curves)  # AUC by epoch
    assert anew.shape == (2,) and anew[0] == same[0]
    assert anew[1] > anew[0] - 0.002 and anew[1] > same[1] + 0.002


# ---- behaviour


def test_of_several_runs_the_mean_logit_is_kept(tiny, small_pickles, tmp_path):
    flags = ("--user-data", small_pickles, "--epochs", 1)
    predict = ("--predict", tiny / "test_b.csv", "--out", tmp_path / "scores.csv")
    runs = []
    logits = []
    for more in (("--seed", 1), ("--seed", 2), ("--seed", 1, "--runs", 2)):
        runs.append(run_main("FocalLoss.py", *flags, *more))  # whose logits are mapped
        run_main("FocalLoss.py", *flags[:2], *predict)
        p = pd.read_csv(tmp_path / "scores.csv")["read_comment"]
        logits.append(np.log(p / (1 - p)))
    *single, both = runs
    mean = (logits[0] + logits[1]) / 2
    np.testing.assert_allclose(1 / (1 + np.exp(-mean)), 1 / (1 + np.exp(-logits[2])), atol=2e-6)
    assert np.abs(logits[0] - logits[1]).max() > 0.05
    rows = results_of(small_pickles)
    aucs = rows["auc_read_comment"].tolist()
    assert aucs[:2] == aucs[2:4]  # a run among others is the run alone
    assert last_auc(both) == pytest.approx(np.mean(aucs[:2]), abs=6e-5)
    assert both.stdout.splitlines()[-1].endswith(f" +- {np.std(aucs[:2], ddof=1):.4f}")
    assert epochs(both) == epochs(single[0]) + epochs(single[1])
    mean = rows.iloc[4]
    assert mean["changed"].endswith("mean of 2 runs") and len(rows) == 5
    assert mean["auc_read_comment"] > min(aucs[:2])
    assert any("mean of 2 runs" in line for line in both.stdout.splitlines())


def test_every_day_is_trained_on_in_the_end(tiny, tmp_path):
    """The contest's last step: no validation, and submissions that have seen the last day."""
    words = [tiny, "--out", tmp_path / "whole"]
    run_main("get_data.py", *words)
    run_main("get_data.py", *words[:2], tmp_path / "final", "--final")
    whole, final = (load(tmp_path / name) for name in ("whole", "final"))
    rows = {name: len(data.train["day"]) for name, data in (("whole", whole), ("final", final))}
    assert rows["final"] == rows["whole"] + len(whole.valid["day"])
    assert final.valid == {} and final.meta["valid_day"] is None
    assert final.train["day"].max() == 14 and final.unlabelled["test_a"]["day"].max() == 15
    histories = [data.tables["user"]["user_history"] for data in (whole, final)]
    np.testing.assert_array_equal(*histories)  # both reach to day 15
    assert len(histories[0]) == 16 and final.meta["vocabularies"] != whole.meta["vocabularies"]
    one_step = ("--batch-size", 10**7, "--embedding-l2", 6e50)  # whose loss is still a number
    few = ("--features", "userid,user_history")  # to compile in less time
    with pytest.raises(InputError, match="the logits are no numbers"):
        run_main("deepfm.py", "--user-data", tmp_path / "final", *one_step, *few)
    assert not (tmp_path / "final" / "deepfm.keras").exists()
    run = run_main("mmoe.py", "--user-data", tmp_path / "final", "--runs", 2, "--epochs", 2, *few)
    assert "no validation" in run.stdout and "auc" not in run.stdout
    assert run.stdout.splitlines()[-1] == "read_comment validation AUC: n/a"
    assert not (tmp_path / "final" / "results.csv").exists()
    for which in "ab":
        path = tmp_path / "final" / f"mmoe_submission_{which}.csv"
        test = tiny / f"test_{which}.csv"
        scored = run_main("common.submission", path, test, tiny / f"test_{which}_labels.csv")
        assert 0.4 < float(scored.stdout.split()[-1]) < 0.9


def test_focal_loss_of_gamma_0_without_annealing_is_deepfm(deepfm_run):
    plain = epochs_of_deepfm(deepfm_run)
    flags = ("--user-data", deepfm_run, "--epochs", 2)
    focal = run_main("FocalLoss.py", *flags, "--gamma", 0, "--cycles", "")
    assert len(plain) == 2 and plain == epochs(focal)


def test_focal_scores_are_mapped_to_probabilities_in_the_same_order(small_pickles, tmp_path):
    for flags in ((), ("--raw-scores",)):
        flags = ("--user-data", small_pickles, "--gamma", 2, *flags)
        run_main("FocalLoss.py", *flags)
    mapped, raw = results_of(small_pickles).tail(2).to_dict("records")
    assert mapped["auc_read_comment"] == pytest.approx(raw["auc_read_comment"], abs=1e-4)
    assert mapped["logloss_read_comment"] < raw["logloss_read_comment"]
    surplus = [abs(np.log(row["calibration_read_comment"])) for row in (mapped, raw)]
    assert surplus[0] < 0.5 < 1 < surplus[1]  # four times too high


@pytest.mark.parametrize("batch_size", [1, 10**7])
def test_any_batch_size_trains(batch_size, small_pickles, tmp_path):
    for name in ("train.pkl", "valid.pkl"):
        rows = read(small_pickles / name)  # whose stamp is shorter
        write_all(small_pickles, {name: {key: values[:400] for key, values in rows.items()}})
    flags = ("--user-data", small_pickles, "--epochs", 2, "--batch-size", batch_size)
    flags += ("--features", "userid,user_history")  # to compile in less time
    lines = epochs(run_main("mmoe.py", *flags))
    losses = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in lines]
    assert losses[1] < losses[0]  # of four tasks; it has learned something


def test_a_task_without_positives_on_the_validation_day_is_not_available(small_pickles, tmp_path):
    valid = read(small_pickles / "valid.pkl")
    valid["read_comment"] = np.zeros_like(valid["read_comment"])
    write_all(small_pickles, {"valid.pkl": valid})
    run = run_main("mmoe.py", "--user-data", small_pickles, "--features", "userid,user_history")
    assert run.stdout.splitlines()[-1] == "read_comment validation AUC: n/a"
    assert "nan" not in run.stdout
    columns = ["auc_read_comment", "uauc_read_comment", "weighted_uauc"]
    assert results_of(small_pickles)[columns].isna().all(axis=None)
    names = {path.name for path in small_pickles.iterdir()}
    assert {"mmoe.png", "comparison.png", "mmoe.keras", "mmoe_submission_a.csv"} <= names


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--user-data", "nowhere"], "nowhere/meta.pkl is missing"),
        (["--target", "buy"], "--target buy is no task"),
        (["--features", "price"], "--features price is not in"),
        (["--features", "user_histori"], "did you mean user_history?"),
        (["--learning-rate", "1e30", "--features", "userid"], "lower --learning-rate"),
        (["--own-experts", "2,3"], "--own-experts"),
        (["--tasks", "buy"], "--tasks buy is not in"),
        (["--task-weights", "1,2"], "--task-weights 1.0,2.0: give one weight"),
        (["--task-weights", "1,1,0,1"], "--task-weights takes a number, above 0, and 0.0 is none"),
        (["--resume"], "no stopped run"),
        (["--predict", "rows.csv"], "ple.keras is missing"),
    ],
)
def test_a_users_mistake_is_one_sentence_before_anything_is_written(
    flags, part, tiny_pickles, tmp_path
):
    folder = [] if flags[0] == "--user-data" else ["--user-data", tiny_pickles]
    before = sorted(tiny_pickles.iterdir())
    with pytest.raises(InputError) as refused:
        run_main("ple.py", *folder, *flags)
    assert part in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(path for path in tiny_pickles.iterdir() if path.name[0] != ".") == before
    if flags[0] == "--target":  # as a command
        run = script("ple.py", *folder, *flags, cwd=tmp_path, check=False)
        assert_one_sentence(run, part)


# ---- what else a run can be asked


def test_seven_tasks(small_pickles, tmp_path):
    flags = ("--user-data", small_pickles)
    weights = "4,3,2,1,1,1,1"
    words = ("--tasks", ",".join(ACTIONS), "--task-weights", weights, "--epochs", 1)
    run_main("mmoe.py", *flags, *words)
    row = results_of(small_pickles).iloc[-1]
    assert row.tasks == ",".join(ACTIONS) and row.auc_follow > 0
    header = (small_pickles / "mmoe_submission_b.csv").read_text().splitlines()[0]
    assert header == f"userid,feedid,{','.join(TASKS)},favorite,comment,follow"


def test_bars_are_shown_in_a_terminal_and_stdout_has_none(small_pickles, tmp_path):
    flags = ["--user-data", small_pickles, "--epochs", "2", "--verbose"]
    code, out, shown = in_terminal("deepfm.py", *flags, cwd=tmp_path)
    assert code == 0 and "epoch 1/2" in shown and "%" in shown
    assert "%|" not in out  # in a pipe stderr is empty, which many tests here ask for
    assert table(SimpleNamespace(stdout=out), "calibration", "deepfm --epochs 2") > 0


def test_quiet_leaves_the_last_line(small_pickles, capfd):
    deepfm.main(["--user-data", str(small_pickles), "--quiet"])
    shown = capfd.readouterr()
    assert LAST_LINE.fullmatch(shown.out.strip()) and "epoch" not in shown.err


def test_tensorboard_event_files_hold_the_curves(small_pickles, tmp_path):
    import tensorflow as tf

    flags = ("--user-data", small_pickles, "--tensorboard", "--epochs", 2)
    run_main("deepfm.py", *flags, "--target", "like")
    tags = []
    for file in (small_pickles / "tensorboard").rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags += [value.tag for value in event.summary.value]
    assert tags.count("epoch_loss") == 2 and tags.count("epoch_like_auc") == 2


def test_a_run_stopped_and_resumed_is_a_run_never_stopped(small_pickles, tmp_path):
    """Amid an epoch: test_experiment stops runs at the ends of epochs."""
    whole, stopped = (shutil.copytree(small_pickles, tmp_path / n) for n in ("whole", "stopped"))
    small = ["--epochs", "2", "--batch-size", "32", "--hidden", "16,8"]  # there is time to stop
    run_main("deepfm.py", "--user-data", whole, *small)
    words = ["deepfm.py", "--user-data", stopped, *small]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, ROOT / words[0], *words[1:]], cwd=tmp_path, **pipes)
    line = ""
    while not line.startswith("epoch 1/2"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
    time.sleep(0.3)  # a checkpoint is written, and the next epoch begins
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    told = r"stopped after step \d+ of epoch 2: the same command with --resume goes on .*\n"
    assert re.fullmatch(told, message), message
    assert not (stopped / "results.csv").exists()
    words.append("--resume")
    with pytest.raises(InputError, match="no stopped run of deepfm with these settings"):
        run_main(*words, "--hidden", "8,16")
    (weights,) = (stopped / ".checkpoints").rglob("*.npz")
    content = weights.read_bytes()
    weights.write_bytes(content[:5000])
    with pytest.raises(InputError, match=f"{weights.parent.name} is damaged"):
        run_main(*words)
    weights.write_bytes(content)
    assert "epoch 1/2" not in run_main(*words).stdout.splitlines()[1]
    assert not list((stopped / ".checkpoints").glob("*"))
    rows = [results_of(folder).iloc[0] for folder in (whole, stopped)]
    scores = [name for name in rows[0].index if name.startswith(("auc_", "uauc_", "logloss_"))]
    assert len(scores) >= 3
    assert rows[0][scores].tolist() == rows[1][scores].tolist()
    models = [keras.saving.load_model(folder / "deepfm.keras") for folder in (whole, stopped)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_projects_keras_settings_change_nothing(deepfm_run, tmp_path):
    flags = ("--user-data", deepfm_run, "--epochs", 2, "--name", "点赞")
    plain = epochs_of_deepfm(deepfm_run)
    (tmp_path / ".keras").mkdir()
    other = {"floatx": "float16", "backend": "torch", "image_data_format": "channels_first"}
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(other))
    world = os.environ | {
        "HOME": str(tmp_path),
        "KERAS_BACKEND": "jax",
        "MPLBACKEND": "nonsense",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONWARNINGS": "error",
    }
    run = script("deepfm.py", *flags, cwd=tmp_path, env=world)
    assert epochs(run) == plain and "> ??" in run.stdout
    assert "Traceback" not in run.stderr and "epoch" not in run.stderr  # but what libraries warn of


@pytest.mark.parametrize("streams", ["| head -1", ">&- 2>&- <&-"])
def test_where_what_is_printed_goes_changes_nothing(streams, small_pickles, tmp_path):
    words = [sys.executable, ROOT / "deepfm.py", "--user-data", small_pickles]
    words = f"{shlex.join(map(str, words))} {streams}"
    run = subprocess.run(words, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in run.stderr + run.stdout
    assert run.returncode == 0 and run.stderr == ""
    assert run.stdout.count("\n") == (1 if streams == "| head -1" else 0)
    assert len(results_of(small_pickles)) == 1
    assert (small_pickles / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    if streams == ">&- 2>&- <&-":
        refused = subprocess.run(words.replace("deepfm", "get_data"), shell=True, cwd=tmp_path)
        assert refused.returncode == 2
