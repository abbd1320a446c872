"""What a run keeps: the saved model, its predictions and export; a run from Python."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import threading

import deepfm
import FocalLoss
import mmoe
from common import saved
from common.columns import TASKS
from common.command import InputError
from common.contract import load
from common.submission import check

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_one_sentence, run_main, script
from scipy.special import expit
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.xdist_group("saved")  # or each worker makes `kept`
OWN = ["--learning-rate", "0.002"]  # of which nothing is compiled anew
FEW = ["--features", "userid,device,manual_tag_list,feed_embedding,user_history,user_taste"]
RUNS = {  # but mmoe with a feature of each kind and no more, to compile in less time
    "mmoe": [],
    "ple": [*FEW, "--own-experts", "2,3,1,2", "--shared-experts", "2", "--levels", "2"],
    "deepfm": ["--features", "userid,device,feed_history", "--target", "all", "--bins", "2"],
    "FocalLoss": [*FEW, "--epochs", "1"],
}


@pytest.fixture(scope="module")
def kept(tiny_made, tmp_path_factory):
    """The folder in which each script has run once."""
    folder = tmp_path_factory.mktemp("kept")
    for path in tiny_made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "FocalLoss_submission_a.csv").write_text("of an earlier run, of four tasks")
    for name, flags in RUNS.items():
        run_main(name, "--user-data", folder, *OWN, *flags)
    return folder


def python(code, cwd):
    """What a fresh process prints."""
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("model", ["mmoe", "ple", "deepfm"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_submission_has_the_contests_format_and_every_row_in_order(kept, tiny, model, which):
    path = kept / f"{model}_submission_{which}.csv"
    columns = check(path, tiny / f"test_{which}.csv")
    assert tuple(columns)[2:] == TASKS and len(columns["userid"]) > 100
    for task, rate in zip(TASKS, (0.2, 0.2, 0.1, 0.1), strict=True):
        assert 0.0001 < columns[task].mean() < rate and columns[task].std() > 0
    assert not (kept / "FocalLoss_submission_a.csv").exists()  # of a single task


def test_results_and_pictures_are_written(kept):
    rows = pd.read_csv(kept / "results.csv")
    assert rows.model.tolist() == list(RUNS)
    assert rows.fingerprint.tolist() == [load(kept).fingerprint] * 4
    assert rows.auc_like.isna().tolist() == [False, False, False, True]
    assert (rows.rows_per_second > 0).all()
    assert json.loads(rows.settings[0])["experts"] == 8
    epochs = [json.loads(settings)["epochs"] for settings in rows.settings]
    assert epochs == [2, 2, 1, 1]  # what the data chose; of FocalLoss by its flag
    curves = [json.loads(curve)["read_comment"] for curve in rows.auc_by_epoch]
    assert list(map(len, curves)) == epochs
    assert rows.changed[0] == "--learning-rate 0.002"
    for name in ("comparison", *RUNS):
        assert (kept / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((kept / ".checkpoints").glob("*"))


def test_each_task_has_its_own_network_as_if_it_were_alone(kept, tmp_path):
    folder = shutil.copytree(kept, tmp_path / "kept")
    words = [*OWN, *RUNS["deepfm"], "--target", "like", "--name", "点赞"]
    run_main("deepfm", "--user-data", folder, *words)
    *_, every, _, alone = pd.read_csv(folder / "results.csv").to_dict("records")
    assert every["tasks"] == ",".join(TASKS) and alone["tasks"] == "like"
    assert every["auc_like"] == alone["auc_like"] and every["weighted_uauc"] > 0.4
    assert (folder / "点赞.keras").exists()


def test_main_gives_the_model_and_its_printed_auc_is_that_of_scikit_learn(
    tiny_pickles, tiny, capsys
):
    mixed = "userid,feed_history,videoplayseconds,manual_tag_list,user_taste,user_history,device"
    result = mmoe.main(["--user-data", str(tiny_pickles), "--features", mixed, "--bins", "3"])
    printed = float(capsys.readouterr().out.split()[-1])
    data = load(tiny_pickles)
    logits = result.model.logits(data.valid)
    for task in TASKS:
        auc = roc_auc_score(data.valid[task], logits[task].astype(np.float64))
        assert result.scores[0][task]["auc"] == pytest.approx(auc, abs=1e-12)
    assert printed == pytest.approx(result.scores[0]["read_comment"]["auc"], abs=5.1e-5)
    assert result.aucs == [result.scores[0]["read_comment"]["auc"]]
    # the saved model says of the test day what the trained one says, which looks its day up
    whole = saved.load(tiny_pickles / "mmoe.keras")
    rows = pd.read_csv(tiny / "test_a.csv")
    found = saved.probabilities(whole, rows)
    wanted = result.model.logits(data.unlabelled["test_a"])
    for task in TASKS:
        p = 1 / (1 + np.exp(-wanted[task].astype(np.float64)))
        np.testing.assert_allclose(found[task], p, atol=2e-6)
        submitted = pd.read_csv(tiny_pickles / "mmoe_submission_a.csv")[task]
        np.testing.assert_allclose(submitted, p, atol=2e-6)


def test_a_focal_model_is_saved_with_what_makes_its_scores_probabilities(tiny_pickles, tiny):
    flags = ["--gamma", "2", "--hidden", "8", "--epochs", "1", "--quiet"]
    model = FocalLoss.main(["--user-data", str(tiny_pickles), *flags]).model
    data = load(tiny_pickles)
    n = 0
    for batch, _ in model.scoring_batches(data.valid):
        mapped = FocalLoss.unfocused(model(batch)["read_comment"], 2.0, 0.0)
        wanted = (mapped + model.intercepts["read_comment"])[:, 0]
        found = model.score(batch)["read_comment"][:, 0]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        n += len(found)
    assert n >= len(data.valid["day"]) and float(model.intercepts["read_comment"]) != 0
    logits = model.logits(data.unlabelled["test_a"])["read_comment"]
    whole = saved.load(tiny_pickles / "FocalLoss.keras")
    found = saved.probabilities(whole, pd.read_csv(tiny / "test_a.csv"))["read_comment"]
    np.testing.assert_allclose(found, expit(logits.astype(np.float64)), atol=2e-6)


def test_settings_a_thread_and_a_name_of_ones_own(small_pickles):
    """As in a notebook's worker: not the main thread, and no script that gives its name."""
    settings = deepfm.Settings(
        user_data=str(small_pickles), name="mine", learning_rate=0.002, quiet=True
    )
    results = []
    thread = threading.Thread(target=lambda: results.append(deepfm.main(settings)))
    thread.start()
    thread.join()
    assert float(results[0].model.optimizer.learning_rate) == pytest.approx(0.002)
    assert pd.read_csv(small_pickles / "results.csv").model.tolist() == ["mine"]
    assert (small_pickles / "mine.keras").exists()
    with pytest.raises(InputError, match="nowhere"):
        mmoe.main(["--user-data", "nowhere"])


@pytest.mark.parametrize("name", RUNS)
def test_predict_scores_a_csv_whatever_ids_it_has(kept, tiny, tmp_path, name):
    unknown = {"userid": [1, 2**40], "feedid": [2**31 - 1, 0], "device": [7, -1]}
    rows = pd.concat([pd.read_csv(tiny / "test_a.csv"), pd.DataFrame(unknown)])
    rows = rows[["device", "userid", "feedid"]]
    text = rows.to_csv(index=False).replace("userid", ' "userid" ', 1)  # as spreadsheets may
    (tmp_path / "rows.csv").write_text(text)
    predict = ("--predict", tmp_path / "rows.csv", "--out", tmp_path / "out.csv")
    run = run_main(name, "--user-data", kept, *predict)
    assert f"{len(rows):,} rows" in run.stdout
    found = pd.read_csv(tmp_path / "out.csv")
    tasks = ["read_comment"] if name == "FocalLoss" else list(TASKS)
    assert list(found)[:3] == list(rows) and sorted(list(found)[3:]) == sorted(tasks)
    np.testing.assert_array_equal(found[list(rows)], rows)
    assert ((found[tasks] > 0) & (found[tasks] < 1)).all(axis=None)
    if name != "FocalLoss":
        submitted = pd.read_csv(kept / f"{name}_submission_a.csv")
        np.testing.assert_allclose(found[:-2][tasks], submitted[tasks], atol=2e-6)


def test_a_layer_of_ones_own_that_is_not_known_is_named_with_the_remedy(tmp_path):
    class Stitch(keras.layers.Layer):
        def call(self, x):
            return x

    def twice(x):
        return x * 2

    x = keras.Input((3,))
    layers = {"layer Stitch": Stitch(), "function twice": keras.layers.Dense(3, activation=twice)}
    for named, layer in layers.items():
        saved.save(tmp_path / "own.keras", keras.Model(x, layer(x)))
        with pytest.raises(InputError, match=rf"a {named}.*register_keras_serializable\(\)"):
            saved.load(tmp_path / "own.keras")
    saved.save(tmp_path / "own.keras", keras.Model(x, keras.layers.Lambda(lambda x: x * 2)(x)))
    with pytest.raises(InputError, match=r"a Lambda layer.*a layer class"):
        saved.load(tmp_path / "own.keras")


def test_a_model_whose_file_is_damaged_anywhere_loads_or_is_refused(tmp_path):
    path = tmp_path / "own.keras"
    x = keras.Input((3,))
    saved.save(path, keras.Model(x, keras.layers.Dense(2)(x)))
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 97):
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        for content in (damaged, whole[:place]):
            path.write_bytes(content)
            try:
                assert saved.load(path).output_shape == (None, 2)
            except InputError as error:
                refused += 1
                assert re.fullmatch(r"[^\n]+: [^\n]+\.", str(error))
    assert refused > len(whole) / 97


def test_the_saved_model_loads_after_one_import(kept):
    code = f"""
import mmoe, keras, numpy as np, sys
assert not {{"sklearn", "matplotlib"}} & set(sys.modules)  # which Keras would import
import matplotlib.pyplot, sklearn.metrics
model = keras.saving.load_model({str(kept / "mmoe.keras")!r})
rows = {{name: np.array([3, 4]) for name in ("userid", "feedid", "device")}}
print({{task: p.shape for task, p in model.predict(rows, verbose=0).items()}})
"""
    assert eval(python(code, ROOT)) == dict.fromkeys(TASKS, (2,))


@pytest.mark.parametrize("name", ["mmoe", "deepfm"])
def test_export_writes_a_saved_model_that_needs_no_code_of_ours(kept, tiny, tmp_path, name):
    for version in (1, 2) if name == "mmoe" else (1,):
        run_main(name, "--user-data", kept, "--export", tmp_path / "serving")
        assert (tmp_path / "serving" / str(version) / "saved_model.pb").exists()
    code = f"""
import json, numpy as np, pandas as pd, tensorflow as tf
model = tf.saved_model.load({str(tmp_path / "serving" / "1")!r})
serve = model.signatures["serving_default"]
rows = pd.read_csv({str(tiny / "test_a.csv")!r})
names = list(serve.structured_input_signature[1])
found = serve(**{{name: tf.constant(rows[name].to_numpy(np.int64)) for name in names}})
print(json.dumps({{task: p.numpy().astype(float).tolist() for task, p in found.items()}}))
"""
    found = json.loads(python(code, tmp_path).splitlines()[-1])
    submitted = pd.read_csv(kept / f"{name}_submission_a.csv")
    for task in TASKS:
        np.testing.assert_allclose(found[task], submitted[task], atol=2e-6)


@pytest.mark.parametrize(
    "text, part",
    [
        ("userid,feedid\n1,2\n", "column device is missing"),
        ("userid,feedid,device\n1,x,1\n", "line 2, column feedid: 'x'"),
        (f"userid,feedid,device\n1,2,1\n{10**20},2,1\n", "line 3, column userid"),
        ("userid;feedid;device\n1;2;1\n", "semicolons"),
        ("用户,feedid,device\n1,2,1\n", "column userid is missing"),
        ("userid,feedid,device\n", "has no rows"),
    ],
)
def test_predict_of_a_csv_that_is_wrong(kept, tmp_path, text, part):
    (tmp_path / "rows.csv").write_text(text, encoding="gbk")
    flags = ("--predict", tmp_path / "rows.csv", "--out", tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"rows\.csv") as refused:
        run_main("mmoe", "--user-data", kept, *flags)
    assert part in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out.csv").exists()


def test_predict_with_a_damaged_model(tmp_path):
    (tmp_path / "rows.csv").write_text("userid,feedid,device\n1,2,1\n")
    (tmp_path / "mmoe.keras").write_bytes(b"no zip")
    flags = ("--user-data", tmp_path, "--predict", tmp_path / "rows.csv")
    run = script("mmoe.py", *flags, cwd=tmp_path, check=False)
    assert_one_sentence(run, "mmoe.keras cannot be loaded", "train the model again")


def test_a_table_of_ones_own_is_learned_and_predicted(tmp_path):
    """Advertisements: two tasks of their own, no tables, no users, no days, no vocabularies."""
    rng = np.random.default_rng(0)

    def rows(n):
        site = rng.integers(2, 12, n).astype(np.int32)
        price = rng.normal(size=(n, 2)).astype(np.float32)
        p = 1 / (1 + np.exp(-(0.9 * (site % 4) + price[:, 0] - 3)))
        click = (rng.random(n) < p).astype(np.uint8)
        buy = click & (rng.random(n) < 0.3)
        return {"site": site, "price": price, "click": click, "buy": buy, "stamp": "ads"}

    meta = {"version": 3, "stamp": "ads", "name": "advertisements", "synthetic": False}
    meta |= {"tasks": {"click": 2, "buy": 1}, "group": None, "tables": [], "valid_day": 0}
    meta |= {"vocabularies": {"site": 12}}
    meta["features"] = {
        "site": {"kind": "id", "table": None, "vocabulary": "site"},
        "price": {"kind": "dense", "table": None, "daily": False},
    }
    for name, content in {"meta": meta, "train": rows(20000), "valid": rows(4000)}.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
    run = run_main("ple.py", "--user-data", tmp_path, "--batch-size", 64)
    last = run.stdout.splitlines()[-1].split()
    assert last[0] == "click" and 0.77 < float(last[-1]) < 0.85
    numbers = [0.0, 1, 2, 3, np.nan]
    table = pd.DataFrame({"site": [2, 3, 999, -5, 2], "price_0": 0.5, "price_1": numbers})
    table.to_csv(tmp_path / "rows.csv", index=False)
    flags = ("--user-data", tmp_path, "--predict", tmp_path / "rows.csv")
    run_main("ple.py", *flags, "--out", tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    assert list(found)[:3] == ["site", "price_0", "price_1"]
    assert found.click[1] > found.click[0] > 0  # 3 % 4 is more than 2 % 4
    assert found.click[4] == found.click[0] and np.isnan(found.price_1[4])
    model = saved.load(tmp_path / "ple.keras")
    unknown = {"site": np.array([1, 999]), "price": np.zeros((2, 2))}
    scores = saved.probabilities(model, unknown)["click"]
    assert scores[0] == scores[1]  # an unknown code is OTHER, not a neighbour
