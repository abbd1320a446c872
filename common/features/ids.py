"""Raw ids, their rows in tables, and their codes."""

from common.csvs import MISSING
from common.pickles import OTHER, PADDING

import numpy as np


def distinct(ids):
    """The ids that occur, int64, sorted; np.unique would take twenty times as long."""
    import pandas as pd

    return np.sort(pd.unique(ids)).astype(np.int64)


def rows_of(ids, keys):
    """Table rows of raw ids, int32: 1 + the place in the sorted `keys`, 0 where they lack it."""
    if not len(keys):
        return np.zeros(len(ids), np.int32)
    largest = int(keys[-1])
    if largest < len(ids):  # a table of all ids is much faster than a search
        rows = np.zeros(largest + 2, np.int32)
        rows[keys] = np.arange(1, len(keys) + 1)
        return rows[np.minimum(ids, largest + 1)]  # the last is 0, and MISSING, -1, is the last
    place = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return np.where(keys[place] == ids, 1 + place, 0).astype(np.int32)


def vocabulary(ids, counts, min_count):
    """The ids, sorted, that occur in at least `min_count` training rows.

    ids, counts: (n,), each id with the training rows that it stands for; an id may come again.
    """
    known, place = np.unique(ids, return_inverse=True)
    total = np.bincount(place, weights=counts, minlength=len(known))
    return known[(known != MISSING) & (total >= max(min_count, 1))]


def encode(ids, known):
    """Codes int32: PADDING for MISSING, OTHER for an id that `known` lacks, then the known ones."""
    codes = OTHER + rows_of(ids, known)  # FIRST comes after OTHER
    return np.where(ids == MISSING, PADDING, codes).astype(np.int32)
