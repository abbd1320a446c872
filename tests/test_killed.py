"""Killed at any moment, a run leaves whole files, and the next run works.

More moments: KILLS=30 python -m pytest -q tests/test_killed.py
"""
import os
import random
import signal
import subprocess
import sys
import time

import keras
from conftest import ROOT, script

import deepfm  # noqa: F401 -- its layers
from common import results
from common.pickles import InputError, load

KILLS = int(os.environ.get("KILLS", 0))


def killed(name, *flags, cwd, share, seconds, how):
    """Run a script and send it a signal after this share of the seconds that it takes: its exit code and stderr."""
    run = subprocess.Popen([sys.executable, ROOT / name, *map(str, flags)], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, error = run.communicate(timeout=share * seconds)
    except subprocess.TimeoutExpired:
        run.send_signal(how)
        _, error = run.communicate()
    return run.returncode, error


def timed(name, *flags, cwd):
    since = time.perf_counter()
    script(name, *flags, cwd=cwd)
    return time.perf_counter() - since


def test_get_data_killed_at_random_moments_leaves_whole_files(tiny, tmp_path):
    stamps = set()
    for min_count in (5, 2):
        seconds = timed("get_data.py", tiny, "--min-count", min_count, cwd=tmp_path)
        stamps.add(load(tmp_path / "user_data").meta["stamp"])
    mixed, moments = 0, random.Random(0)
    for kill in range(KILLS or 4):
        how = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[kill % 3]
        killed("get_data.py", tiny, "--min-count", 5 if kill % 2 else 2, cwd=tmp_path, share=moments.uniform(0.3, 1.02), seconds=seconds, how=how)
        try:
            assert load(tmp_path / "user_data").meta["stamp"] in stamps
        except InputError as error:  # killed in the milliseconds between two renames
            assert "are of different runs: run `python get_data.py` again" in str(error)
            mixed += 1
    assert mixed <= 1 + KILLS / 10
    script("get_data.py", tiny, "--min-count", 5, cwd=tmp_path)
    assert load(tmp_path / "user_data").meta["stamp"] in stamps and not list((tmp_path / "user_data").glob(".writing-*"))


def test_a_training_run_killed_at_random_moments_leaves_whole_files(tiny, tmp_path):
    script("get_data.py", tiny, cwd=tmp_path)
    before = load(tmp_path / "user_data").meta["stamp"]
    seconds = timed("deepfm.py", "--epochs", 2, cwd=tmp_path)
    moments = random.Random(1)
    for kill in range(KILLS or 2):
        how = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[kill % 3]
        killed("deepfm.py", "--epochs", 2, cwd=tmp_path, share=moments.uniform(0.4, 1.02), seconds=seconds, how=how)
        data = load(tmp_path / "user_data")
        rows = results.read(tmp_path / "user_data", data.fingerprint)
        assert data.meta["stamp"] == before and 1 <= len(rows) <= kill + 2
        assert all(0.5 < float(row["auc_read_comment"]) < 1 for row in rows)
        keras.saving.load_model(tmp_path / "user_data" / "deepfm.keras")
        for picture in ("comparison.png", "deepfm.png"):
            assert (tmp_path / "user_data" / picture).read_bytes().endswith(b"IEND\xaeB`\x82")
    script("deepfm.py", "--epochs", 2, cwd=tmp_path)
    assert not list((tmp_path / "user_data").rglob(".writing-*"))
