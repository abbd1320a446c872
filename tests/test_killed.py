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


def killed(kill, moment, name, *flags, cwd):
    """Run a script and send it the kill-th signal at a moment, or let it end before: its pid."""
    words = [sys.executable, ROOT / name, *map(str, flags)]
    run = subprocess.Popen(words, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        run.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[kill % 3])
        run.wait()
    return run.pid


def test_get_data_killed_at_random_moments_leaves_whole_files(tiny, tmp_path):
    folder = tmp_path / "user_data"
    commands = [("get_data.py", tiny, "--min-count", min_count) for min_count in (2, 5)]
    stamps = set()
    for words in commands:
        since = time.perf_counter()
        script(*words, cwd=tmp_path)
        seconds = time.perf_counter() - since
        stamps.add(load(folder).meta["stamp"])
    n_mixed = 0
    rng = random.Random(0)
    for kill in range(KILLS or 4):
        killed(kill, rng.uniform(0.3, 1.02) * seconds, *commands[kill % 2], cwd=tmp_path)
        try:
            assert load(folder).meta["stamp"] in stamps
        except InputError as error:  # killed in the milliseconds between two renames
            assert "are of different runs: write all files of a run anew" in str(error)
            n_mixed += 1
            script(*commands[0], cwd=tmp_path)  # the remedy: or the next kill would find them still
    assert len(stamps) == 2 and n_mixed <= 1 + KILLS / 10
    script(*commands[0], cwd=tmp_path)
    assert load(folder).meta["stamp"] in stamps and not list(folder.glob(".writing-*"))


def test_a_training_run_killed_at_random_moments_leaves_whole_files(deepfm_run, tmp_path):
    words = ("deepfm.py", "--user-data", deepfm_run, "--epochs", 2)
    fingerprint = load(deepfm_run).fingerprint
    seconds = float((deepfm_run / "seconds.txt").read_text())
    rng = random.Random(1)
    for kill in range(KILLS or 1):
        pid = killed(kill, rng.uniform(0.4, 1.02) * seconds, *words, cwd=tmp_path)
        rows = results.read(deepfm_run)
        assert load(deepfm_run).fingerprint == fingerprint and 1 <= len(rows) <= kill + 2
        assert rows["auc_read_comment"].astype(float).between(0.5, 1).all()
        keras.saving.load_model(deepfm_run / "deepfm.keras")
        for picture in ("comparison.png", "deepfm.png"):
            assert (deepfm_run / picture).read_bytes().endswith(b"IEND\xaeB`\x82")
    (deepfm_run / f".writing-{pid}-deepfm.keras").write_text("half of it")
    script(*words, cwd=tmp_path)
    assert not list(deepfm_run.rglob(".writing-*"))
