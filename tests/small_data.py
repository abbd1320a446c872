"""A Data made by hand, with every kind of feature, for tests of what learns."""

from pathlib import Path

from common.contract import Data
from common.embedding import FeatureEmbedding, LookUp

import numpy as np
import tensorflow as tf

N_USERS = 7
N_FEEDS = 11
N_DAYS = 4
N_ROWS = 50
TASKS = ("read_comment", "like", "click_avatar", "forward")
KINDS = {  # feature: its description, as meta.pkl has it
    "userid": {"kind": "id", "table": "user", "vocabulary": "userid"},
    "author": {"kind": "id", "table": "feed", "vocabulary": "author"},
    "device": {"kind": "id", "table": None, "vocabulary": "device"},
    "tags": {"kind": "list", "table": "feed", "vocabulary": "tags"},
    "words": {"kind": "list", "table": "feed", "vocabulary": "words"},
    "machine_tags": {"kind": "list", "table": "feed", "vocabulary": "tags"},
    "price": {"kind": "dense", "table": None, "daily": False},
    "seconds": {"kind": "dense", "table": "feed", "daily": False},
    "content": {"kind": "dense", "table": "feed", "daily": False},
    "past": {"kind": "dense", "table": "user", "daily": True},
    "taste": {"kind": "dot", "table": "user", "daily": True, "with": "content"},
    "leaning": {"kind": "dot", "table": "user", "daily": False, "with": "seconds"},
}


def lists(rng, n, size):
    """n lists of up to three codes, some of them empty."""
    lengths = rng.integers(0, 4, n)
    lengths[:2] = 0
    values = rng.integers(0, size, lengths.sum()).astype(np.int32)
    return {"values": values, "offsets": np.append(0, np.cumsum(lengths)).astype(np.int32)}


def data_of(*names, n_rows=N_ROWS):
    """A Data whose features are those named, all of KINDS if none is."""
    rng = np.random.default_rng(0)
    user = {
        "key": np.arange(N_USERS) - 1,
        "userid": rng.integers(0, 9, N_USERS, np.int32),
        "past": rng.normal(size=(N_DAYS, N_USERS, 2)).astype(np.float16),
        "taste": rng.normal(size=(N_DAYS, N_USERS, 2, 3)).astype(np.float16),
        "leaning": rng.normal(size=(N_USERS, 4, 1)),
    }
    feed = {
        "key": np.arange(N_FEEDS) - 1,
        "author": rng.integers(0, 5, N_FEEDS, np.int32),
        "tags": lists(rng, N_FEEDS, 6),
        "words": lists(rng, N_FEEDS, 8),
        "machine_tags": lists(rng, N_FEEDS, 6),
        "seconds": rng.normal(size=(N_FEEDS, 1)),
        "content": rng.normal(size=(N_FEEDS, 3)),
    }
    rows = {
        "user": rng.integers(0, N_USERS, n_rows, np.int32),
        "feed": rng.integers(0, N_FEEDS, n_rows, np.int32),
        "day": rng.integers(0, N_DAYS, n_rows, np.int32),
        "device": rng.integers(0, 3, n_rows, np.int32),
        "price": rng.normal(size=n_rows).astype(np.float32),
    }
    for i, task in enumerate(TASKS):
        rows[task] = (np.arange(n_rows) % (i + 3) == 0).astype(np.uint8)
    features = {name: dict(about) for name, about in KINDS.items()}
    sizes = {"userid": 9, "author": 5, "device": 3, "tags": 6, "words": 8}
    return Data(
        meta={"features": features, "vocabularies": sizes, "group": "user"},
        tables={"user": user, "feed": feed},
        train=rows,
        valid=rows,
        test={},
        folder=Path("by hand"),
        features={name: features[name] for name in names or KINDS},
        tasks=dict.fromkeys(TASKS, 1),
        loss_weights=dict.fromkeys(TASKS, 1.0),
    )


def embedded(data, dim=4):
    """A FeatureEmbedding of the data, its table drawn wide."""
    layer = FeatureEmbedding(LookUp.of(data), dim)
    layer.table.assign(np.random.default_rng(1).normal(size=layer.table.shape))
    return layer


def rows_of(data, layer):
    """What the layer's LookUp takes, of all training rows."""
    return {name: tf.constant(data.train[name]) for name in layer.look_up.spec["inputs"]}
