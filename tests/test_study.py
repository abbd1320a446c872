"""The tables of study.py on runs whose scores are known."""
import csv
import json
import shutil

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

import get_data
import study
from common import results
from common.command import hyperparameters, parse
from common.pickles import known


@pytest.fixture
def folder(tiny_pickles, tmp_path):
    """A Folder with three runs of mmoe and of ple and two of a peer, made up."""
    place = shutil.copytree(tiny_pickles, tmp_path / "data", ignore=shutil.ignore_patterns("results.csv", ".*"))
    found = study.Folder(place)
    for script, shift in (("mmoe", 0.01), ("ple", 0.0)):
        settings = parse(__import__(script).Settings, None, [])
        settings.features = known(settings.features, found.meta)
        for seed in range(5):
            scores = {f"{score}_{task}": 0.9 + 0.001 * seed + shift + (0.002 if seed == 4 else 0) * bool(shift) for task in found.tasks for score in ("auc", "uauc", "logloss")}
            row = {"fingerprint": found.fingerprint, "model": script, "tasks": ",".join(found.tasks), "seed": seed, "changed": "",
                   "settings": json.dumps(hyperparameters(settings), sort_keys=True), "seconds": 2, "peak_mb": 500, "weighted_uauc": 0.9, **scores}
            results.add(place, row)
    for seed in range(2):
        results.add(place, {"fingerprint": found.fingerprint, "model": "LightGBM", "tasks": "read_comment", "seed": seed, "settings": "{}", "auc_read_comment": 0.8})
    return found


def test_runs_that_are_there_are_not_made_again_and_peers_are_told_from_scripts(folder, monkeypatch):
    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: pytest.fail("a script was run"))
    assert list(folder.runs("mmoe")) == [0, 1, 2, 3, 4] and list(folder.runs("ple", seeds=3)) == [0, 1, 2]
    assert {name: list(rows) for name, rows in folder.peers().items()} == {"LightGBM": [0, 1]}


def test_missing_seeds_are_run_by_the_script(folder, monkeypatch):
    made = []

    def run(command, **_):
        made.append(command)
        raise SystemExit

    monkeypatch.setattr(study.subprocess, "run", run)
    with pytest.raises(SystemExit):
        folder.runs("mmoe", seeds=7)
    with pytest.raises(SystemExit):
        folder.runs("mmoe", "--experts 4")
    assert made[0][2:] == ["--user-data", str(folder.path), "--seed", "5", "--runs", "2", "--quiet"]
    assert made[1][2:] == ["--user-data", str(folder.path), "--seed", "0", "--runs", "5", "--quiet", "--experts", "4"]


def test_pairs_are_compared_seed_by_seed_with_students_interval(folder, monkeypatch, capsys):
    monkeypatch.setattr(study, "compared", lambda folder: {script: folder.runs(script) for script in ("mmoe", "ple")})
    study.pairs(folder)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| mmoe - ple (n = 5)"))
    differences = [0.01, 0.01, 0.01, 0.01, 0.012]
    half = np.diff(stats.t.interval(0.95, 4, np.mean(differences), stats.sem(differences)))[0] / 2
    assert line.split(" | ")[1] == f"**+{np.mean(differences):.4f} ± {half:.4f}**".replace("0.", ".") == "**+.0104 ± .0011**"
    assert line.rstrip(" |").endswith("+.0000 ± .0000")  # no difference in the weighted uAUC: not bold


def test_a_cell_is_mean_and_sample_deviation_without_the_zero():
    assert study.cell([0.91, 0.93]) == ".9200 ± .0141" and study.cell([0.5]) == ".5000" and study.cell([float("nan")]) == ""
    assert study.cell([10.5]) == "10.5000"


def test_more_features_are_cooccurrence_and_the_tastes_without_one_column(tmp_path):
    """Two circles of users that see feeds of their own: the first component tells them apart."""
    from common.pickles import write_all

    rng = np.random.default_rng(0)
    user = rng.integers(1, 81, 4000)
    feed = 1 + rng.integers(0, 40, 4000) + 40 * ((user > 40) ^ (rng.random(4000) < 0.1))  # one view of ten is of the other circle's
    rows = {"user": user.astype(np.int32), "feed": feed.astype(np.int32), "day": np.ones(4000, np.int32), "like": rng.integers(0, 2, 4000).astype(np.uint8), "stamp": "x"}
    meta = {"version": 2, "stamp": "x", "name": "circles", "synthetic": True, "tasks": {"like": 1}, "group": "user", "tables": ["user", "feed"], "valid_day": 2,
            "vocabularies": {"userid": 3}, "features": {"userid": {"kind": "id", "table": "user", "vocabulary": "userid"}}}
    tables = {name: {"key": np.arange(-1, 80), "stamp": "x"} for name in ("user", "feed")}
    tables["user"]["userid"] = np.ones(81, np.int32)
    tables["user"]["user_taste"] = rng.normal(size=(4, 81, 4, 2)).astype(np.float16)
    tables["feed"]["feed_embedding"] = rng.normal(size=(81, 2)).astype(np.float32)
    meta["features"]["feed_embedding"] = {"kind": "dense", "table": "feed", "daily": False}
    meta["features"]["user_taste"] = {"kind": "dot", "table": "user", "daily": True, "with": "feed_embedding", "columns": ["like", "follow", "watch_time", "views"]}
    write_all(tmp_path, {"train.pkl": rows, "valid.pkl": dict(rows), "meta.pkl": meta, "vocabularies.pkl": {"stamp": "x"}, **{f"{name}.pkl": table for name, table in tables.items()}})
    folder = study.with_more(study.Folder(tmp_path))
    assert {"user_cooccurrence", "feed_cooccurrence"} <= set(folder.meta["features"])
    for name in ("user", "feed"):
        first = study.read(folder.path / f"{name}.pkl")[f"{name}_cooccurrence"][1:, 0]
        assert np.ptp(np.sign(first[:40])) == np.ptp(np.sign(first[40:])) == 0 and np.sign(first[0]) != np.sign(first[40])
    for name, columns in (("user_taste_without_views", [0, 1, 2]), ("user_taste_without_watch_times", [0, 1, 3])):
        names = [meta["features"]["user_taste"]["columns"][column] for column in columns]
        assert folder.meta["features"][name] == {**meta["features"]["user_taste"], "columns": names}
        np.testing.assert_array_equal(study.read(folder.path / "user.pkl")[name], tables["user"]["user_taste"][:, :, columns])


@pytest.mark.parametrize("name", ["deepfm", "FocalLoss", "mmoe", "ple"])
def test_what_is_searched_is_the_defaults_and_as_many_settings_for_each_model_that_its_script_takes(name, capsys):
    module, found = __import__(name), study.drawn(name)
    assert [flags for flags, _ in found[:2]] == ["", "--epochs 1" if name == "FocalLoss" else "--epochs 2"] and len(set(found)) == len(found) == study.BUDGET and found == study.drawn(name)
    read = [parse(module.Settings, None, flags.split()) for flags, _ in found]
    assert len({json.dumps(hyperparameters(settings)) for settings in read}) == study.BUDGET and read[0] == module.Settings()
    assert {min_count for _, min_count in found} == {2, 5, 20}
    with pytest.raises(SystemExit):
        get_data.main(["--help"])
    assert f"ids of fewer training rows share one row (default: {found[0][1]})" in " ".join(capsys.readouterr().out.split())


def test_what_is_searched_on_validates_the_day_before_the_last_and_is_made_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    (tmp_path / "get_data.py").symlink_to(ROOT / "get_data.py")
    study.encoded.cache_clear()
    made = study.encoded(tiny, 3)
    assert made.path == tmp_path / "user_data" / "search" / f"{tiny.name}-3" and made.meta["valid_day"] == 13
    assert study.encoded(tiny, 1).meta["vocabularies"]["feedid"] > made.meta["vocabularies"]["feedid"]
    study.encoded.cache_clear()
    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: pytest.fail("get_data.py was run again"))
    assert study.encoded(tiny, 3).fingerprint == made.fingerprint
    study.encoded.cache_clear()


@pytest.mark.parametrize("many", [1, 10**9])
def test_the_search_ranks_all_settings_of_each_model(many, folder, tmp_path, monkeypatch):
    asked = []

    def runs(self, script, flags, seeds):
        asked.append((script, flags, seeds))
        scores = {f"auc_{task}": 0.5 + 0.001 * len(flags) for task in self.tasks} | {f"uauc_{task}": 0.1 for task in self.tasks}
        return {seed: {**scores, "rows_per_second": 7} for seed in range(seeds)}

    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(study, "MANY", many)
    monkeypatch.setattr(study.Folder, "runs", runs)
    encodings = []
    monkeypatch.setattr(study, "encoded", lambda source, min_count: encodings.append(min_count) or folder)
    monkeypatch.setattr(folder, "told", folder.tasks)
    study.search(["anywhere"])
    wanted = [(script, *one) for script in ("deepfm", "FocalLoss", "mmoe", "ple") for one in study.drawn(script)]
    assert asked == [(script, flags, 1 if many == 1 else 2) for script, flags, _ in wanted] and encodings == [min_count for *_, min_count in wanted]
    rows = list(csv.DictReader(open(tmp_path / "tests" / "search.csv")))
    for name in ("deepfm", "mmoe"):
        mine = [row for row in rows if row["model"] == name]
        assert [len(row["flags"]) for row in mine] == sorted((len(flags) for script, flags, _ in wanted if script == name), reverse=True)
        assert float(mine[-1]["mean"]) == (0.3 if many == 1 else 0.5)  # uAUC counts where it is steady
