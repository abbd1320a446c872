"""Where files cannot be written or read: a sentence, and what was there stays as it was."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import deepfm  # noqa: F401  (its layers, for load_model)
from common import results
from common.command import InputError
from common.compiled import keep_programs
from common.contract import load

import keras
import pytest
from conftest import ROOT, assert_one_sentence, run_main, script


def contents(folder):
    """{name: bytes} of the files that a user sees."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return {path.name: path.read_bytes() for path in paths}


def no_file_over(size):
    """Writing fails beyond this size, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_get_data_where_there_is_no_room(size, tiny, tmp_path):
    out = tmp_path / "out"
    script("get_data.py", tiny, "--out", out, cwd=tmp_path)
    before = contents(out)
    flags = (tiny, "--out", out, "--min-count", 2)
    run = script("get_data.py", *flags, cwd=tmp_path, check=False, preexec_fn=no_file_over(size))
    assert_one_sentence(run, "File too large", "make room", str(out))
    assert contents(out) == before and not list(out.glob(".writing-*"))


WITHOUT_CHECKPOINTS = """
import sys, deepfm
from common.command import user_errors
from common.resume import Resume
Resume.save = lambda self: None
with user_errors():
    deepfm.main(sys.argv[1:])
"""


@pytest.mark.parametrize("part", ["latest.npz", "deepfm.keras"])
def test_training_where_there_is_no_room(part, deepfm_run, tmp_path):
    """For a checkpoint, and for the model: each is the first file that is too large."""
    before = contents(deepfm_run)
    words = ["-c", WITHOUT_CHECKPOINTS] if part == "deepfm.keras" else [ROOT / "deepfm.py"]
    words += ["--user-data", deepfm_run, "--epochs", "2", "--seed", "1"]  # compiled before
    run = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=no_file_over(len(before["deepfm.keras"]) - 1),
    )
    assert_one_sentence(run, part, "File too large", "make room")
    assert not list(deepfm_run.rglob(".writing-*"))
    after = contents(deepfm_run)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == ({"results.csv"} if part == "deepfm.keras" else set())
    seeds = results.load(deepfm_run, load(deepfm_run).fingerprint)["seed"]
    assert seeds.nunique() == 1 + len(changed)
    keras.saving.load_model(deepfm_run / "deepfm.keras")


@pytest.mark.skipif(sys.platform == "darwin", reason="none is kept on a Mac")
def test_where_no_compiled_program_can_be_written(tiny_pickles, tmp_path, monkeypatch):
    """Of which XLA says that memory ran out, or Keras that the data did."""
    flag = os.environ["TF_XLA_FLAGS"].split()[1]
    monkeypatch.setenv("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={tmp_path} {flag}")
    words = ("deepfm.py", "--user-data", tiny_pickles, "--embedding-dim", 3)
    run = script(*words, cwd=tmp_path, check=False, preexec_fn=no_file_over(10_000))
    assert_one_sentence(run, "make room on")
    assert not (tiny_pickles / "results.csv").exists()
    usage = shutil.disk_usage(tmp_path)
    for free, kept in ((0, False), (10**9, True)):
        monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert (keep_programs(tmp_path) is not None) == kept


def test_predictions_into_a_device_a_full_one_and_a_link(tiny, deepfm_run, tmp_path):
    flags = ("--user-data", deepfm_run, "--predict", tiny / "test_a.csv")
    if Path("/dev/full").exists():  # a Mac has none
        run = script("deepfm.py", *flags, "--out", "/dev/full", cwd=tmp_path, check=False)
        assert_one_sentence(run, "No space left", "make room")
    run_main("deepfm.py", *flags, "--out", "/dev/null")
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    run_main("deepfm.py", *flags, "--out", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "target.csv").stat().st_size > 1000
    with pytest.raises(InputError, match=r"--out .* its folder does not exist"):
        run_main("deepfm.py", *flags, "--out", tmp_path / "no" / "x.csv")


def without_the_rights_of_root():
    """Give up what lets root write where permissions forbid it."""
    for capability in (1, 2) if os.geteuid() == 0 else ():  # CAP_DAC_OVERRIDE, _READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability)  # PR_CAPBSET_DROP


def test_a_folder_without_permission_is_named(tiny, tiny_pickles, tmp_path):
    locked = shutil.copytree(tiny, tmp_path / "locked")
    out = shutil.copytree(tiny_pickles, tmp_path / "out")
    try:
        (locked / "feed_info.csv").chmod(0)
        out.chmod(0o500)
        for words, name in (
            (("get_data.py", locked, "--out", tmp_path / "new"), "feed_info.csv"),
            (("get_data.py", tiny, "--out", out), str(out)),
            (("deepfm.py", "--user-data", out), str(out)),
            (("deepfm.py", "--user-data", out), "train.pkl"),
        ):
            (out / "train.pkl").chmod(0 if name == "train.pkl" else 0o600)
            run = script(*words, cwd=tmp_path, check=False, preexec_fn=without_the_rights_of_root)
            assert_one_sentence(run, name, "Permission denied", "check its permissions")
    finally:
        out.chmod(0o700)
