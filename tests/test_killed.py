"""Killed at any moment, a run leaves whole files, and the next run works.

More moments: KILLS=30 python -m pytest -q tests/test_killed.py
"""

import os
import random
import signal
import subprocess
import sys
import time

import deepfm  # noqa: F401 -- its layers
from common import results
from common.command import InputError
from common.contract import load

import keras
from conftest import ROOT, script

KILLS = int(os.environ.get("KILLS", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def killed(kill, name, *flags, cwd, seconds):
    """Run a script and send it the kill-th signal after these seconds, if it is not done before."""
    words = [sys.executable, ROOT / name, *map(str, flags)]
    run = subprocess.Popen(words, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        run.send_signal(SIGNALS[kill % 3])
        run.wait()


def timed(name, *flags, cwd):
    """The seconds that a script takes."""
    since = time.perf_counter()
    script(name, *flags, cwd=cwd)
    return time.perf_counter() - since


def test_get_data_killed_at_random_moments_leaves_whole_files(tiny, tmp_path):
    folder = tmp_path / "user_data"
    stamps = set()
    for min_count in (5, 2):
        seconds = timed("get_data.py", tiny, "--min-count", min_count, cwd=tmp_path)
        stamps.add(load(folder).meta["stamp"])
    n_mixed = 0
    moments = random.Random(0)
    for kill in range(KILLS or 4):
        words = ("get_data.py", tiny, "--min-count", 5 if kill % 2 else 2)
        killed(kill, *words, cwd=tmp_path, seconds=moments.uniform(0.3, 1.02) * seconds)
        try:
            assert load(folder).meta["stamp"] in stamps
        except InputError as error:  # killed in the milliseconds between two renames
            assert "are of different runs: write all files of a run anew" in str(error)
            n_mixed += 1
    assert len(stamps) == 2 and n_mixed <= 1 + KILLS / 10
    script("get_data.py", tiny, "--min-count", 5, cwd=tmp_path)
    assert load(folder).meta["stamp"] in stamps and not list(folder.glob(".writing-*"))


def test_a_training_run_killed_at_random_moments_leaves_whole_files(tiny_pickles, tmp_path):
    words = ("deepfm.py", "--epochs", 2, "--user-data", tiny_pickles)
    before = load(tiny_pickles).fingerprint
    seconds = timed(*words, cwd=tmp_path)
    moments = random.Random(1)
    for kill in range(KILLS or 2):
        killed(kill, *words, cwd=tmp_path, seconds=moments.uniform(0.4, 1.02) * seconds)
        rows = results.read(tiny_pickles)
        assert load(tiny_pickles).fingerprint == before and 1 <= len(rows) <= kill + 2
        assert rows["auc_read_comment"].astype(float).between(0.5, 1).all()
        keras.saving.load_model(tiny_pickles / "deepfm.keras")
        for picture in ("comparison.png", "deepfm.png"):
            assert (tiny_pickles / picture).read_bytes().endswith(b"IEND\xaeB`\x82")
    script(*words, cwd=tmp_path)
    assert not list(tiny_pickles.rglob(".writing-*"))
