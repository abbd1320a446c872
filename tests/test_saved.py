"""What a run keeps: the model, its predictions and export, the submissions and their checker."""
import json
import subprocess
import sys

import common.quiet  # noqa: F401
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, script

from common.columns import FINAL_ROUND_WEIGHTS, TASK_WEIGHTS, TASKS
from common.pickles import InputError, load, read
from common.scoring import uauc
from common.submission import check, official_score, write

SMALL = ("--batch-size", 512, "--embedding-dim", 4)


@pytest.fixture(scope="module")
def kept(tiny_pickles):
    """The folder in which each script has run once."""
    for name, flags in (("mmoe.py", ()), ("ple.py", ()), ("deepfm.py", ("--target", "all")), ("FocalLoss.py", ("--epochs", 1))):
        script(name, "--user-data", tiny_pickles, *SMALL, *flags, cwd=tiny_pickles)
    return tiny_pickles


def python(code, cwd):
    """What a fresh process prints."""
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, env=None)
    assert run.returncode == 0, run.stderr
    return run.stdout


# ---- submissions


@pytest.mark.parametrize("model", ["mmoe", "ple", "deepfm"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_submission_has_the_contests_format_and_every_test_row_in_order(kept, tiny, model, which):
    path, test = kept / f"{model}_submission_{which}.csv", pd.read_csv(tiny / f"test_{which}.csv")
    columns = check(path, tiny / f"test_{which}.csv")
    assert tuple(columns)[2:] == TASKS and np.array_equal(columns["feedid"], test.feedid) and len(test) > 100
    assert path.read_text().splitlines()[0] == "userid,feedid,read_comment,like,click_avatar,forward"
    assert all(0 < columns[task].mean() < 0.2 and columns[task].std() > 0 for task in TASKS)


def test_a_single_task_makes_no_submission(kept):
    assert not (kept / "FocalLoss_submission_a.csv").exists() and (kept / "FocalLoss.keras").exists()


def test_submission_is_what_the_trained_network_says_of_the_test_day(kept, tiny):
    """The saved model agrees with a FeatureEmbedding that looks the rows' own day up, on rows of the validation day."""
    code = f"""
import mmoe, numpy as np
from common import saved
from common.embedding import FeatureEmbedding
from common.pickles import known, load, read
import keras
data = load({str(kept)!r})
whole = saved.load({str(kept / 'mmoe.keras')!r})
test = read({str(kept / 'test_a.pkl')!r})
embed = FeatureEmbedding.of(data, known(mmoe.FEATURES, data.meta).split(","), 4)
kept = next(layer for layer in whole.layers if isinstance(layer, FeatureEmbedding))
network = next(layer for layer in whole.layers if isinstance(layer, keras.Model))
embed.table.assign(kept.table)
logits = network(list(embed({{name: test[name] for name in embed.spec["inputs"]}})))
assert "day" in embed.spec["inputs"] and "day" not in kept.spec["inputs"]
print(" ".join(f"{{p:.6f}}" for p in 1 / (1 + np.exp(-logits["like"].numpy()[:, 0].astype(float)))))
"""
    slow = np.array(python(code, ROOT).split(), float)
    np.testing.assert_allclose(check(kept / "mmoe_submission_a.csv", tiny / "test_a.csv")["like"], slow, atol=2e-6)


@pytest.fixture
def submission(tmp_path):
    """A small right submission and its test file."""
    rng = np.random.default_rng(0)
    test = pd.DataFrame({"userid": rng.integers(1, 9, 50), "feedid": rng.integers(1, 99, 50), "device": 1})
    test.to_csv(tmp_path / "test.csv", index=False)
    write(tmp_path / "right.csv", test.userid, test.feedid, {task: rng.random(50) for task in TASKS})
    return tmp_path


def test_official_score_is_the_weighted_uauc(submission):
    columns, rng = check(submission / "right.csv", submission / "test.csv"), np.random.default_rng(1)
    labels = {task: rng.integers(0, 2, 50) for task in TASKS}
    found, score = official_score(columns, labels)
    by_hand = [uauc(labels[task], columns[task], columns["userid"]) for task in TASKS]
    assert list(found.values()) == by_hand and score == pytest.approx(np.dot(by_hand, [4, 3, 2, 1]) / 10)
    seven = {**columns, **{task: rng.random(50) for task in ("favorite", "comment", "follow")}}
    labels |= {task: rng.integers(0, 2, 50) for task in ("favorite", "comment", "follow")}
    found, score = official_score(seven, labels)
    assert score == pytest.approx(np.dot(list(found.values()), list(FINAL_ROUND_WEIGHTS.values())) / 13) and len(found) == 7


def test_the_checker_is_a_command(submission):
    labels = pd.read_csv(submission / "test.csv").drop(columns="device")
    for task in TASK_WEIGHTS:
        labels[task] = np.random.default_rng(2).integers(0, 2, 50)
    labels.to_csv(submission / "labels.csv", index=False)
    command = [sys.executable, "-m", "common.submission", *(submission / name for name in ("right.csv", "test.csv", "labels.csv"))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "50 rows in the contest's format" in run.stdout and "score 0." in run.stdout
    run = subprocess.run([*command[:4], submission / "nowhere.csv"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr == f"{submission}/nowhere.csv does not exist: give the path of a CSV.\n"


@pytest.mark.parametrize("wrong, sentence", [
    (lambda lines: lines[:-1], "has 49 rows"),
    (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2: it is not of user"),
    (lambda lines: [lines[0].replace("like,", "likes,"), *lines[1:]], "the header must be"),
    (lambda lines: [*lines[:-1], lines[-1][:-1]], "line 51: 4 probabilities of 6 decimals"),
    (lambda lines: [*lines[:-1], lines[-1].rsplit(",", 1)[0] + ",1.500000"], "line 51: 4 probabilities"),
    (lambda lines: [*lines[:-1], lines[-1].rsplit(",", 1)[0] + ",nan"], "line 51: 4 probabilities"),
])
def test_the_checker_finds_what_the_contest_would_refuse(submission, wrong, sentence):
    lines = (submission / "right.csv").read_text().splitlines()
    (submission / "wrong.csv").write_text("\n".join(wrong(lines)) + "\n")
    with pytest.raises(InputError, match=sentence):
        check(submission / "wrong.csv", submission / "test.csv")


# ---- the saved model


@pytest.mark.parametrize("name", ["deepfm", "mmoe", "ple", "FocalLoss"])
def test_predict_scores_a_csv_with_the_saved_model_and_knows_no_id(kept, tiny, tmp_path, name):
    rows = pd.concat([pd.read_csv(tiny / "test_a.csv"), pd.DataFrame({"userid": [1, 2**31 - 1], "feedid": [2**31 - 1, 0], "device": [7, 1]})])
    rows.to_csv(tmp_path / "rows.csv", index=False)
    run = script(f"{name}.py", "--user-data", kept, "--predict", tmp_path / "rows.csv", "--out", tmp_path / "out.csv", cwd=tmp_path)
    found = pd.read_csv(tmp_path / "out.csv")
    assert list(found.columns[:3]) == ["userid", "feedid", "device"]
    assert f"{len(rows):,} rows" in run.stdout and np.array_equal(found[["userid", "feedid"]], rows[["userid", "feedid"]])
    tasks = ["read_comment"] if name == "FocalLoss" else list(TASKS)
    assert np.isfinite(found[tasks].to_numpy()).all() and ((found[tasks] > 0) & (found[tasks] < 1)).all(axis=None)
    if name != "FocalLoss":
        submitted = pd.read_csv(kept / f"{name}_submission_a.csv")
        np.testing.assert_allclose(found[:-2][tasks], submitted[tasks], atol=2e-6)


def test_the_saved_model_loads_after_one_import(kept):
    code = f"""
import mmoe, keras, numpy as np
model = keras.saving.load_model({str(kept / 'mmoe.keras')!r})
rows = {{name: np.array([3, 4]) for name in ("userid", "feedid", "device")}}
print({{task: p.shape for task, p in model.predict(rows, verbose=0).items()}})
"""
    assert eval(python(code, ROOT)) == {task: (2,) for task in TASKS}


@pytest.mark.parametrize("name", ["mmoe", "deepfm"])
def test_export_writes_a_saved_model_that_needs_no_code_of_ours(kept, tiny, tmp_path, name):
    for version in (1, 2):
        script(f"{name}.py", "--user-data", kept, "--export", tmp_path / "serving", cwd=tmp_path)
        assert (tmp_path / "serving" / str(version) / "saved_model.pb").exists()
    code = f"""
import json, numpy as np, pandas as pd, tensorflow as tf
serve = tf.saved_model.load({str(tmp_path / 'serving' / '1')!r}).signatures["serving_default"]
rows = pd.read_csv({str(tiny / 'test_a.csv')!r})
inputs = {{name: (one.dtype.name, one.shape.rank) for name, one in serve.structured_input_signature[1].items()}}
found = serve(**{{name: tf.constant(rows[name].to_numpy(np.int64)) for name in inputs}})
print(json.dumps([inputs, {{task: p.numpy().astype(float).round(6).tolist() for task, p in found.items()}}]))
"""
    inputs, found = json.loads(python(code, tmp_path).splitlines()[-1])
    assert inputs == {name: ["int64", 1] for name in ("userid", "feedid", "device")} and set(found) == set(TASKS)
    submitted = pd.read_csv(kept / f"{name}_submission_a.csv")
    for task in TASKS:
        np.testing.assert_allclose(found[task], submitted[task], atol=2e-6)


@pytest.mark.parametrize("content, sentence", [(None, "mmoe.keras is missing: train the model first"), (b"no zip", "cannot be loaded")])
def test_predict_without_a_model_that_can_be_loaded(tmp_path, content, sentence):
    (tmp_path / "rows.csv").write_text("userid,feedid,device\n1,2,1\n")
    if content:
        (tmp_path / "mmoe.keras").write_bytes(content)
    run = script("mmoe.py", "--user-data", tmp_path, "--predict", tmp_path / "rows.csv", cwd=tmp_path, check=False)
    assert run.returncode == 2 and sentence in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize("text, sentence", [
    ("userid,feedid\n1,2\n", "column device is missing"), ("userid,feedid,device\n1,x,1\n", "line 2, column feedid: 'x'"),
])
def test_predict_of_a_csv_that_is_wrong(kept, tmp_path, text, sentence):
    (tmp_path / "rows.csv").write_text(text)
    run = script("mmoe.py", "--user-data", kept, "--predict", tmp_path / "rows.csv", "--out", tmp_path / "out.csv", cwd=tmp_path, check=False)
    assert run.returncode == 2 and sentence in run.stderr and not (tmp_path / "out.csv").exists()


def test_results_and_pictures_are_written(kept):
    rows = pd.read_csv(kept / "results.csv")
    assert rows.model.tolist() == ["mmoe", "ple", "deepfm", "FocalLoss"] and rows.fingerprint.nunique() == 1
    assert rows.fingerprint[0] == load(kept).fingerprint and rows.auc_read_comment.between(0.5, 1).all()
    assert rows.auc_like.isna().tolist() == [False, False, False, True] and (rows.rows_per_second > 0).all()
    assert json.loads(rows.settings[0])["experts"] == 8 and rows.changed[0] == "--embedding-dim 4 --batch-size 512"
    for name in ("comparison", "mmoe", "ple", "deepfm", "FocalLoss"):
        assert (kept / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((kept / ".checkpoints").glob("*")) and read(kept / "meta.pkl")["version"] == 2
