"""The pickles of `user_data`: written whole or not at all, and read without running anything they hold.

`user_data/README.md` is their contract; `load` checks a folder against it once, so that nothing downstream checks again.
"""
import hashlib
import io
import os
import pickle
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

VERSION = 2
PADDING, OTHER, FIRST = 0, 1, 2  # codes of "no value", of ids unseen or rare in training, and of the first real id


class InputError(Exception):
    """A mistake in what the user gave: one sentence that names the place and the remedy."""


class _ArraysOnly(pickle.Unpickler):
    """Unpickler for NumPy arrays and plain containers: no other name is ever looked up."""

    allowed = {
        (module, name)
        for core in ("numpy._core", "numpy.core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"), (f"{core}.multiarray", "scalar"), (f"{core}.numeric", "_frombuffer"),
        )
    } | {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module, name):
        if (module, name) not in self.allowed:
            raise InputError(f"it holds {module}.{name}, and only NumPy arrays and plain containers are accepted")
        return super().find_class(module, name)


def read(path):
    """The object pickled in `path`. Raises InputError if the file is missing, damaged or holds anything but arrays."""
    try:
        return _ArraysOnly(io.BytesIO(Path(path).read_bytes())).load()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `python get_data.py` first.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions.") from None
    except InputError as error:
        raise InputError(f"{path} is refused: {error}; make it again with `python get_data.py`.") from None
    except MemoryError:
        raise
    except Exception:  # a damaged pickle can raise nearly anything
        raise InputError(f"{path} is damaged: make it again with `python get_data.py`.") from None


def write_all(folder, objects):
    """Write {file name: object} to `folder`: every file beside its place first, then all are renamed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_behind(folder)
    with tempfile.TemporaryDirectory(prefix=f".writing-{os.getpid()}-", dir=folder) as aside:
        for name, content in objects.items():
            with open(Path(aside, name), "wb") as file:
                pickle.dump(content, file, protocol=5)
                file.flush()
                os.fsync(file.fileno())
        for name in objects:
            os.replace(Path(aside, name), folder / name)


@contextmanager
def beside(path):
    """A path next to `path` to write a file or a folder to: in the end it takes the place of `path`, or is removed if that failed."""
    path = Path(path)
    place = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        yield place
        os.replace(place, path)
    finally:
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


def remove_left_behind(folder):
    """Remove what processes that were killed while they wrote left in `folder`: .writing-PID-..."""
    for path in folder.glob(".writing-*"):
        pid = path.name.split("-")[1]
        try:
            os.kill(int(pid), 0)  # asks whether the process is there, and sends it nothing
        except ProcessLookupError:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except (ValueError, OSError):  # none of ours, or another user's
            continue


def known(features, meta):
    """Those of `features`, names separated by commas, that the pickles of `meta` have, in the same form."""
    return ",".join(name for name in features.split(",") if name in meta["features"])


@dataclass
class Data:
    """What the pickles of one `user_data` folder hold.

    meta: the contents of `meta.pkl`. tables: {key: {column: array}}, one row a user, a feed, ...; row 0 is the unknown one.
    train, valid: {column: array (rows,)} of interactions; a column named like a table is a row number in it.
    """

    meta: dict
    tables: dict
    train: dict
    valid: dict
    folder: Path
    loss_weights: dict = field(default_factory=dict)  # {task: weight in the loss}

    def choose(self, tasks, loss_weights):
        """Make `tasks` the tasks ([] for those that meta.pkl names), weighted so in the loss ([] for 1 each)."""
        known = self.meta["tasks"] | self.meta.get("more_tasks", {})
        for task in tasks:
            if task not in known:
                raise InputError(f"--tasks {task} is no task of {self.folder}: it has {', '.join(known)}.")
        self.meta["tasks"] = {task: known[task] for task in tasks or self.meta["tasks"]}
        if loss_weights and len(loss_weights) != len(self.meta["tasks"]):
            raise InputError(f"--task-weights gives {len(loss_weights)} weights for the tasks {', '.join(self.meta['tasks'])}.")
        self.loss_weights = dict(zip(self.meta["tasks"], loss_weights or [1.0] * len(self.meta["tasks"])))

    @cached_property
    def fingerprint(self):
        """A short hash of what scores depend on: equal for equal data only, whatever the stamp says."""
        digest = hashlib.blake2b(repr(self.meta["stamp"]).encode(), digest_size=8)
        for split in (self.train, self.valid):
            for name in sorted(split):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(split[name]))
        return digest.hexdigest()

    def log_odds(self, task):
        """Log odds of `task` over the training rows, half a row added to each class so that it is finite."""
        labels = self.train[task]
        positives = float(labels.sum(dtype=np.float64))
        return float(np.log((positives + 0.5) / (len(labels) - positives + 0.5)))


def load(folder):
    """The Data in `folder`. Raises InputError where it does not keep the contract of `user_data/README.md`."""
    folder = Path(folder)
    meta = read(folder / "meta.pkl")
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        raise InputError(f"{folder}/meta.pkl is of another version: run `python get_data.py` again.")
    tables = {key: read(folder / f"{key}.pkl") for key in meta["tables"]}
    data = Data(meta, tables, read(folder / "train.pkl"), read(folder / "valid.pkl"), folder)
    for name, content in {**tables, "train": data.train, "valid": data.valid}.items():
        if content.pop("stamp", None) != meta["stamp"]:
            raise InputError(f"{folder}/{name}.pkl and meta.pkl are of different runs: run `python get_data.py` again.")
    _check(data)
    return data


def _check(data):
    for split in ("train", "valid"):
        rows, place = getattr(data, split), f"{data.folder}/{split}.pkl"
        lengths = {len(column) for column in rows.values()}
        if len(lengths) != 1 or not min(lengths):
            raise InputError(f"{place} is empty or its columns differ in length: write it again.")
        for task in data.meta["tasks"] | data.meta.get("more_tasks", {}):
            if task not in rows or not np.isin(rows[task], (0, 1)).all():
                raise InputError(f"{place}: column {task} must be there and hold 0 and 1 only.")
        for key, table in data.tables.items():
            _check_codes(rows.get(key), len(table["key"]), f"{place}: column {key}")
    for name, feature in data.meta["features"].items():
        table = feature.get("table")
        holders = [(f"{table}.pkl", data.tables[table])] if table else [("train.pkl", data.train), ("valid.pkl", data.valid)]
        for file, columns in holders:
            place = f"{data.folder}/{file}: column {name}"
            if name not in columns:
                raise InputError(f"{place} is missing, and meta.pkl names it among the features.")
            if feature["kind"] == "dot":
                _check_dot(data, feature, columns[name], place)
            if feature["kind"] in ("id", "list"):
                column = columns[name]["values"] if feature["kind"] == "list" else columns[name]
                _check_codes(column, data.meta["vocabularies"][feature["vocabulary"]], place)
            elif not np.isfinite(columns[name]).all():
                raise InputError(f"{place} holds NaN or infinity: replace them, 0 being the mean.")


def _check_dot(data, feature, own, place):
    other = data.meta["features"].get(feature.get("with"), {})
    if other.get("kind") != "dense" or other.get("daily") or other.get("table") is None:
        raise InputError(f"{place}: the feature {feature.get('with')!r} that it is multiplied with must be dense, not daily and in a table.")
    width = data.tables[other["table"]][feature["with"]].shape[1]
    if own.ndim != (4 if feature["daily"] else 3) or own.shape[-1] != width:
        raise InputError(f"{place} must have vectors as long as those of {feature['with']}, {width} numbers: write it again.")


def _check_codes(column, size, place):
    if column is None or column.dtype.kind not in "iu":
        raise InputError(f"{place} must be there and hold integers.")
    if len(column) and not (column.min() >= 0 and column.max() < size):
        raise InputError(f"{place} holds codes outside 0..{size - 1}: encode it again.")
