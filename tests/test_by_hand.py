"""The tables of tests/by_hand on runs whose scores are known."""

import json
import re
import shutil
import sys
import time
from importlib import import_module
from types import SimpleNamespace

import get_data
from common import results
from common.columns import TASK_WEIGHTS
from common.command import InputError
from common.contract import load
from common.pickles import read, write_all
from common.settings import hyperparameters, parse

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, forked
from scipy import stats
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(ROOT / "tests" / "by_hand"))

import benchmark
import documents
import peers
import reach
import runs
import search
import study
import within_user

FIGURE = r"(?<!\d)\.\d{4}(?!\d)"
SCRIPTS = ("deepfm", "FocalLoss", "mmoe", "ple")


@pytest.fixture
def folder(tiny_pickles):
    """A Folder with five runs of mmoe and of ple and two of a peer, made up."""
    folder = runs.Folder(tiny_pickles)
    folder.frequent = folder.tasks
    common = {"fingerprint": folder.facts["fingerprint"], "tasks": ",".join(folder.tasks)}
    for script, shift in (("mmoe", 0.01), ("ple", 0.0)):
        settings = parse(import_module(script).Settings, None, [])
        common["settings"] = json.dumps(hyperparameters(settings), sort_keys=True)
        for seed in range(5):
            score = 0.9 + 0.001 * seed + shift + (0.002 if seed == 4 and shift else 0)
            scores = {f"{name}_{task}": score for task in folder.tasks for name in results.SCORES}
            row = common | scores | {"model": script, "seed": seed, "weighted_uauc": 0.9}
            results.add(folder.path, row | {"rows_per_second": 7})
    for seed in range(2):
        row = {"model": "LightGBM", "seed": seed, "settings": '{"peer": {}}', "auc_like": 0.8}
        results.add(folder.path, common | row)
    return folder


def no_run(*_):
    pytest.fail("a script was run")


def test_runs_that_are_there_are_not_made_again_and_peers_are_shown(folder, monkeypatch):
    monkeypatch.setattr(runs, "apart", no_run)
    assert list(folder.runs("mmoe").index) == [0, 1, 2, 3, 4]
    assert folder.runs("ple", seeds=3)["auc_mean"].tolist() == pytest.approx([0.9, 0.901, 0.902])
    monkeypatch.setattr(runs, "SINGLE", ())
    assert list(folder.compared()) == ["MMOE", "PLE", "LightGBM"]
    assert folder.compared()["LightGBM"]["auc_like"].tolist() == [0.8, 0.8]
    row = results.read(folder.path).iloc[0].to_dict() | {"changed": "mean of 5 runs"}
    results.add(folder.path, row | {"auc_like": 0.95, "settings": '{"mean_of": 5}'})
    assert folder.averaged()["MMOE, mean of 5"]["auc_like"].tolist() == [0.95]
    assert list(folder.compared()) == ["MMOE", "PLE", "LightGBM"]
    assert "MMOE, mean of 5" in study.models(folder)[1]
    assert "MMOE, mean of 5" not in study.cost(folder)[1]


def test_a_record_has_the_tables_of_its_folder_and_makes_no_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RECORDS", tmp_path)
    monkeypatch.setattr(runs, "SINGLE", ())
    monkeypatch.setattr(runs, "FEW", 0)
    monkeypatch.setattr(runs, "apart", no_run)
    folder.keep("kept")
    for name in ("results", "models", "cost", "pairs"):
        expected = runs.markdown(*study.TABLES[name](folder))
        assert study.table(name, ["kept"]) == expected
        assert expected.count("\n") >= 3 and "| MMOE" in expected
    kept = (tmp_path / "kept" / "results.csv").read_text()
    results.add(folder.path, results.read(folder.path).iloc[0].to_dict())  # the same run once more
    folder.keep("kept")
    assert (tmp_path / "kept" / "results.csv").read_text().count("\n") == kept.count("\n")
    flagged = results.read(folder.path).iloc[0].to_dict() | {"changed": "--epochs 2"}
    results.add(folder.path, flagged)  # whose settings are the default's
    folder.keep("kept")
    assert (tmp_path / "kept" / "results.csv").read_text().count("\n") == kept.count("\n") + 1
    with pytest.raises(InputError, match="lacks the run of mmoe --experts 2 with seed 0"):
        runs.Folder("kept").runs("mmoe", "--experts 2", 1)
    with pytest.raises(InputError, match="neither a folder of pickles nor a record"):
        runs.Folder("nowhere")


def test_missing_seeds_are_run_and_read(small_pickles, monkeypatch):
    monkeypatch.setattr(runs, "apart", forked)  # is quicker
    folder = runs.Folder(small_pickles)
    flags = "--learning-rate 0.002"
    first = folder.runs("deepfm", flags, 1)
    both = folder.runs("deepfm", flags, 2)
    assert list(both.index) == [0, 1]
    assert both["auc_read_comment"][0] == first["auc_read_comment"][0]
    assert len(results.read(small_pickles)) == 2


def welch(a, b):
    """Half of the 95 % interval of a difference of means, by the formulas of Welch (1947)."""
    parts = [np.var(x, ddof=1) / len(x) for x in (a, b)]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (a, b), strict=True))
    return stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))


def test_pairs_are_compared_by_welchs_interval_and_equal_rows_seed_by_seed(folder, monkeypatch):
    monkeypatch.setattr(runs, "SINGLE", ())
    columns, rows = study.pairs(folder)
    assert columns == ["AUC read_comment", "uAUC", "mean AUC", "mean uAUC"]
    assert list(rows) == ["MMOE − PLE"]  # the peer has no score of these
    line = rows["MMOE − PLE"]
    half = welch([0.91, 0.911, 0.912, 0.913, 0.916], [0.9, 0.901, 0.902, 0.903, 0.904])
    assert line[0] == f"**+.0104 ± {half:.4f}**".replace(" 0.", " .")
    assert line[-1] == line[0]
    equal = pd.Series([0.9, 0.91, 0.92])
    assert study.difference(equal, equal, paired=True) == "+.0000 ± .0000"  # and not bold
    other = equal + pd.Series([0.1, 0.11, 0.09])
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert study.difference(equal, other, paired=True) == f"**-.1000 ± {half:.4f}**".replace(
        " 0.", " ."
    )
    assert study.difference(equal * np.nan, equal) == ""
    shuffled = other.iloc[[2, 0, 1]]
    assert study.interval(equal, shuffled, paired=True) == study.interval(equal, other, paired=True)
    more = pd.Series([0.9, 0.93, 0.88, 0.95])  # another number of seeds
    middle, half = study.interval(equal, more)
    assert middle == pytest.approx(-0.005) and half == pytest.approx(welch(equal, more))


def test_one_epoch_is_compared_with_what_learns_all_tasks(folder, monkeypatch):
    ple = folder.runs("ple")
    monkeypatch.setattr(folder, "runs", lambda script, flags: {"--epochs 1": ple}[flags])
    monkeypatch.setattr(folder, "peers", lambda: {"A": ple + 0.1, "B": ple * np.nan, "C": ple[:1]})
    half = f"{welch(ple['auc_mean'], ple['auc_mean']):.4f}".lstrip("0")
    gain = f"**-.1000 ± {half}**"
    _, rows = study.one_epoch(folder)
    assert rows == {f"{name}, 1 epoch − A": [gain, gain] for name in ("MMOE", "PLE")}


def test_what_other_users_would_change_is_a_bootstrap_of_users(tiny_pickles, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 50), rng.integers(0, 9, 50) / 3  # with ties
    times = rng.integers(0, 4, (5, 50))
    for row, auc in zip(times, peers.auc_of_draws(labels, logits, times), strict=True):
        drawn = np.repeat(np.arange(50), row)
        assert auc == pytest.approx(roc_auc_score(labels[drawn], logits[drawn]), abs=1e-12)

    data = load(tiny_pickles)
    rows = data.valid

    def made(function, model, folder, seeds):
        noise = {"mmoe": 1.0, "ple": 1.0, "LightGBM": 3.0}[model]
        draws = [np.random.default_rng([seed, int(noise)]) for seed in seeds]
        return [
            {t: rows[t] + noise * draw.normal(size=len(rows[t])) for t in data.tasks}
            for draw in draws
        ]

    monkeypatch.setattr(peers, "apart", made)
    monkeypatch.setattr(peers, "FEW", 20)
    tasks = [task for task in data.tasks if rows[task].sum() >= 20]  # else a draw may have none
    for name in ("peers", "documents"):
        monkeypatch.setattr(sys.modules[name], "RECORDS", tmp_path)
    monkeypatch.setattr(peers, "USERS", tmp_path / "users.csv")
    for _ in range(2):  # the second time in the place of the first
        peers.over_users(tiny_pickles, ["LightGBM", "DeepCTR deepfm"], 2)
    found = pd.read_csv(tmp_path / "users.csv").set_index(["one", "other", "score"])
    assert len(found) == 3 * (len(tasks) + 1) and len(tasks) > 1
    gain = found.loc["MMOE", "LightGBM", "mean"]
    aucs = {
        model: np.mean([
            roc_auc_score(rows[task], logits[task])
            for logits in made(None, model, None, range(2))
            for task in tasks
        ])
        for model in ("mmoe", "LightGBM")
    }  # fmt: skip
    assert gain.difference == pytest.approx(aucs["mmoe"] - aucs["LightGBM"], abs=1e-5)
    assert gain.low < gain.difference < gain.high and gain.low > 0.02
    assert (found.loc["MMOE", "PLE"][["difference", "low", "high"]] == 0).all(axis=None)
    names, table = documents.users()
    assert names == [*tasks, "mean"] and table[
        f"{data.meta['name'].partition(',')[0]}, *synthetic*: MMOE − PLE"
    ] == ["+.0000 (+.0000 to +.0000)"] * len(names)


@pytest.mark.parametrize("kind", ["bpr", "softmax", "jrc", "jrc2"])
def test_losses_within_users_are_those_of_a_slow_loop(kind):
    rng = np.random.default_rng(0)
    labels = (rng.random(60) < 0.2).astype(np.float32)
    units = np.sort(rng.integers(0, 9, 60)).astype(np.float32)
    z = rng.standard_normal((60, 2 if kind == "jrc2" else 1)).astype(np.float32)
    s = z[:, -1]
    of_negatives = z[:, 0] if kind == "jrc2" else -s
    total = 0.0
    for i in range(60):
        unit = np.flatnonzero(units == units[i])
        others = [j for j in unit if labels[j] == 0]
        if kind == "bpr":
            each = [np.log1p(np.exp(s[j] - s[i])) for j in others]
            total += labels[i] * (np.mean(each) if others else 0)
        else:
            total -= labels[i] * np.log(np.exp(s[i]) / np.exp(s[unit]).sum())
            if kind != "softmax":
                share = np.exp(of_negatives[i]) / np.exp(of_negatives[unit]).sum()
                total -= (1 - labels[i]) * np.log(share)
    found = float(within_user.within_unit(kind, labels, z, units))
    assert found == pytest.approx(total / 60, rel=1e-5)


@pytest.mark.parametrize("script, kind", [("mmoe", "bpr"), ("mmoe", "jrc2"), ("deepfm", "jrc2")])
def test_a_way_adds_the_losses_of_all_tasks_to_cross_entropy(script, kind, small_pickles):
    module = import_module(script)
    recommender = module.Recommender
    data = load(small_pickles)
    tasks = list(data.tasks)[: 1 if script == "deepfm" else None]
    usual = module.compiled_model(data, tasks, module.Settings())
    with within_user.trained_by(f"{kind}-3-1-day", module):
        model = module.compiled_model(data, tasks, module.Settings())
    assert module.Recommender is recommender and model.tasks == tasks
    assert {z.shape for z in model.logits(data.valid).values()} == {(len(data.valid["day"]),)}
    batch, labels = next(iter(model.batches(data.train, 512, 0)))
    assert len(set(labels["unit"].numpy())) < 100  # of users who come on half of the days
    inputs = list(usual.embedding(batch))
    logits = usual.network(inputs)
    made = within_user.of_both_classes(usual.network) if kind == "jrc2" else usual.network
    outputs = made(inputs)  # of the very same layers
    entropy = 0.0
    added = 0.0
    for task, logit in logits.items():
        label, z, score = labels[task].numpy(), outputs[task].numpy(), logit.numpy()[:, 0]
        if kind == "jrc2":
            assert z.shape == (512, 2) and np.std(z[:, 0]) > 0
            assert np.allclose(within_user.difference(z), logit, atol=1e-5)
        part = float(within_user.within_unit(kind, label, z, labels["unit"]))
        assert part > 0 and z.shape[1] == model.network.output[task].shape[1]
        entropy += np.mean(np.log1p(np.exp(score)) - label * score)
        added += 3 * part
    for names, wanted in ((labels, entropy + added), (tasks, entropy)):
        some = {name: labels[name] for name in names}
        found = float(model.compute_loss(batch, some, outputs))
        assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_units_keeps_its_rows_together(share):
    codes = np.random.default_rng(0).integers(0, 500, 20_000)
    order = within_user.kept_together(codes, share, np.random.default_rng(1))
    assert np.array_equal(np.sort(order), np.arange(20_000)) and order.dtype == np.int32
    assert not np.array_equal(
        order, within_user.kept_together(codes, share, np.random.default_rng(2))
    )
    neighbours = np.mean(codes[order[1:]] == codes[order[:-1]])  # at most 1 - 500 / 20000
    assert neighbours == pytest.approx(0.975 * share, abs=0.05)


def test_only_the_best_settings_of_a_tenth_are_tried_on_the_whole(
    tiny_pickles, tmp_path, monkeypatch
):
    whole = shutil.copytree(tiny_pickles, tmp_path / "whole")
    write_all(whole, {"meta.pkl": read(whole / "meta.pkl") | {"name": "whole"}})
    aucs = (5, 9, 6, 8, 7, 1, 2, 3)
    drawn = peers.drawn("DeepCTR ple")

    def tried(function, peer, folder, chosen, seed):
        return {"seconds": 1}, None, aucs[drawn.index(chosen)], {"trees": {}}

    monkeypatch.setattr(peers, "FOUND", tmp_path / "peers.csv")
    monkeypatch.setattr(peers, "apart", tried)
    peers.search(tiny_pickles, ["DeepCTR ple"])
    tenth = load(tiny_pickles).meta["name"]
    for _ in range(2):  # nothing is tried again
        peers.search(whole, ["DeepCTR ple"], tenth)
        found = peers.searched().groupby("data")["auc_mean"]
        assert found.get_group(tenth).tolist() == [*aucs]
        assert found.get_group("whole").tolist() == [9, 8, 7]
    with pytest.raises(InputError, match="no search of DeepCTR ple on nothing"):
        peers.search(whole, ["DeepCTR ple"], "nothing")


def test_the_scores_of_peers_go_on_where_they_were_stopped(tiny_pickles, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_pickles, tmp_path / "x")
    data = load(folder)
    row = {"data": data.meta["name"], "valid_day": data.meta["valid_day"] - 1, "peer": "LightGBM"}
    row |= {"settings": '{"columns": "ours"}', "auc_mean": 0.9, "length": '{"trees": {}}'}
    pd.DataFrame([row]).to_csv(tmp_path / "peers.csv", index=False)
    made = []

    def stopped_once(function, peer, folder, chosen, seed):
        made.append(seed)
        if len(made) == 2:
            raise KeyboardInterrupt
        return {"seconds": 1.0}, {"like": {"auc": 0.5 + seed / 10}}, 0.5, {}

    monkeypatch.setattr(peers, "FOUND", tmp_path / "peers.csv")
    monkeypatch.setattr(peers, "apart", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        peers.scores(folder, ["LightGBM"], 3)
    peers.scores(folder, ["LightGBM"], 3)
    assert made == [0, 1, 1, 2]
    rows = results.read(folder).query("model == 'LightGBM'")
    assert rows["seed"].tolist() == ["0", "1", "2"]
    assert rows["auc_like"].astype(float).tolist() == [0.5, 0.6, 0.7]


def test_a_regimes_gain_is_over_the_same_model_and_peers_have_none(monkeypatch):
    usual = pd.DataFrame({name: [0.6, 0.601, 0.603] for name in ("auc_like", "uauc_like")})
    usual = usual.assign(auc_mean=usual["auc_like"], uauc_mean=np.nan)
    shown = usual.assign(auc_mean=usual["auc_like"] + [0.01, 0.01, 0.011])
    places = {"usual": {"MMOE": usual, "LightGBM": usual}, "shown": {"MMOE": shown}}

    def folder_of(name):
        return SimpleNamespace(target="like", title="data", compared=lambda: places[name])

    monkeypatch.setattr(documents, "Folder", folder_of)
    columns, rows = documents.regimes("usual", "shown")
    assert columns == ["AUC like", "uAUC", "mean AUC", "mean uAUC"] and list(rows) == ["MMOE"]
    half = welch(shown["auc_mean"], usual["auc_mean"])
    assert rows["MMOE"][2] == f"**+.0103 ± {half:.4f}**".replace(" 0.", " .")
    assert rows["MMOE"][0].startswith("+.0000 ± ") and rows["MMOE"][3] == ""


def test_a_second_epoch_is_held_against_the_first_alone(folder, monkeypatch):
    monkeypatch.setattr(runs, "apart", no_run)
    by_seed = np.arange(5) / 1000
    for n, shift in ((1, 0.0), (2, 0.02)):
        for script in ("mmoe", "ple"):
            settings = parse(import_module(script).Settings, None, ["--epochs", str(n)])
            key = json.dumps(hyperparameters(settings), sort_keys=True)
            for seed in range(5):
                score = 0.8 + by_seed[seed] + shift
                scores = {f"{name}_{t}": score for t in folder.tasks for name in results.SCORES}
                row = {"model": script, "seed": seed, "settings": key} | scores
                row |= {"changed": f"--epochs {n}"}
                row |= {"fingerprint": folder.facts["fingerprint"]}
                results.add(folder.path, row | {"tasks": ",".join(folder.tasks)})
    columns, rows = study.second(folder)
    assert columns == ["day 14: mean AUC", "mean uAUC"]
    gain = f"**+.0200 ± {welch(by_seed, by_seed):.4f}**".replace(" 0.", " .")
    assert rows == dict.fromkeys(("MMOE", "PLE"), [gain] * 2)


def test_calibration_stands_beside_what_drift_alone_makes_of_it(folder):
    data = load(folder.path)
    for row in results.read(folder.path).to_dict("records")[:10]:
        changes = {"model": f"{row['model']}-uncalibrated", "calibration_like": 2}
        results.add(folder.path, row | changes)
    columns, rows = study.calibration(folder)
    found = {f"{model}{way}" for model in ("MMOE", "PLE") for way in ("", ", intercepts of 0")}
    marks = {"*oracle*", "*user's past rate*"}
    assert columns == folder.tasks and {*rows} - found - marks == {*[*rows][:2]}
    assert rows["MMOE, intercepts of 0"][1] == "2.0000 ± .0000"
    train = pd.DataFrame({"day": data.train["day"], "like": data.train["like"]})
    rate = data.valid["like"].mean()
    drift = [train["like"].mean() / rate, train[train["day"] == 13]["like"].mean() / rate]
    assert [float(texts[1]) for texts in list(rows.values())[:2]] == pytest.approx(drift, abs=5e-4)
    assert rows["PLE"][1] == ".9020 ± .0016"


def test_peers_get_the_dense_values_of_ours_and_the_simple_ones(tiny_pickles):
    data = load(tiny_pickles)
    ours, simple = (peers.columns_of(data, which) for which in ("ours", "simple"))
    for split, rows in enumerate((data.train, data.valid)):
        both = peers.columns_of(data, "both")[split]
        np.testing.assert_array_equal(both, np.hstack([ours[split], simple[split]]))
        past = data.tables["user"]["user_history"][rows["day"], rows["user"]].astype(np.float32)
        width = past.shape[1]
        starts = range(ours[split].shape[1] - width + 1)
        assert any(np.allclose(ours[split][:, i : i + width], past) for i in starts)
    assert simple[0].shape == (len(data.train["day"]), 43)


def test_tables_side_by_side_keep_the_rows_of_each():
    one = ("A", ["x", "y"], {"both": ["1", "2"], "first": ["3", "4"]})
    other = ("B", ["z"], {"second": ["5"], "both": ["6"]})
    assert runs.beside([one, other]) == (
        ["A: x", "y", "B: z"],
        {"both": ["1", "2", "6"], "first": ["3", "4", ""], "second": ["", "", "5"]},
    )
    assert runs.markdown(["x"], {"a": ["1"]}) == "|  | x |\n| --- | --- |\n| a | 1 |\n"


# ---- the documents


def test_every_table_of_the_documents_is_that_of_its_record():
    n = 0
    for path in documents.DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert documents.filled(text) == text, f"{path}: run tests/by_hand/documents.py"
        n += len(documents.PLACE.findall(text))
    assert n >= 8


def test_figures_in_the_documents_sentences_are_in_a_table():
    """Of four decimals, as .8104. 2021's have no table."""
    texts = [path.read_text(encoding="utf-8") for path in documents.DOCUMENTS]
    lines = "\n".join(texts).splitlines()
    known = set(re.findall(FIGURE, "".join(line for line in lines if line.startswith("|"))))
    known |= {".9233", ".9260", ".9224", ".9307"}
    said = [line for line in lines if not line.startswith(("|", "    "))]
    figures = re.findall(FIGURE, "".join(said))
    assert len(figures) > 50 and set(figures) <= known, set(figures) - known


def test_a_figure_that_was_typed_by_hand_is_found(monkeypatch):
    monkeypatch.setattr(documents, "table", lambda *words: f"| {' '.join(words)} |\n")
    place = "<!-- table: models a b-1 -->\n\n"
    text = f"Before.\n\n{place}| .9 |\n|---|\n\nAfter | it.\n"
    assert documents.filled(text) == f"Before.\n\n{place}| models a b-1 |\n\nAfter | it.\n"
    for text in (f"{place}After.\n", f"{place}| .9 |\n\nAfter.\n"):
        assert documents.filled(text) == f"{place}| models a b-1 |\n\nAfter.\n"


def test_a_cell_is_mean_and_deviation_of_gains_mean_and_standard_error():
    assert runs.cell(pd.Series([0.91, 0.93])) == ".9200 ± .0141"
    assert runs.cell(pd.Series([0.01, 0.03]), "+") == "+.0200 ± .0100"
    assert runs.cell(pd.Series([np.nan])) == ""


def test_speeds_are_those_of_the_first_and_the_last_epoch():
    lines = [f"epoch {n}/3  loss 0.5  like  auc 0.7  {n},234 rows/s" for n in (1, 2, 3)]
    speeds = benchmark.speeds("\n".join(["headline, 9 rows/s", *lines, "like validation AUC: 0.7"]))
    assert speeds == {"first rows/s": 1234, "last rows/s": 3234}


def test_measured_speeds_are_kept_by_case_and_stand_in_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "RECORD", tmp_path / "speed.csv")
    monkeypatch.setattr(documents, "RECORDS", tmp_path)
    seconds = {"ours": [3.0, 1.0, 2.0], "peer": [40.0, 8.0, 9.0]}
    ways = {
        name: lambda i, name=name: {"rows/s": 1000 / seconds[name][i], "AUC": 0.87654}
        for name in seconds
    }
    benchmark.measure("mmoe, 1024", ways, rounds=3)
    assert not benchmark.RECORD.exists()
    for rounds in (1, 3):  # the last one counts
        benchmark.measure("mmoe, 1024", ways, rounds, keep="training")
        benchmark.measure("ple", {"start": lambda i: {"seconds": 7.0}}, 2, keep="start")
    kept = pd.read_csv(benchmark.RECORD)
    assert kept["table"].tolist() == ["training"] * 4 + ["start"]
    assert kept["rounds"].tolist() == [3] * 4 + [2]
    line = "| MMOE, batch 1024 | 500 | 111 | 4.50 | .8765 | .8765 |"
    assert line in documents.table("speed", "training", "ours", "peer").splitlines()
    assert "| PLE | 7.00 |" in documents.table("speed", "start", "start", "-").splitlines()
    capsys.readouterr()


def test_the_final_rounds_rows_are_encoded_and_trained_on(tmp_path, monkeypatch):
    (tmp_path / "user_action.csv").write_text("userid,feedid\n1,2\n3,4\n")
    seen = []

    def ran(script, *words, cwd=None):
        seen.append(str(script).rpartition("/")[2])
        if script == "get_data.py":
            seen[-1] = len(pd.read_csv(f"{words[0]}/user_action.csv"))
        return "", {"seconds": 1.0}

    monkeypatch.setattr(benchmark, "run", ran)
    for _, ways in benchmark.final(tmp_path):
        assert all(way(0) == {"seconds": 1.0} for way in ways.values())
    assert seen == [2, "mmoe.py", 20, "mmoe.py"]


def test_repeated_rows_are_those_of_the_log_with_other_users(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "BLOCK", 8)
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir(), out.mkdir()
    log = pd.DataFrame({"userid": [1, 1, 11, 23], "feedid": [5, 6, 5, 7], "date_": [1, 1, 2, 2]})
    log.to_csv(source / "user_action.csv", index=False)
    (source / "feed_info.csv").write_text("feedid\n5\n6\n7\n")
    benchmark.repeat_rows(source, out, 12)
    found = pd.read_csv(out / "user_action.csv")
    assert len(found) == 12 * len(log) and found["userid"].nunique() == 12 * 3
    for start in range(0, len(found), len(log)):
        copy = found[start : start + len(log)].reset_index(drop=True)
        assert copy[["feedid", "date_"]].equals(log[["feedid", "date_"]])
        assert pd.factorize(copy["userid"])[0].tolist() == [0, 0, 1, 2]
    assert (out / "feed_info.csv").read_text() == (source / "feed_info.csv").read_text()


def test_official_scores_are_means_of_both_tests_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "RECORDS", tmp_path)
    ways = {"before": [0.60, 0.62, 0.61], "after": [0.63, 0.65, 0.65]}
    rows = [
        {"days": days, "runs": 1, "seed": seed, "test_a": score - 0.01, "test_b": score + 0.01}
        for days, scores in ways.items()
        for seed, score in enumerate(scores)
    ]
    rows.append({"days": "before", "runs": 3, "seed": 0, "test_a": 0.61, "test_b": 0.63})
    rows.append({"days": "after", "runs": 3, "seed": 0, "test_a": 0.65, "test_b": 0.67})
    rows.append({"days": "after", "runs": 0})  # of get_data.py
    table = pd.DataFrame(rows).assign(data="x, seed 1", seconds=7.4, GB=1.26)
    table.to_csv(tmp_path / "submissions.csv", index=False)
    columns, found = documents.submissions()
    assert columns == ["single run", "mean of 3 runs", "seconds of the 3", "GB"]
    half = welch(ways["after"], ways["before"])
    gain = runs.short(f"**+{0.1 / 3:.4f} ± {half:.4f}**")
    assert list(found.values()) == [
        [".6100 ± .0100", ".6200", "7", "1.3"],
        [".6433 ± .0115", ".6600", "7", "1.3"],
        [gain, "+.0400", "", ""],
    ]


def test_a_table_of_earlier_runs_is_its_file_and_versions_stand_apart(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(documents, "RECORDS", tmp_path)
    (tmp_path / "old.csv").write_text("idea,AUC\nmore,.9\n")
    assert documents.earlier("old") == (["AUC"], {"more": [".9"]})
    rows = folder.rows()
    rows["commit"] = np.where(rows["seed"].astype(int) < 2, "a", "b")
    rows["changed"] = ""
    of_mean = rows.iloc[[0]].assign(changed="mean of 5 runs", auc_read_comment=1.0)
    rows = pd.concat([rows, of_mean])
    monkeypatch.setattr(runs.Folder, "rows", lambda _: rows[rows["model"] == "mmoe"])
    found = documents.versions(folder.path)[1]
    assert list(found) == ["MMOE, a", "MMOE, b"]
    assert [texts[0] for texts in found.values()] == [".9105 ± .0007", ".9137 ± .0021"]
    assert [texts[2] for texts in found.values()] == ["2", "3"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_search_takes_the_defaults_and_as_many_settings_of_each_model(script):
    drawn = search.drawn(script)
    settings = import_module(script).Settings
    epochs = "--epochs=1" if script == "FocalLoss" else "--epochs=2"
    assert drawn[:2] == [("", 5), (epochs, 5)]
    assert drawn == search.drawn(script)
    parsed = [parse(settings, None, flags.split()) for flags, _ in drawn]
    assert parsed[0] == settings()
    assert len({json.dumps(hyperparameters(each)) for each in parsed}) == search.BUDGET


def test_the_search_validates_the_day_before_the_last(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "PICKLES", tmp_path)
    folder = search.encoded.__wrapped__(tiny, 3)
    assert folder.facts["valid_day"] == 13
    monkeypatch.setattr(get_data, "main", no_run)
    assert search.encoded.__wrapped__(tiny, 3).facts == folder.facts


def test_the_search_writes_the_best_settings_of_each_model_first(folder, tmp_path, monkeypatch):
    def made(script, flags, seeds):
        scores = {f"auc_{task}": 0.5 + 0.001 * len(flags) for task in folder.tasks}
        scores |= {f"uauc_{task}": 0.1 for task in folder.tasks} | {"rows_per_second": 7}
        return folder.with_means(pd.DataFrame([scores for _ in range(seeds)]))

    monkeypatch.setattr(search, "RECORDS", tmp_path)
    monkeypatch.setattr(folder, "runs", made)
    monkeypatch.setattr(search, "encoded", lambda source, min_count: folder)
    search.search(["anywhere"])
    table = pd.read_csv(tmp_path / "search.csv", keep_default_na=False)
    for name in SCRIPTS:
        rows = table[table["model"] == name]
        lengths = sorted((len(flags) for flags, _ in search.drawn(name)), reverse=True)
        assert rows["flags"].map(len).tolist() == lengths
        assert rows["mean"].iloc[-1] == 0.5  # so few rows are ranked by AUC alone


def test_the_clock_stands_still_while_a_goal_is_looked_for(small_pickles, monkeypatch):
    def encoded(*words):
        shutil.copytree(small_pickles, words[-1], dirs_exist_ok=True)

    def slowly(*args):
        time.sleep(0.3)
        scores = scored(*args)
        looks.append(scores["read_comment"]["auc"])
        return scores

    scored = reach.score_tasks
    looks = []
    monkeypatch.setattr(reach, "run", encoded)
    monkeypatch.setattr(reach, "score_tasks", slowly)
    monkeypatch.setattr(reach, "CHECKED", 8192)
    monkeypatch.setattr(reach, "apart", lambda function, *args: function(*args))
    since = time.perf_counter()
    row = reach.from_csvs(reach.ours, "csvs", (0.6, 0.0))(0)
    assert 0 < row["seconds"] < time.perf_counter() - since - 0.3 * len(looks)
    assert row["AUC"] == looks[-1] >= 0.6 and all(auc < 0.6 for auc in looks[:-1])
    watch = reach.Watch(load(small_pickles), (0.6, 1.1), time.time())
    assert not watch.reached(lambda: dict.fromkeys(TASK_WEIGHTS, load(small_pickles).valid["like"]))
    assert watch.result(False)["seconds"] == np.inf  # of which a median is inf, or there
    assert not watch.is_late()
    looks.clear()
    monkeypatch.setattr(reach, "LIMIT", 0)  # so that the first look is the last
    assert reach.from_csvs(reach.ours, "csvs", (1.1, 0.0))(0)["seconds"] == np.inf
    assert len(looks) == 1
