"""The training run: batches, settings, and the four scripts as a user runs them."""
import json
import os
import pickle
import pty
import re
import shutil
import signal
import subprocess
import sys

import common.quiet  # noqa: F401
import numpy as np
import pandas as pd
import pytest
from conftest import KUAIRAND, ROOT, script

import mmoe
from common.columns import ACTIONS
from common.pickles import load, read, write_all
from common.scoring import auc, uauc, yardsticks
from common.command import parse
from common.training import batches

SCRIPTS = ["deepfm.py", "FocalLoss.py", "mmoe.py", "ple.py"]
TASKS = ["read_comment", "like", "click_avatar", "forward"]


def last_auc(run):
    """The AUC of the last line, whose form is part of what users rely on."""
    found = re.fullmatch(r"\w+ validation AUC: (\d\.\d{4})( \+- \d\.\d{4} \(\d+ runs\))?", run.stdout.splitlines()[-1])
    assert found, run.stdout
    return float(found[1])


def table(run, score, model, target="read_comment"):
    """A number of the printed table: the mean, where there are several runs."""
    lines = run.stdout.splitlines()
    header = re.split(r"  +", next(line for line in lines if line.startswith("validation")).strip())
    line = next(line for line in lines if re.match(rf"{score} +(> )?{re.escape(model)}  ", line))
    cells = re.findall(r"(?:\d\.\d{4}|n/a|-)(?: \+- \d\.\d{4})?(?=  |$)", line)
    return float(cells[header.index(target) - 2].split()[0])


@pytest.mark.parametrize("n_rows, batch_size", [(10, 3), (9, 3), (7, 7), (5, 1), (4, 100), (1, 1), (101, 100)])
def test_every_row_comes_and_all_batches_have_one_size(n_rows, batch_size):
    order = batches(n_rows, batch_size, np.random.default_rng(0))
    assert order.shape == (-(-n_rows // min(batch_size, n_rows)), min(batch_size, n_rows))
    assert set(order.ravel()) == set(range(n_rows)) and order.size - n_rows < batch_size
    assert len(set(order.ravel()[:n_rows])) == n_rows


def test_every_setting_is_a_flag_of_its_name_with_a_line_of_help(capsys):
    settings = parse(mmoe.Settings, "about", ["--expert-dim", "7", "--learning-rate", "0.5", "--runs", "2"])
    assert (settings.expert_dim, settings.learning_rate, settings.runs, settings.experts) == (7, 0.5, 2, mmoe.Settings().experts)
    with pytest.raises(SystemExit):
        parse(mmoe.Settings, "about", ["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in shown for name in vars(settings))



# ---- results


@pytest.fixture(scope="module")
def stand_in_pickles(stand_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand_in_pickles")
    script("get_data.py", stand_in, "--out", folder, cwd=folder)
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_on_the_stand_in_each_beats_the_users_past_rate(name, stand_in_pickles, tmp_path):
    run = script(name, "--user-data", stand_in_pickles, "--runs", 3, cwd=tmp_path)
    data = load(stand_in_pickles)
    past = yardsticks(data, ["read_comment"])["user's past rate"]["read_comment"]
    floor = auc(data.valid["read_comment"], past)
    assert last_auc(run) > floor > 0.92
    assert last_auc(run) == table(run, "AUC", name[:-3])
    assert table(run, "AUC", "user's past rate") == pytest.approx(floor, abs=6e-5) and table(run, "uAUC", "user's past rate") == 0.5
    assert table(run, "uAUC", name[:-3]) >= 0.6
    assert 0.94 < table(run, "AUC", "oracle") < 0.965 and table(run, "uAUC", "oracle") > table(run, "uAUC", name[:-3])
    assert "SYNTHETIC" in run.stdout and run.stderr == ""
    if name in ("mmoe.py", "ple.py"):
        assert 0.6 < table(run, "uAUC", name[:-3], "weighted uAUC") < table(run, "uAUC", "oracle", "weighted uAUC")
        assert all(0.5 < table(run, "AUC", name[:-3], task) < 1 for task in TASKS)


def test_users_past_rate_is_the_smoothed_rate_over_earlier_days(stand_in, stand_in_pickles):
    log, data = pd.read_csv(stand_in / "user_action.csv"), load(stand_in_pickles)
    train, valid = log[log.date_ < 14], log[log.date_ == 14]
    by_user = train.groupby("userid").read_comment.agg(["sum", "size"])
    rate = (by_user["sum"] + 20 * train.read_comment.mean()) / (by_user["size"] + 20)
    wanted = auc(valid.read_comment.to_numpy(), valid.userid.map(rate).fillna(train.read_comment.mean()).to_numpy())
    past = yardsticks(data, ["read_comment"])["user's past rate"]["read_comment"]
    assert auc(data.valid["read_comment"], past) == pytest.approx(wanted, abs=2e-4)  # statistics are kept in half precision
    assert uauc(data.valid["read_comment"], past, data.valid["user"]) == 0.5


@pytest.fixture(scope="module")
def real_pickles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kuairand")
    script("data/kuairand.py", KUAIRAND, folder / "csv", cwd=folder)
    script("get_data.py", folder / "csv", "--out", folder / "pickles", cwd=folder)
    return folder / "pickles"


@pytest.mark.parametrize("name", SCRIPTS if KUAIRAND.is_dir() else [])
def test_on_kuairand_each_reaches_what_known_libraries_get(name, real_pickles, tmp_path):
    run = script(name, "--user-data", real_pickles, cwd=tmp_path)
    assert last_auc(run) >= 0.785 and "SYNTHETIC" not in run.stdout
    assert "lacks" not in run.stdout and "--features" not in run.stdout  # what the data lacks is no choice of the user's


def test_features_that_were_asked_for_and_are_not_there_are_named(tiny_pickles, tmp_path):
    run = script("deepfm.py", "--user-data", tiny_pickles, "--features", "device,user_history,user_cooccurrence", cwd=tmp_path)
    assert "without user_cooccurrence, which this data lacks" in run.stdout


def test_shuffled_training_labels_bring_auc_to_a_half(stand_in_pickles, tmp_path):
    folder = tmp_path / "shuffled"
    shutil.copytree(stand_in_pickles, folder, ignore=shutil.ignore_patterns("results.csv"))
    train, rng = read(folder / "train.pkl"), np.random.default_rng(0)
    for task in TASKS:
        train[task] = rng.permutation(train[task])
    for key in ("user", "feed"):  # the statistics would still know the labels
        content = read(folder / f"{key}.pkl")
        content |= {name: np.zeros_like(column) for name, column in content.items() if name.endswith(("_history", "_watch_time", "_taste"))}
        write_all(folder, {f"{key}.pkl": content})
    write_all(folder, {"train.pkl": train})
    assert abs(last_auc(script("mmoe.py", "--user-data", folder, cwd=tmp_path)) - 0.5) < 0.05


# ---- behaviour


@pytest.mark.parametrize("name", ["deepfm.py", "ple.py"])
def test_same_seed_same_bytes_of_predictions_and_other_seed_another(name, tiny, tiny_pickles, tmp_path):
    found = []
    for seed in (4, 4, 5):
        flags = ("--user-data", tiny_pickles, "--epochs", 2, "--batch-size", 64, "--seed", seed)
        run = script(name, *flags, cwd=tmp_path)
        lines = [line for line in run.stdout.splitlines() if "AUC: " in line or line.startswith("epoch")]
        script(name, *flags[:2], "--predict", tiny / "test_a.csv", "--out", "scores.csv", cwd=tmp_path)
        assert len(lines) == 3
        found.append((re.sub(r"[\d,]+ rows/s", "", "\n".join(lines)), (tmp_path / "scores.csv").read_bytes()))
    assert found[0] == found[1] and found[0][0] != found[2][0] and found[0][1] != found[2][1]


def test_several_runs_take_the_next_seeds_and_print_their_spread(tiny_pickles, tmp_path):
    flags = ("--user-data", tiny_pickles, "--batch-size", 256)
    single = [last_auc(script("mmoe.py", *flags, "--seed", seed, cwd=tmp_path)) for seed in (1, 2)]
    run = script("mmoe.py", *flags, "--seed", 1, "--runs", 2, cwd=tmp_path)
    assert run.stdout.splitlines()[-1].endswith("(2 runs)") and last_auc(run) == pytest.approx(np.mean(single), abs=1.1e-4)


def test_focal_loss_of_gamma_0_without_annealing_is_deepfm(tiny_pickles, tmp_path):
    flags = ("--user-data", tiny_pickles, "--epochs", 2, "--batch-size", 128)
    plain = script("deepfm.py", *flags, cwd=tmp_path).stdout
    focal = script("FocalLoss.py", *flags, "--gamma", 0, "--cycles", "", cwd=tmp_path).stdout
    strip = lambda text: [re.sub(r"[\d,]+ rows/s", "", line) for line in text.splitlines() if line.startswith("epoch")]
    assert len(strip(plain)) == 2 and strip(plain) == strip(focal)
    assert strip(script("FocalLoss.py", *flags, "--gamma", 0, "--cycles", "2", cwd=tmp_path).stdout) != strip(plain)


def test_focal_scores_are_mapped_to_probabilities_without_a_change_of_ranking(tiny_pickles, tmp_path):
    folder = shutil.copytree(tiny_pickles, tmp_path / "data")
    for flags in ((), ("--raw-scores",)):
        script("FocalLoss.py", "--user-data", folder, "--gamma", 2, *flags, cwd=tmp_path)
    mapped, raw = pd.read_csv(folder / "results.csv").tail(2).to_dict("records")
    assert mapped["auc_read_comment"] == pytest.approx(raw["auc_read_comment"], abs=1e-4)
    assert mapped["logloss_read_comment"] < raw["logloss_read_comment"]
    assert abs(np.log(mapped["calibration_read_comment"])) < abs(np.log(raw["calibration_read_comment"]))


def test_a_second_epoch_has_new_embeddings_and_does_not_learn_rows_by_heart(stand_in_pickles, tmp_path):
    folder = shutil.copytree(stand_in_pickles, tmp_path / "data")
    for flags in ((), ("--keep-embeddings",)):
        script("mmoe.py", "--user-data", folder, "--epochs", 3, "--embedding-l2", 0, *flags, cwd=tmp_path)
    kept = pd.read_csv(folder / "results.csv").tail(2)
    anew, same = (np.mean(list(json.loads(curves).values()), axis=0) for curves in kept["auc_by_epoch"])  # AUC by epoch
    assert anew.shape == (3,) and anew[0] == same[0]
    assert anew[2] > anew[0] - 0.003 and anew[2] > same[2]
    assert [json.loads(curves)["read_comment"][-1] for curves in kept["auc_by_epoch"]] == pytest.approx(list(kept["auc_read_comment"]), abs=1e-6)


def test_two_and_three_own_experts_and_two_levels_run(tiny_pickles, tmp_path):
    run = script("ple.py", "--user-data", tiny_pickles, "--own-experts", "2,3,1,2", "--shared-experts", 2, "--levels", 2, cwd=tmp_path)
    assert 0.5 < last_auc(run) < 1


@pytest.mark.parametrize("batch_size", [1, 7, 10**7])
def test_any_batch_size_trains(batch_size, tiny_pickles, tmp_path):
    folder = tmp_path / "few"
    shutil.copytree(tiny_pickles, folder)
    for split in ("train", "valid"):
        rows = read(folder / f"{split}.pkl")
        few = {name: column if name == "stamp" else column[:400] for name, column in rows.items()}
        write_all(folder, {f"{split}.pkl": few})
    script("mmoe.py", "--user-data", folder, "--batch-size", batch_size, cwd=tmp_path)


@pytest.mark.parametrize("rate", [1e-6, 1])
def test_learning_rates_from_tiny_to_huge_train(rate, tiny_pickles, tmp_path):
    run = script("FocalLoss.py", "--user-data", tiny_pickles, "--learning-rate", rate, cwd=tmp_path)
    assert 0.3 < last_auc(run) < 1


def test_a_task_without_positives_on_the_validation_day_is_not_available(tiny_pickles, tmp_path):
    folder = tmp_path / "pickles"
    shutil.copytree(tiny_pickles, folder, ignore=shutil.ignore_patterns("results.csv", "*.png", "*.keras", "*_submission_*"))
    valid = read(folder / "valid.pkl")
    valid["read_comment"] = np.zeros_like(valid["read_comment"])
    write_all(folder, {"valid.pkl": valid})
    run = script("mmoe.py", "--user-data", folder, "--runs", 2, cwd=tmp_path)
    last = run.stdout.splitlines()[-1]
    assert last == "read_comment validation AUC: n/a (2 runs)" and not run.stderr
    assert "read_comment auc n/a" in run.stdout and "nan" not in run.stdout
    assert np.isnan(pd.read_csv(folder / "results.csv")[["auc_read_comment", "uauc_read_comment", "weighted_uauc"]].to_numpy()).all()
    assert {"mmoe.png", "comparison.png", "mmoe.keras", "mmoe_submission_a.csv"} <= {path.name for path in folder.iterdir()}


def test_target_is_another_task(tiny_pickles, tmp_path):
    run = script("deepfm.py", "--user-data", tiny_pickles, "--target", "like", cwd=tmp_path)
    assert run.stdout.splitlines()[-1].startswith("like validation AUC: ")


@pytest.mark.parametrize("flags, sentence", [
    (["--user-data", "nowhere"], "nowhere/meta.pkl is missing: run `python get_data.py` first."),
    (["--target", "buy"], "--target buy is no task"),
    (["--features", "price"], "it has userid, device"),
    (["--learning-rate", "1e30"], "lower --learning-rate"),
    (["--own-experts", "2,3"], "--own-experts 2,3 names 2 tasks and there are 4"),
    (["--epochs", "0"], "--epochs must be at least 1"),
    (["--learning-rat", "1"], "did you mean --learning-rate?"),
    (["--tasks", "buy"], "--tasks buy is no task"),
    (["--task-weights", "1,2"], "--task-weights gives 2 weights for the tasks read_comment, like"),
    (["--own-experts", "two"], "'two' is no list of numbers"),
])
def test_a_users_mistake_is_one_sentence_and_exit_code_2(flags, sentence, tiny_pickles, tmp_path):
    given = [] if flags[0] == "--user-data" else ["--user-data", tiny_pickles]
    run = script("ple.py", *given, *flags, cwd=tmp_path, check=False)
    assert run.returncode == 2 and sentence in run.stderr and run.stderr.count("\n") == 1


# ---- what else a run can be asked


def test_seven_tasks_and_their_weights_in_the_loss(tiny_pickles, tmp_path):
    flags, every = ("--user-data", tiny_pickles, "--batch-size", 256), ",".join(ACTIONS)
    script("mmoe.py", *flags, "--tasks", every, cwd=tmp_path)
    rows = pd.read_csv(tiny_pickles / "results.csv")
    assert rows.tasks.iloc[-1] == every and rows.auc_follow.iloc[-1] > 0
    header = (tiny_pickles / "mmoe_submission_b.csv").read_text().splitlines()[0]
    assert header == "userid,feedid,read_comment,like,click_avatar,forward,favorite,comment,follow"
    few = ("--tasks", "like,forward", "--target", "like", "--learning-rate", 0.01)
    both = script("mmoe.py", *flags, *few, cwd=tmp_path), script("mmoe.py", *flags, *few, "--task-weights", "0,1", cwd=tmp_path)
    assert last_auc(both[0]) > last_auc(both[1])  # of weight 0 nothing is learned but what forward teaches


def test_quiet_leaves_the_last_line(tiny_pickles, tmp_path):
    run = script("deepfm.py", "--user-data", tiny_pickles, "--quiet", cwd=tmp_path)
    assert run.stdout.count("\n") == 1 and last_auc(run) > 0.5 and run.stderr == ""


def test_no_bar_in_a_log_file_and_one_in_a_terminal(tiny_pickles, tmp_path):
    flags = ["--user-data", str(tiny_pickles), "--epochs", "2"]
    run = script("deepfm.py", *flags, cwd=tmp_path)
    assert run.stderr == "" and "\r" not in run.stdout and "%" not in re.sub(r"positive rate.*", "", run.stdout)
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, ROOT / "deepfm.py", *flags], stdout=subprocess.PIPE, stderr=slave, cwd=tmp_path)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert process.wait() == 0 and b"epoch 1/2" in seen and b"%" in seen
    os.close(master)


def test_tensorboard_event_files_hold_the_curves(tiny_pickles, tmp_path):
    import tensorflow as tf

    folder = tmp_path / "with_events"
    shutil.copytree(tiny_pickles, folder)
    script("mmoe.py", "--user-data", folder, "--tensorboard", "--epochs", 2, cwd=tmp_path)
    (file,) = (folder / "tensorboard").rglob("events*")
    events = [value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value]
    assert events.count("like auc") == 2 and events.count("loss") >= 2


@pytest.mark.parametrize("name, flags", [("mmoe.py", ()), ("deepfm.py", ("--target", "all", "--tasks", "read_comment,like"))])
def test_a_run_stopped_by_ctrl_c_and_resumed_is_a_run_never_stopped(name, flags, tiny_pickles, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        shutil.copytree(tiny_pickles, folder, ignore=shutil.ignore_patterns("results.csv"))
    flags = [*flags, "--epochs", 2, "--batch-size", 64, "--embedding-dim", 4]  # small steps: there is time to stop between them
    script(name, "--user-data", whole, *flags, cwd=tmp_path)
    command = [sys.executable, ROOT / name, "--user-data", stopped, *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    line = ""
    while not line.startswith("epoch 1/2"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and re.fullmatch(r"stopped after .*: the same command with --resume goes on from there\.\n", message)
    assert not (stopped / "results.csv").exists() and list((stopped / ".checkpoints").glob("*.pkl"))
    run = script(name, "--user-data", stopped, *flags, "--resume", cwd=tmp_path)
    assert "epoch 1/2" not in run.stdout.splitlines()[1] and not list((stopped / ".checkpoints").glob("*.pkl"))
    rows = [pd.read_csv(folder / "results.csv").iloc[0] for folder in (whole, stopped)]
    metrics = [column for column in rows[0].index if column.startswith(("auc_", "uauc_", "logloss_"))]
    assert len(metrics) >= 6 and rows[0][metrics].tolist() == rows[1][metrics].tolist()


def test_resume_refuses_a_run_of_other_settings_and_none_at_all(tiny_pickles, tmp_path):
    folder = tmp_path / "pickles"
    shutil.copytree(tiny_pickles, folder)
    run = script("mmoe.py", "--user-data", folder, "--resume", cwd=tmp_path, check=False)
    assert run.returncode == 2 and "there is no stopped run" in run.stderr
    (folder / ".checkpoints").mkdir(exist_ok=True)
    write_all(folder / ".checkpoints", {"mmoe-0.pkl": {"of": "another", "course": "{}", "state": []}})
    run = script("mmoe.py", "--user-data", folder, "--resume", cwd=tmp_path, check=False)
    assert run.returncode == 2 and "other settings" in run.stderr


# ---- several devices


ON_TWO_DEVICES = """
import sys
import common.quiet, common.training as training, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
training.strategy = lambda batch_size: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
import mmoe as script
script.main(sys.argv[1:])
"""


@pytest.mark.parametrize("flags, tolerance", [("--dropout 0 --embedding-l2 0.001 --batch-size 2047 --epochs 2", 0.0005), ("", 0.003)])
def test_two_devices_learn_what_one_does(flags, tolerance, stand_in, stand_in_pickles, tmp_path):
    """Two logical processors under MirroredStrategy, as several GPUs are used: the same batches, each halved, if it has to be unevenly."""
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        shutil.copytree(stand_in_pickles, place)
    flags = flags.split()
    alone = script("mmoe.py", "--user-data", one, *flags, cwd=tmp_path)
    both = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, "--user-data", two, *flags], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert both.returncode == 0, both.stderr
    assert last_auc(both) == pytest.approx(last_auc(alone), abs=tolerance)
    for one_loss, loss in zip(*(map(float, re.findall(r"loss (\d\.\d+)", run.stdout)) for run in (alone, both)), strict=True):
        assert loss == pytest.approx(one_loss, rel=tolerance)
    script("mmoe.py", "--user-data", two, "--predict", stand_in / "test_a.csv", cwd=tmp_path)  # what was saved loads on one device


# ---- a data set that get_data.py never saw


def test_a_foreign_table_written_by_the_contract_runs(tmp_path):
    """Advertisements: other columns, two tasks of its own, no lists, no tables, no users, no days."""
    rng = np.random.default_rng(0)

    def rows(n):
        site, ad, price = rng.integers(2, 12, n), rng.integers(2, 22, n), rng.normal(size=n)
        p = 1 / (1 + np.exp(-(0.6 * (site % 4) + 0.4 * (ad % 3) + 0.5 * price - 3)))
        clicked = rng.random(n) < p
        return {
            "site": site.astype(np.int32), "ad": ad.astype(np.int32), "price": price.astype(np.float32),
            "click": clicked.astype(np.uint8), "buy": (clicked & (rng.random(n) < 0.3)).astype(np.uint8), "stamp": "ads of May",
        }

    meta = {
        "version": 2, "stamp": "ads of May", "name": "advertisements", "synthetic": False, "tasks": {"click": 2, "buy": 1},
        "group": None, "tables": [], "valid_day": 0, "vocabularies": {"site": 12, "ad": 22},
        "features": {
            "site": {"kind": "id", "table": None, "vocabulary": "site"}, "ad": {"kind": "id", "table": None, "vocabulary": "ad"},
            "price": {"kind": "dense", "table": None, "daily": False},
        },
    }
    for name, content in {"meta": meta, "train": rows(20000), "valid": rows(4000)}.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
    for name in SCRIPTS:
        flags = ("--user-data", tmp_path, "--features", "site,ad,price", "--target", "click", "--batch-size", 64)
        assert last_auc(script(name, *flags, cwd=tmp_path)) > 0.65
    pd.DataFrame({"site": [2, 3], "ad": [4, 5], "price": [0.5, -1.0]}).to_csv(tmp_path / "rows.csv", index=False)
    script("mmoe.py", "--user-data", tmp_path, "--predict", tmp_path / "rows.csv", "--out", tmp_path / "out.csv", cwd=tmp_path)
    assert pd.read_csv(tmp_path / "out.csv")[["click", "buy"]].gt(0).all(axis=None)
