"""Folders that several tests use: a small stand-in, and the real data where it is there."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KUAIRAND = Path(os.environ.get("KUAIRAND") or ROOT / "data" / "KuaiRand-Pure" / "data")


def script(name, *arguments, cwd, check=True):
    """Run a script of the project as a user would, from the folder `cwd`; returns the finished process."""
    run = subprocess.run([sys.executable, ROOT / name, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert not check or run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """The CSVs of the stand-in at its default scale, .1."""
    folder = tmp_path_factory.mktemp("stand_in")
    script("data/sample.py", folder, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The CSVs of a stand-in of 100 users."""
    folder = tmp_path_factory.mktemp("tiny")
    script("data/sample.py", folder, "--scale", "0.005", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pickles(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_pickles")
    script("get_data.py", tiny, "--out", folder, cwd=folder)
    return folder
