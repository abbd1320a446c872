"""Where files cannot be written or read: a sentence, and what was there stays as it was."""

import ctypes
import errno
import os
import resource
import shutil
import subprocess
import sys

import deepfm  # noqa: F401  (its layers, for load_model)
from common import results
from common.command import InputError, user_errors
from common.compiled import keep_programs
from common.contract import load

import keras
import pytest
from conftest import ROOT, assert_one_sentence, run_main, script


def contents(folder):
    """{name: bytes} of the files that a user sees."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return {path.name: path.read_bytes() for path in paths}


def limited(name, *arguments, cwd, before):
    """Run a script after `before` in its process."""
    words = [sys.executable, ROOT / name, *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, preexec_fn=before)


def no_file_over(size):
    """Writing fails beyond this size, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_get_data_where_there_is_no_room(size, tiny, tmp_path):
    out = tmp_path / "out"
    script("get_data.py", tiny, "--out", out, cwd=tmp_path)
    before = contents(out)
    flags = (tiny, "--out", out, "--min-count", 2)
    run = limited("get_data.py", *flags, cwd=tmp_path, before=no_file_over(size))
    assert_one_sentence(run, "File too large", "make room", str(out))
    assert contents(out) == before and not list(out.glob(".writing-*"))


@pytest.mark.parametrize("size", [500_000])
def test_training_where_there_is_no_room(size, tiny_pickles, tmp_path):
    folder = shutil.copytree(tiny_pickles, tmp_path / "pickles")
    script("deepfm.py", "--user-data", folder, cwd=tmp_path)  # whose programs are kept
    before = contents(folder)
    flags = ("--user-data", folder, "--seed", 1)
    run = limited("deepfm.py", *flags, cwd=tmp_path, before=no_file_over(size))
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
    assert not list(folder.rglob(".writing-*"))
    assert len(results.load(folder, load(folder).fingerprint)["seed"].unique()) in (1, 2)
    keras.saving.load_model(folder / "deepfm.keras")
    after = contents(folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"results.csv", "deepfm_submission_a.csv", "deepfm_submission_b.csv"}


def test_where_no_compiled_program_can_be_written(tiny_pickles, tmp_path, monkeypatch):
    """Of which XLA says that memory ran out, or Keras that the data did."""
    flag = os.environ["TF_XLA_FLAGS"].split()[1]
    monkeypatch.setenv("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={tmp_path} {flag}")
    words = ("deepfm.py", "--user-data", tiny_pickles, "--embedding-dim", 3)
    run = limited(*words, cwd=tmp_path, before=no_file_over(10_000))
    assert_one_sentence(run, "make room on")
    assert not (tiny_pickles / "results.csv").exists()
    usage = shutil.disk_usage(tmp_path)
    for free, kept in ((0, False), (10**9, True)):
        monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert (keep_programs(tmp_path) is not None) == kept


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, OSError])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_as_one_whatever_says_so(kind, number, capsys):
    with pytest.raises(SystemExit) as ended, user_errors():
        raise kind(f"/x/y; {os.strerror(number)} [[node]]")
    assert ended.value.code == 2 and "make room on" in capsys.readouterr().err


def test_predictions_into_a_device_a_full_one_and_a_link(tiny, small_pickles, tmp_path):
    run_main("deepfm.py", "--user-data", small_pickles)
    flags = ("--user-data", small_pickles, "--predict", tiny / "test_a.csv")
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
    runs = []
    try:
        (locked / "feed_info.csv").chmod(0)
        out.chmod(0o500)
        for words in (
            ("get_data.py", locked, "--out", tmp_path / "new"),
            ("get_data.py", tiny, "--out", out),
            ("deepfm.py", "--user-data", out),
        ):
            runs.append(limited(*words, cwd=tmp_path, before=without_the_rights_of_root))
        (out / "train.pkl").chmod(0)
        words = ("deepfm.py", "--user-data", out)
        runs.append(limited(*words, cwd=tmp_path, before=without_the_rights_of_root))
    finally:
        out.chmod(0o700)
    names = ("feed_info.csv", str(out), str(out), "train.pkl")
    for run, name in zip(runs, names, strict=True):
        assert_one_sentence(run, name, "Permission denied", "check its permissions")
