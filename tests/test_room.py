"""No room, on the disk, in memory or in a folder's permissions: one sentence, exit code 2, and nothing lost."""
import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from conftest import KUAIRAND, ROOT, script

import deepfm  # noqa: F401 -- its layers
from common import memory, results
from common.pickles import InputError, load


def limited(name, *arguments, cwd, before):
    """Run a script with the limits that the function `before` sets in its process; returns the finished process."""
    return subprocess.run(
        [sys.executable, ROOT / name, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, preexec_fn=before
    )


def assert_one_sentence(run, *words):
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and run.stderr.endswith(".\n"), run.stderr
    assert all(word in run.stderr for word in words), run.stderr


# ---- disk


@pytest.fixture
def disk(tmp_path):
    """A disk of 40 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and Linux")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk, left):
    """Leave this many bytes on the disk."""
    free = shutil.disk_usage(disk).free
    with open(disk / "filling", "wb") as file:
        file.write(bytes(max(free - left, 0)))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("left", [0, 200_000])
def test_get_data_on_a_full_disk(disk, tiny, left):
    script("get_data.py", tiny, "--out", disk / "out", cwd=disk)
    before = contents(disk / "out")
    fill(disk, left)
    assert_one_sentence(script("get_data.py", tiny, "--out", disk / "out", "--min-count", 2, cwd=disk, check=False), "No space left", str(disk))
    assert contents(disk / "out") == before and not list((disk / "out").glob(".*"))


def test_the_stand_in_and_kuairand_on_a_full_disk(disk):
    fill(disk, 300_000)
    assert_one_sentence(script("data/sample.py", disk / "out", "--scale", 0.005, cwd=disk, check=False), "No space left", str(disk))
    assert not any((disk / "out").iterdir())
    if KUAIRAND.is_dir():
        assert_one_sentence(script("data/kuairand.py", KUAIRAND, disk / "csv", cwd=disk, check=False), "No space left", str(disk))
        assert not any((disk / "csv").iterdir())


@pytest.mark.parametrize("left", [0, 1_200_000])
def test_training_on_a_full_disk(disk, tiny_pickles, left):
    folder = disk / "pickles"
    shutil.copytree(tiny_pickles, folder, ignore=lambda _, names: [n for n in names if not n.endswith(".pkl")])
    script("deepfm.py", "--user-data", folder, cwd=disk)
    before, stamp = contents(folder), load(folder).meta["stamp"]
    shutil.rmtree(folder / ".checkpoints", ignore_errors=True)
    fill(disk, left)
    assert_one_sentence(script("deepfm.py", "--user-data", folder, "--epochs", 2, cwd=disk, check=False), "No space left", str(folder))
    assert load(folder).meta["stamp"] == stamp and not list(folder.rglob(".writing-*"))
    assert len(results.read(folder, load(folder).fingerprint)) in (1, 2)
    keras.saving.load_model(folder / "deepfm.keras")
    assert {name for name, content in contents(folder).items() if content != before[name]} <= {"results.csv"}


# ---- permissions


def without_the_rights_of_root():
    """Give up what lets root write where permissions forbid it."""
    for capability in (1, 2) if os.geteuid() == 0 else ():  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability)  # PR_CAPBSET_DROP


def test_a_folder_without_permission_is_named(tiny, tiny_pickles, tmp_path):
    locked, out = tmp_path / "locked", tmp_path / "out"
    shutil.copytree(tiny, locked)
    shutil.copytree(tiny_pickles, out)
    try:
        for path, mode in ((locked / "feed_info.csv", 0), (out, 0o500)):
            path.chmod(mode)
        run = limited("get_data.py", locked, "--out", tmp_path / "new", cwd=tmp_path, before=without_the_rights_of_root)
        assert_one_sentence(run, "feed_info.csv: Permission denied", "check permissions")
        run = limited("get_data.py", tiny, "--out", out, cwd=tmp_path, before=without_the_rights_of_root)
        assert_one_sentence(run, str(out), "Permission denied")
        run = limited("deepfm.py", "--user-data", out, cwd=tmp_path, before=without_the_rights_of_root)
        assert_one_sentence(run, str(out), "Permission denied")
        (out / "train.pkl").chmod(0)
        run = limited("deepfm.py", "--user-data", out, cwd=tmp_path, before=without_the_rights_of_root)
        assert_one_sentence(run, "train.pkl cannot be read (Permission denied)")
    finally:
        out.chmod(0o700)


# ---- memory


def allowed(size):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


@pytest.mark.skipif(sys.platform != "linux", reason="macOS heeds no ulimit -v")
@pytest.mark.parametrize("name, size", [("get_data.py", 3e8), ("mmoe.py", 1e9), ("mmoe.py", 2.4e9)])
def test_too_little_memory_is_said_and_what_is_said_to_be_enough_is(name, size, tiny, tiny_pickles, tmp_path):
    shutil.copytree(tiny_pickles, tmp_path / "pickles")
    flags = (tiny,) if name == "get_data.py" else ("--user-data", tmp_path / "pickles")
    run = limited(name, *flags, cwd=tmp_path, before=allowed(int(size)))
    assert_one_sentence(run, "GB of memory, more than ulimit -v leaves")
    if size != 1e9:  # the import of TensorFlow comes first and knows of nothing that follows
        enough = float(re.search(r"allow ([\d.]+) GB by ulimit -v", run.stderr)[1])
        assert enough < 4 and limited(name, *flags, cwd=tmp_path, before=allowed(int((enough + 0.05) * 1e9))).returncode == 0


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_a_container_and_of_those_around_it_are_read(version, tmp_path, monkeypatch):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache") if version == 1 else ("memory.max", "memory.current", "file")
    top = tmp_path / ("memory" if version == 1 else "")
    inner = top / "outer" / "inner"
    inner.mkdir(parents=True)
    for group, limit, usage, cache in ((top / "outer", "5000", "1500", "500"), (inner, str(2**63 - 4096) if version == 1 else "max", "1000", "0")):
        for name, content in zip((names[0], names[1], "memory.stat"), (limit, usage, f"anon 1\n{names[2]} {cache}\n")):
            (group / name).write_text(content)
    (tmp_path / "listing").write_text("4:memory:/outer/inner\n2:cpu:/\n" if version == 1 else "0::/outer/inner\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    assert memory.left_by_groups(tmp_path / "listing") == 5000 - 1500 + 500
    monkeypatch.setattr(memory, "left_by_groups", lambda: 4000)
    with pytest.raises(InputError, match=r"encoding x takes about 1.0 GB of memory, more than the container's limit leaves: allow 1.0 GB more"):
        memory.require(1e9, 0, "encoding x")
    memory.require(4000, 0, "encoding x")


def test_a_container_that_is_too_small(tiny, tmp_path):
    own = next((line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line), None) if sys.platform == "linux" else None
    group = memory.GROUPS / "memory" / own[2].lstrip("/") / f"test-{os.getpid()}" if own else None
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("100000000")
    except (AttributeError, OSError):
        pytest.skip("making a control group needs root and version 1 of them")
    try:
        run = limited("get_data.py", tiny, cwd=tmp_path, before=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        assert_one_sentence(run, "GB of memory, more than the container's limit leaves")
    finally:
        group.rmdir()
