"""What the pickles of a `user_data` folder hold, checked once against `user_data/README.md`.

Nothing downstream checks again.
"""

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from common import schema
from common.columns import TESTS
from common.command import InputError
from common.pickles import VERSION, read, stamp_of

import numpy as np

MANY_ROWS = 500  # training rows an id, from which embeddings may see their rows again
SOME = 10_000  # rows
MANY = 131_072  # rows: their mean prediction has a standard error of about a hundredth of it
LONG = 1000  # steps that are enough to train a network


@dataclass
class Data:
    """What the pickles of one folder hold; tasks, loss_weights, features as `choose` chose them."""

    meta: dict  # the contents of meta.pkl
    tables: dict  # {key: {column: array}}, one row a user, a feed, ...; row 0 is the unknown one
    train: dict  # {column: array (rows,)}; one named like a table holds row numbers in it
    folder: Path
    valid: dict = field(default_factory=dict)  # the same; {} where every day is trained on
    test: dict = field(default_factory=dict)  # the same; {} without labelled rows for the end
    tasks: dict = field(default_factory=dict)  # {task: weight in the score}
    loss_weights: dict = field(default_factory=dict)  # {task: weight in the loss}
    features: dict = field(default_factory=dict)  # {feature: description}
    unlabelled: dict = field(default_factory=dict)  # {"test_a": columns, ...}, what is there
    vocabularies: dict = field(default_factory=dict)  # {name: raw ids, sorted}, {} without a file

    def choose(self, tasks=(), loss_weights=(), features=()):
        """Choose by names, and weights in the loss in the tasks' order; () for the data's own.

        Raises InputError for what the data lack.
        """
        every = self.meta["tasks"] | self.meta.get("more_tasks", {})
        self.tasks = chosen(tasks or self.meta["tasks"], every, "--tasks", self.folder)
        described = self.meta["features"]
        default = [name for name in described if described[name].get("default", True)]
        names = features or default or described
        self.features = chosen(names, described, "--features", self.folder)
        weights = loss_weights or [1.0] * len(self.tasks)
        if len(weights) != len(self.tasks):
            names = ", ".join(self.tasks)
            given = ",".join(map(str, weights))
            raise InputError(f"--task-weights {given}: give one weight each of {names}.")
        self.loss_weights = dict(zip(self.tasks, weights, strict=True))

    @property
    def first_task(self):
        """The task that is reported where none is named."""
        return "read_comment" if "read_comment" in self.tasks else next(iter(self.tasks))

    def groups_of(self, rows):
        """The group of each of these rows, within which uAUC ranks; None for no uAUC."""
        return rows.get(self.meta["group"])

    @cached_property
    def first_rows(self):
        """The first SOME training rows."""
        return {name: column[:SOME] for name, column in self.train.items()}

    @cached_property
    def sample(self):
        """MANY training rows at random, always the same, or all where there are no more."""
        n = len(self.train[self.first_task])
        rows = np.random.default_rng(0).choice(n, min(n, MANY), replace=False)
        return {name: column[rows] for name, column in self.train.items()}

    @cached_property
    def has_few_ids(self):
        """Whether training has many rows for each id, so that embeddings learn no row by heart."""
        names = {f["vocabulary"] for f in self.features.values() if "vocabulary" in f}
        most = max((self.meta["vocabularies"][name] for name in names), default=0)
        return len(self.train[next(iter(self.tasks))]) >= MANY_ROWS * most

    def usual_epochs(self, batch_size, at_least=1, at_most=1):
        """Epochs that fit the data: as many as make LONG steps, within these bounds, or up to 8.

        Up to 8 where ids are few, since embeddings then learn nothing by heart.
        """
        at_most = 8 if self.has_few_ids else max(at_least, at_most)
        return min(at_most, max(at_least, math.ceil(LONG / self.steps(batch_size))))

    @cached_property
    def fingerprint(self):
        """A short hash of all that scores depend on: equal for equal data only."""
        parts = {"tables": self.tables, "train": self.train, "valid": self.valid}
        parts |= {"test": self.test} if self.test else {}
        about = {key: self.meta[key] for key in ("features", "group", "vocabularies")}
        return stamp_of(parts | {"meta": about})

    def log_odds(self, task):
        """Log odds of `task` over the training rows, half a row added to each class."""
        labels = self.train[task]
        positives = float(labels.sum(dtype=np.float64))
        return math.log((positives + 0.5) / (len(labels) - positives + 0.5))

    def steps(self, batch_size):
        """Steps of an epoch, the last of them with rows that come again."""
        return math.ceil(len(self.train[self.first_task]) / batch_size)


def chosen(names, known, flag, folder):
    """{name: what is known of it} of the names. Raises InputError for one that is not known."""
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
            raise InputError(f"{flag} {name} is not in {folder}: {remedy}")
    return {name: known[name] for name in names}


def stamped(path, stamp):
    """The dict pickled in `path`, without its stamp, which must be that of meta.pkl. InputError."""
    content = read(path)
    right = isinstance(content, dict) and all(map(schema.is_name, content))
    schema.require(right, f"{path} is no dict of names")
    found = content.pop("stamp", None)
    schema.require(isinstance(found, str), f"{path}: 'stamp' is missing or no text")
    if found != stamp:
        raise InputError(
            f"{path} and meta.pkl are of different runs: write all files of a run anew."
        )
    return content


def load(folder):
    """The Data in `folder`. Raises InputError where any file does not keep the contract."""
    folder = Path(folder)
    meta = read(folder / "meta.pkl")
    version = meta.get("version") if isinstance(meta, dict) else None
    if not isinstance(version, int) or version != VERSION:
        raise InputError(
            f"{folder}/meta.pkl is of another version than {VERSION}: run `python get_data.py` "
            "again, or write your own by user_data/README.md."
        )
    schema.check_meta(meta, folder / "meta.pkl")
    tables = {key: stamped(folder / f"{key}.pkl", meta["stamp"]) for key in meta["tables"]}
    labelled = ["train"] if meta["valid_day"] is None else ["train", "valid", "test"]
    rows = {}
    for name in (*labelled, *TESTS):
        path = folder / f"{name}.pkl"
        if name in ("train", "valid") or path.exists():
            rows[name] = stamped(path, meta["stamp"])
    tests = {name: rows[name] for name in TESTS if name in rows}
    splits = {name: rows[name] for name in labelled if name in rows}
    data = Data(meta, tables, folder=folder, unlabelled=tests, **splits)
    for key, table in tables.items():
        schema.check_key(table, folder / f"{key}.pkl")
    for name, feature in meta["features"].items():
        if feature["table"] is not None:
            schema.check_column(data, name, feature)
    data.choose()
    for name, columns in rows.items():
        schema.check_rows(columns, data, folder / f"{name}.pkl", labelled=name in labelled)
    path = folder / "vocabularies.pkl"
    if path.exists():
        data.vocabularies = stamped(path, meta["stamp"])
        schema.check_vocabularies(data.vocabularies, meta["vocabularies"], path)
    return data
