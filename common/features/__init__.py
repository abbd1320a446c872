"""The groups of features that get_data.py makes, a room each: a module with `features(past, made)`.

past: what was logged up to the validation day (`common.features.past.Past`). made: {name: Feature}
of the groups that the module names in `BUILDS_ON`, a tuple, if it has one. Two groups are made at a
time, so that `features` changes neither. It gives {name: Feature}, nothing where the data lack what
the group needs. A module's `ABOUT` is its line in the report.

A new group is a module here, its name in GROUPS behind those that it builds on, a paragraph in
user_data/README.md and a test.
"""

from dataclasses import dataclass

import numpy as np

GROUPS = ("content", "embedding", "cooccurrence", "history", "watch_time", "taste", "exposures")


@dataclass
class Feature:
    """A column, and what meta.pkl says of it; user_data/README.md explains the kinds."""

    kind: str  # "id", "list", "dense" or "dot"
    table: str | None  # "user", "feed", or None for a column of the interactions
    values: object = None  # the table's column; get_data.py encodes those of the interactions
    vocabulary: str | None = None  # of an id or a list
    known: np.ndarray | None = None  # raw ids of that vocabulary
    daily: bool | None = None  # of a dense or dot feature: one block of rows a day
    partner: str | None = None  # of a dot: the dense feature that it is multiplied with
    columns: tuple = ()  # the names of a dense feature's numbers, or of a dot's vectors
    default: bool = True  # whether it is used where --features does not name it

    def description(self):
        """What meta.pkl says of it."""
        about = {"kind": self.kind, "table": self.table}
        optional = {"vocabulary": self.vocabulary, "daily": self.daily, "with": self.partner}
        about |= {key: value for key, value in optional.items() if value is not None}
        if self.columns:
            about["columns"] = list(self.columns)
        if not self.default:
            about["default"] = False
        return about
