"""Which epoch is kept, how many there are, the level, and rows scored once at the end."""

import errno
import json
import os
import signal
from dataclasses import replace

import deepfm
import FocalLoss
import mmoe
from common import callbacks, contract, results, resume
from common.callbacks import TrainingLog
from common.command import STOPS, InputError, Stopped
from common.contract import load
from common.pickles import read, write_all
from common.resume import BestEpoch, Resume
from common.scores import mean_auc

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from small_data import data_of

FAST = ["--hidden", "8", "--experts", "2", "--expert-dim", "4"]


class Scripted(keras.callbacks.Callback):
    """Gives each epoch its AUC from a list, and the model a weight that says which epoch it is."""

    def __init__(self, aucs, log):
        super().__init__()
        self.aucs = aucs
        self.log = log

    def on_epoch_end(self, epoch, logs=None):
        self.model.set_weights([np.full_like(w, epoch) for w in self.model.get_weights()])
        self.log.scores.append((epoch + 1, {"task": {"auc": self.aucs[epoch]}}))
        logs["val_auc"] = mean_auc(self.log.scores[-1][1])


def epoch_kept(aucs, patience, folder, log, begin=0):
    """The epoch whose weights a model has after `fit`, what the log says, and the epochs run."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    callbacks = [Scripted(aucs, log), BestEpoch(patience, log, folder)]
    x = np.zeros((4, 1))
    model.set_weights([np.full_like(w, begin - 1) for w in model.get_weights()])
    options = {"epochs": len(aucs), "initial_epoch": begin, "verbose": 0}
    model.fit(x, x, callbacks=callbacks, **options)
    return int(model.get_weights()[0].max()), log.kept, len(log.scores)


@pytest.mark.parametrize("seed", range(8))
def test_patience_keeps_the_best_epoch_of_an_obvious_loop_stopped_or_not(seed, tmp_path):
    rng = np.random.default_rng(seed)
    aucs = rng.random(rng.integers(2, 12)).round(1).tolist()
    patience = int(rng.integers(1, 4))
    best, run = 0, 0
    for epoch, auc in enumerate(aucs):
        best = epoch if auc > aucs[best] else best
        run = epoch + 1
        if epoch - best >= patience:
            break
    for stop in (0, *range(2, run)):
        log = TrainingLog(data_of(), "like")
        if stop:
            epoch_kept(aucs[:stop], patience, tmp_path / str(stop), log)
        found = epoch_kept(aucs, patience, tmp_path / str(stop), log, begin=stop)
        assert found == (best, best + 1, run), stop


def test_patience_needs_a_day_that_validates_and_two_classes(tmp_path):
    data = data_of()
    with pytest.raises(InputError, match="--patience: the validation rows are of one class"):
        epoch_kept([float("nan")] * 2, 1, tmp_path, TrainingLog(data, "like"))
    data.valid = {}
    settings = mmoe.Settings(user_data=str(tmp_path), epochs=3, patience=1, quiet=True)
    with pytest.raises(InputError, match="--patience needs a day that validates"):
        mmoe.train(mmoe.compiled_model(data, list(data.tasks), settings), data, settings, seed=0)


def test_with_patience_the_scores_and_the_saved_model_are_of_the_best_epoch(small_pickles, capsys):
    place = ["--user-data", str(small_pickles)]
    flags = ["--learning-rate", "0.02", "--patience", "1", "--tasks", "read_comment", "--runs", "2"]
    result = mmoe.main([*place, *FAST, *flags, "--features", "device,user_history"])  # few ids
    *rows, _ = pd.read_csv(small_pickles / "results.csv").to_dict("records")
    curves = [json.loads(row["auc_by_epoch"])["read_comment"] for row in rows]
    by_epoch = curves[-1]
    assert 1 < len(by_epoch) < 8 and max(by_epoch) > by_epoch[-1]
    assert {json.loads(row["settings"])["epochs"] for row in rows} == {8}  # as the data chose
    model = f"mmoe {rows[0]['changed']}"
    n_runs = results.load(small_pickles, rows[0]["fingerprint"]).groupby("model")["seed"].nunique()
    assert n_runs.to_dict() == {model: 2, f"{model} mean of 2 runs": 1}
    assert result.scores[-1]["read_comment"]["auc"] == pytest.approx(max(by_epoch), abs=1e-6)
    assert f"epoch {np.argmax(by_epoch) + 1} is kept" in capsys.readouterr().out
    data = load(small_pickles)
    auc = roc_auc_score(data.valid["read_comment"], result.model.logits(data.valid)["read_comment"])
    assert auc == pytest.approx(max(by_epoch), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_an_intercept_makes_the_mean_probability_what_it_shall_be(seed):
    rng = np.random.default_rng(seed)
    middle, spread, log_odds = rng.uniform(-9, 9), 10 ** rng.uniform(-3, 2), rng.uniform(-9, 9)
    logits = rng.normal(middle, spread, 2000).astype(np.float32) if seed else np.ones(3)

    def surplus(b):
        return np.mean(expit(logits.astype(np.float64) + b)) - expit(log_odds)

    wanted = brentq(surplus, -1000, 1000, xtol=1e-9)
    assert callbacks.intercept(logits, log_odds) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    "module, changes", [(FocalLoss, {"hidden": (8,), "gamma": 2.0}), (mmoe, {"experts": 2})]
)
def test_after_training_the_mean_prediction_is_the_share_of_positives(
    module, changes, monkeypatch, tmp_path
):
    """At a rate whose last steps leave it elsewhere; no step and no ranking changes."""
    data = data_of(n_rows=3000)
    common = {"user_data": str(tmp_path), "epochs": 2, "quiet": True}
    settings = module.Settings(learning_rate=0.05, batch_size=100, **common, **changes)
    tasks = [*data.tasks][: 1 if module is FocalLoss else 2]
    model = module.compiled_model(data, tasks, settings)
    found = []
    for on in (True, False):
        if not on:
            monkeypatch.setattr(callbacks.CalibratedIntercepts, "on_epoch_end", lambda *_: None)
        log = module.train(model, data, settings, seed=1)
        found.append((model.logits(data.train), [w.numpy() for w in model.trainable_variables]))
        surplus = [abs(np.log(log.final_scores[task]["calibration"])) for task in tasks]
        assert (max(surplus) < 1e-3) == on
    for task in tasks:
        with_it, without = (logits[task].astype(np.float64) for logits, _ in found)
        np.testing.assert_allclose(with_it - without, np.mean(with_it - without), atol=2e-6)
    for one, other in zip(*(weights for _, weights in found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_sample_is_of_rows_at_random(monkeypatch):
    data = data_of(n_rows=2000)
    data.train["price"] = np.arange(2000)
    assert len(data.sample["price"]) == 2000
    del data.sample
    monkeypatch.setattr(contract, "MANY", 500)
    rows = data.sample["price"]
    assert len(np.unique(rows)) == 500
    for name, column in data.sample.items():
        np.testing.assert_array_equal(column, data.train[name][rows])
    assert [np.mean(rows < 1000), np.mean(rows % 2)] == pytest.approx([0.5, 0.5], abs=0.1)


@pytest.mark.parametrize("epochs, patience", [(1, 0), (3, 2)])
def test_a_run_stopped_at_the_end_of_each_epoch_is_a_run_never_stopped(
    epochs, patience, small_pickles, monkeypatch
):
    data = load(small_pickles)
    data.choose()
    data.valid = {name: column[:500] for name, column in data.valid.items() if name != "stamp"}
    shared = {"epochs": epochs, "patience": patience, "batch_size": 4096, "hidden": (8,)}
    settings = deepfm.Settings(
        user_data=str(small_pickles), learning_rate=0.05, quiet=True, **shared
    )
    model = deepfm.compiled_model(data, ["like"], settings)
    for module in (callbacks, resume):  # so that the last epoch is not the best
        monkeypatch.setattr(module, "mean_auc", lambda scores: 1 - mean_auc(scores))
    whole = deepfm.train(model, data, settings, seed=0)
    weights = [weight.copy() for weight in model.get_weights()]
    assert len(whole.scores) == epochs
    going_on = replace(settings, resume=True)
    assert not patience or whole.kept < epochs
    for epoch in range(1, epochs + 1):
        with monkeypatch.context() as patch, pytest.raises(Stopped, match=f"after epoch {epoch}:"):
            patch.setattr(Resume, "on_train_batch_begin", lambda self, *_, **__: self.ask())
            deepfm.train(model, data, settings if epoch == 1 else going_on, seed=0)
    log = deepfm.train(model, data, going_on, seed=0)
    assert json.loads(json.dumps(whole.scores)) == json.loads(json.dumps(log.scores))
    assert log.kept == whole.kept
    for found, wanted in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, wanted)
    more = model.fit(model.batches(data.train, 4096, 1), verbose=0, shuffle=False)
    assert more.epoch == [0]  # a `fit` of one's own begins at its beginning


def test_a_checkpoint_damaged_anywhere_is_read_as_it_was_or_refused(tmp_path):
    path = tmp_path / "latest.npz"
    arrays = [np.arange(6.0).reshape(2, 3), np.int64(3), np.zeros(0, np.uint8)]
    resume.write_arrays(path, arrays)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        for content in (damaged, whole[:place]):
            path.write_bytes(content)
            try:
                for found, wanted in zip(resume.read_arrays(path, arrays), arrays, strict=True):
                    np.testing.assert_array_equal(found, wanted)
            except InputError as error:
                refused += 1
                assert str(error).startswith(f"{tmp_path} is damaged: ")
    assert refused > len(whole)


def test_a_checkpoint_that_cannot_be_removed_ends_the_run_before_it_begins(small_pickles, tmp_path):
    data = load(small_pickles)
    settings = deepfm.Settings(user_data=str(tmp_path), quiet=True)
    of_run = (data, settings, ["like"], 0)
    folder = resume.checkpoint_folder(*of_run)
    folder.mkdir(parents=True)
    (folder / "latest.npz").write_bytes(b"of a run before")

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rmdir", refuse)
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(PermissionError):
            Resume(*of_run, log=None)
    Resume(*of_run, log=None)
    assert not folder.exists()


def test_whatever_ends_training_ctrl_c_does_what_it_did_before(small_pickles):
    data = load(small_pickles)
    data.choose()
    handlers = [signal.getsignal(number) for number in STOPS]
    shared = {"user_data": str(small_pickles), "batch_size": 4096, "hidden": (8,), "quiet": True}
    settings = deepfm.Settings(**shared, epochs=1, patience=1)
    model = deepfm.compiled_model(data, ["like"], settings)
    with pytest.raises(InputError, match="--patience chooses among epochs"):
        deepfm.train(model, data, settings, seed=0)
    assert [signal.getsignal(number) for number in STOPS] == handlers


@pytest.mark.parametrize(
    "n_ids, size, epochs",  # of 20,000 rows, with the bounds of DeepFM, MMOE and FocalLoss
    [
        (12, 1024, (8, 8, 8)),  # few ids, a short epoch
        (12, 50, (3, 3, 3)),  # few ids, an epoch of 400 steps
        (12, 8, (1, 1, 2)),
        (100, 1024, (1, 2, 2)),  # 200 rows an id
        (100, 20, (1, 1, 2)),  # an epoch of 1000 steps
    ],
)
def test_the_number_of_epochs_fits_the_data(n_ids, size, epochs):
    data = data_of("userid", n_rows=20_000)
    data.meta["vocabularies"]["userid"] = n_ids
    bounds = ({}, {"at_most": 2}, {"at_least": 2})
    assert tuple(data.usual_epochs(size, **bound) for bound in bounds) == epochs
    assert data.has_few_ids == (n_ids == 12)


def test_rows_of_test_pkl_are_scored_at_the_end_and_stand_in_table_and_results(
    small_pickles, capsys
):
    valid = read(small_pickles / "valid.pkl")
    half = {k: v if k == "stamp" else v[::2] for k, v in valid.items()}
    write_all(small_pickles, {"test.pkl": half})
    result = mmoe.main(["--user-data", str(small_pickles), *FAST, "--runs", "2"])
    shown = capsys.readouterr().out
    data = load(small_pickles)
    auc = roc_auc_score(half["like"], result.model.logits(data.test)["like"])
    assert result.scores[1]["like"]["testauc"] == pytest.approx(auc)
    rows = pd.read_csv(small_pickles / "results.csv")
    assert rows["testauc_like"][1] == pytest.approx(auc)
    assert len(rows) == 3 and rows["testuauc_like"].notna().all()  # two runs and their mean
    (heads,) = (line.split() for line in shown.splitlines() if line.startswith("validation"))
    lines = [line for line in shown.splitlines() if line.startswith("test AUC")]
    assert any("oracle" in line for line in lines)
    own = next(line for line in lines if "> mmoe" in line)
    mean = rows["testauc_like"][:2].mean()
    assert f"{mean:.4f}" in own and heads.index("like")


def test_a_test_split_without_labels_is_refused(tiny_pickles):
    valid = read(tiny_pickles / "valid.pkl")
    meta = load(tiny_pickles).meta
    for lost in ({"like"}, {*meta["tasks"], *meta["more_tasks"]}):
        write_all(tiny_pickles, {"test.pkl": {k: v for k, v in valid.items() if k not in lost}})
        with pytest.raises(InputError, match=r"test\.pkl: column \w+ must be there"):
            load(tiny_pickles)


def test_the_line_of_an_epoch_shows_the_task_of_the_last_line():
    data = data_of()
    data.tasks = dict.fromkeys(["like", "read_comment"], 1)
    assert TrainingLog(data, "").target == data.first_task == "read_comment"
    assert TrainingLog(data, "like").target == "like"
