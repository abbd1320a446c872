"""Compiled programs that are kept: what they save, and that damaged ones do no harm."""

import json
import os
import sys

from common import compiled

import pandas as pd
import pytest
from conftest import script

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="none is kept on a Mac")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_XLA_FLAGS")
    return compiled.keep_programs(tmp_path)


def listed(place):
    return set(json.loads((place / compiled.LIST).read_text()))


def test_what_is_not_as_it_was_listed_is_removed_before_it_is_read(place, tmp_path, monkeypatch):
    for name in ("whole", "short", "other"):
        (place / f"{name}.pb").write_bytes(name.encode() * 9)
    compiled.list_programs(place)
    assert listed(place) == {"whole.pb", "short.pb", "other.pb"}
    (place / "short.pb").write_bytes(b"short")
    (place / "other.pb").write_bytes(b"x" * 45)
    (place / "unlisted.pb").write_bytes(b"whole" * 9)
    assert compiled.keep_programs(tmp_path) == place
    assert {path.name for path in place.glob("*.pb")} == {"whole.pb"}
    (place / compiled.LIST).write_text("{")
    compiled.keep_programs(tmp_path)
    assert not list(place.glob("*.pb"))


def test_the_oldest_give_way(place, monkeypatch):
    monkeypatch.setattr(compiled, "LARGEST", 250)
    for age, name in enumerate("abcd"):
        (place / f"{name}.pb").write_bytes(b"x" * 100)
        os.utime(place / f"{name}.pb", (1000 - age, 1000 - age))
    compiled.list_programs(place)
    assert listed(place) == {"a.pb", "b.pb"} == {path.name for path in place.glob("*.pb")}


def test_files_may_go_at_any_time(place, monkeypatch):
    """Two commands of one folder, or a user who deletes it: a run that ends is no worse for it."""
    (place / "a.pb").write_bytes(b"x")
    hash_of = compiled.hash_of
    monkeypatch.setattr(compiled, "hash_of", lambda path: path.unlink() or hash_of(path))
    compiled.list_programs(place)
    place.rmdir()
    compiled.list_programs(place)
    assert not place.exists()


def test_a_users_own_flags_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug")
    assert compiled.keep_programs(tmp_path) is None
    assert os.environ["TF_XLA_FLAGS"] == "--tf_xla_clustering_debug"
    assert not list(tmp_path.iterdir())


def test_a_second_run_compiles_nothing_and_scores_the_same(small_pickles, tmp_path):
    world = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}
    words = ("deepfm.py", "--user-data", small_pickles, "--hidden", 8, "--batch-size", 4096)
    made = []
    for _ in range(2):
        assert script(*words, cwd=tmp_path, env=world).stderr == ""
        (place,) = (small_pickles / ".compiled").iterdir()
        made.append({path: path.stat().st_mtime_ns for path in place.glob("*.pb")})
        if len(made) == 1:
            damaged = min(made[0], key=lambda path: path.stat().st_size)
            damaged.write_bytes(damaged.read_bytes()[:999])
    first, second = made
    assert len(first) >= 2 and second.keys() == first.keys()
    assert {path for path in first if second[path] != first[path]} == {damaged}  # made anew
    rows = pd.read_csv(small_pickles / "results.csv")
    scores = [name for name in rows if name.startswith(("auc_r", "uauc_", "logloss_"))]
    assert len(scores) == 3 and (rows[scores].nunique() == 1).all()
