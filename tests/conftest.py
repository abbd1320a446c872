"""Folders that several tests use: a small stand-in, and the real data where it is there."""

import atexit
import io
import multiprocessing
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
KUAIRAND = Path(os.environ.get("KUAIRAND") or ROOT / "data" / "KuaiRand-Pure" / "data")
sys.path.insert(0, str(ROOT))
if (
    "TF_XLA_FLAGS" not in os.environ and sys.platform != "darwin"
):  # workers and scripts compile an equal program once
    cache = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    flags = {"directory": cache, "device_types": "CPU,XLA_CPU_JIT"}
    flags = [f"--tf_xla_persistent_cache_{name}={value}" for name, value in flags.items()]
    os.environ["TF_XLA_FLAGS"] = " ".join(flags)


# a Mac's linear algebra may not be forked once it was used
SERVER = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "forkserver")
SERVER.set_forkserver_preload(["mmoe", "FocalLoss", "matplotlib.figure", "pandas"])


def script(name, *arguments, cwd, check=True, **options):
    """Run a script of the project as a user would, from the folder `cwd`: the finished process."""
    words = [sys.executable, ROOT / name, *map(str, arguments)]
    run = subprocess.run(words, cwd=cwd, capture_output=True, text=True, **options)
    assert not check or run.returncode == 0, run.stderr
    return run


def printed(name, *arguments):
    """What a script's `main` prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        import_module(name.removesuffix(".py")).main([str(word) for word in arguments])
    return out.getvalue()


def forked(function, *arguments):
    """What the function gives in a process of its own, which has imported what scripts import.

    It is quicker than `script`, and, unlike a second run in one process, finds programs that were
    compiled before: TensorFlow numbers its functions within a process, and keeps them by name.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for what the server imports when it starts
        if SERVER.get_start_method() == "forkserver":
            forkserver.ensure_running()
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        return pool.submit(function, *arguments).result()


def run_main(name, *arguments):
    """Run a script's `main`: what it printed, as a finished process has; what it raises."""
    return SimpleNamespace(stdout=forked(printed, name, *arguments), stderr="")


def assert_one_sentence(run, *parts):
    """A refused input: exit code 2, and one line on stderr that holds these parts."""
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert "Traceback" not in run.stderr
    for part in parts:
        assert part in run.stderr, run.stderr


def in_terminal(name, *arguments, cwd, interrupt=False):
    """Run a script whose stderr is a terminal: exit code, stdout, stderr.

    interrupt: stop it by Ctrl-C at its first bar.
    """
    ours, its = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, ROOT / name, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=its,
        text=True,
        # a shell ignores it for what runs in the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(its)
    shown = b""
    try:
        while block := os.read(ours, 1 << 16):
            shown += block
            if interrupt and b"%" in shown:
                run.send_signal(signal.SIGINT)
                interrupt = False
    except OSError:  # how Linux says that the other end of a terminal is closed
        pass
    os.close(ours)
    return run.wait(), run.stdout.read(), shown.decode()


def shared(factory, name, make):
    """A folder of files that no test changes, filled once for all workers by make(folder)."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not folder.exists():
            begun = Path(tempfile.mkdtemp(dir=root))
            make(begun)
            begun.rename(folder)
    return folder


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """The CSVs of the stand-in at its default scale, .1."""
    return shared(tmp_path_factory, "stand_in", lambda out: script("data/sample.py", out, cwd=out))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The CSVs of a stand-in of 100 users."""
    words = ("data/sample.py", "--scale", 0.005)
    return shared(tmp_path_factory, "tiny", lambda out: script(*words, out, cwd=out))


@pytest.fixture(scope="session")
def tiny_made(tiny, tmp_path_factory):
    words = ("get_data.py", tiny, "--out")
    return shared(tmp_path_factory, "tiny_made", lambda out: script(*words, out, cwd=out))


@pytest.fixture(scope="session")
def stand_in_made(stand_in, tmp_path_factory):
    """Its pickles, which no test changes."""
    words = ("get_data.py", stand_in, "--out")
    return shared(tmp_path_factory, "stand_in_made", lambda out: script(*words, out, cwd=out))


@pytest.fixture(scope="session")
def deepfm_made(tiny_made, tmp_path_factory):
    """Small pickles on which deepfm.py has run for two epochs, and what it printed and took."""

    def make(out):
        with_few_features(shutil.copytree(tiny_made, out, dirs_exist_ok=True))
        since = time.perf_counter()
        run = script("deepfm.py", "--user-data", out, "--epochs", 2, cwd=out)
        assert run.stderr == ""
        (out / "printed.txt").write_text(run.stdout)
        (out / "seconds.txt").write_text(str(time.perf_counter() - since))

    return shared(tmp_path_factory, "deepfm_made", make)


@pytest.fixture
def stand_in_pickles(stand_in_made, tmp_path):
    """The same for one test, which may write into the folder."""
    return shutil.copytree(stand_in_made, tmp_path / "stand_in_pickles", copy_function=os.link)


@pytest.fixture
def source(tmp_path):
    """A folder with the contest's files made by hand."""
    from contest_files import FILES

    folder = tmp_path / "csv"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def tiny_pickles(tiny_made, tmp_path):
    """A folder of the tiny stand-in's pickles for one test, which may write into it."""
    return shutil.copytree(tiny_made, tmp_path / "tiny_pickles", copy_function=os.link)


@pytest.fixture
def small_pickles(tiny_pickles):
    """The same, whose models take a feature of each kind but dots: they compile in less time."""
    return with_few_features(tiny_pickles)


def with_few_features(folder):
    from common.pickles import read, write_all

    meta = read(folder / "meta.pkl")
    for name, feature in meta["features"].items():
        feature["default"] = name in ("userid", "device", "manual_tag_list", "user_history")
    write_all(folder, {"meta.pkl": meta})
    return folder


@pytest.fixture
def deepfm_run(deepfm_made, tmp_path):
    """A copy of deepfm_made for one test, which may write into it."""
    return shutil.copytree(deepfm_made, tmp_path / "deepfm_run", copy_function=os.link)
