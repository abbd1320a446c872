"""The pickles of `user_data`: written whole or not at all, and read without running them."""

import hashlib
import os
import pickle
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common import safe_pickle
from common.command import InputError

import numpy as np

VERSION = 3  # of the contract, user_data/README.md
PADDING = 0  # the code of "no value"
OTHER = 1  # the code of ids that are unseen or rare in training
FIRST = 2  # the code of the first real id


def read(path):
    """The object pickled in `path`. Raises InputError if it is missing, damaged or unsafe."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return safe_pickle.load(file)
    except FileNotFoundError:
        remedy = "run `python get_data.py`, or give a folder of pickles by --user-data"
        if path.name != "meta.pkl":
            remedy = "write all files of the folder anew"
        raise InputError(f"{path} is missing: {remedy}.") from None
    except (OSError, MemoryError) as error:
        if isinstance(error, MemoryError) or error.errno is not None:
            raise
        raise InputError(f"{path} is damaged: write it again.") from None
    except safe_pickle.Refused as error:
        raise InputError(
            f"{path} is refused, since it holds {error}: write plain values and arrays of numbers."
        ) from None
    except Exception:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is damaged: write it again.") from None


def write_all(folder, objects):
    """Write {file name: object} to `folder`: every file beside its place, then all are renamed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_behind(folder)
    with ExitStack() as renamed:
        for name, content in objects.items():
            place = renamed.enter_context(beside(folder / name))
            with open(place, "wb") as file:
                pickle.dump(content, file, protocol=5)
                file.flush()
                os.fsync(file.fileno())


def stamp_of(parts):
    """A short hash of {name: value}, of dicts and arrays in it: equal for equal data only."""
    digest = hashlib.blake2b(digest_size=8)

    def add(name, value):
        digest.update(name.encode())
        if isinstance(value, dict):
            for key in sorted(value):
                add(key, value[key])
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).view(np.uint8).reshape(-1))
        else:
            digest.update(repr(value).encode())

    for name, value in parts.items():
        add(name, value)
    return digest.hexdigest()


@contextmanager
def beside(path):
    """A path next to `path` to write to; in the end it takes the place of `path`.

    What failed is removed, and what processes that were killed left of it. A link is followed; a
    device such as /dev/stdout is written to itself. An OSError that names no file, as where a disk
    is full, gets the path.
    """
    given = Path(path)
    path = Path(os.path.realpath(given))
    is_device = given.exists() and not (given.is_file() or given.is_dir())
    is_device = is_device or path.parts[:3] == ("/", "dev", "fd")  # what a Mac's /dev/stdout is
    place = given if is_device else path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        if not is_device:
            remove_left_behind(path.parent, f"-{path.name}")
        yield place
        if not is_device:
            os.replace(place, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        if not is_device:
            remove(place)


def remove(path):
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_left_behind(folder, ending=""):
    """Remove what processes that were killed while they wrote left in it: .writing-PID-..."""
    for path in folder.glob(".writing-*"):
        if not path.name.endswith(ending):
            continue
        try:
            os.kill(int(path.name.split("-")[1]), 0)  # asks whether it is there, and sends nothing
        except ProcessLookupError:
            remove(path)
        except (ValueError, OSError):  # none of ours, or another user's
            continue
