"""Trained models kept for later: from raw ids to probabilities, saved, loaded, exported, applied to a CSV.

`user_data/MODEL.keras` holds a keras.Model that takes the columns of a test file (userid, feedid, device), int64 (batch,),
and gives {task: probability (batch,)} for the day after the last labelled one. To load it elsewhere in Python, import
its script first (`import mmoe`), which makes the layers known to Keras. A SavedModel needs no code at all.
"""
from pathlib import Path

import common.quiet  # noqa: F401 -- first
import keras
import numpy as np
import tensorflow as tf

from common.embedding import FeatureEmbedding
from common.pickles import FIRST, OTHER, InputError, beside, read
from common.reading import Source, read_columns

BATCH = 16384


@keras.saving.register_keras_serializable("multitask")
class RawIds(keras.layers.Layer):
    """Row or code of each raw id: int64 (batch,) -> int32 (batch,). `first` stands for the smallest known id, `unknown` for others."""

    def __init__(self, n, first, unknown, **kwargs):
        super().__init__(**kwargs)
        self.n, self.first, self.unknown = n, first, unknown
        self.known = self.add_weight((n,), "zeros", dtype="int64", trainable=False, name="known")

    def call(self, ids):
        place = tf.minimum(tf.searchsorted(self.known.value, ids), self.n - 1)
        return tf.where(tf.gather(self.known.value, place) == ids, place + self.first, self.unknown)

    def compute_output_spec(self, ids):
        return keras.KerasTensor(ids.shape, "int32")

    def get_config(self):
        return {**super().get_config(), "n": self.n, "first": self.first, "unknown": self.unknown}


def raw_ids(data, column):
    """The RawIds layer of an interaction's column, from a table's keys or a vocabulary; None where raw ids are not known."""
    if column in data.tables:
        known, first, unknown = data.tables[column]["key"][1:], 1, 0
    else:
        vocabularies = read(data.folder / "vocabularies.pkl") if (data.folder / "vocabularies.pkl").exists() else {}
        known, first, unknown = vocabularies.get(column, ()), FIRST, OTHER
    if not len(known) or (np.diff(known) <= 0).any():
        return None
    layer = RawIds(len(known), first, unknown)
    layer.known.assign(known)
    return layer


def whole_model(data, features, fitted):
    """One keras.Model from raw ids to {task: probability (batch,)}, of one or several Fitted of these features."""
    names, inputs, outputs = data.meta.get("raw", {}), {}, {}
    for number, one in enumerate(fitted):
        old, network = one.model.embed, one.model.network
        embed = FeatureEmbedding.of(data, features, old.dim, latest=True)
        embed.table.assign(old.table)
        network.name = f"network_{number}"
        columns = {}
        for column in embed.spec["inputs"]:
            raw, layer = names.get(column, column), raw_ids(data, column)
            dense = column in embed.spec["dense"].get("", {})
            if raw not in inputs:
                shape = data.train[column].shape[1:] if dense else ()
                inputs[raw] = keras.Input(shape, dtype="float32" if dense else "int64", name=raw)
            columns[column] = inputs[raw] if dense or layer is None else layer(inputs[raw])
        for task, logit in network(list(embed(columns))).items():
            outputs[task] = keras.ops.sigmoid(keras.ops.squeeze(one.model.link(logit), axis=-1))
    return keras.Model(inputs, outputs)


def save(path, model):
    """Write `model` to `path`, a .keras file, beside its place first."""
    with beside(path) as place:
        model.save(place)


def load(path):
    """The keras.Model in `path`. Raises InputError."""
    if not Path(path).exists():
        raise InputError(f"{path} is missing: train the model first, by running the script without --predict and --export.")
    try:
        return keras.saving.load_model(path)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be loaded ({str(error).splitlines()[0]}): train the model again.") from None


def probabilities(model, columns):
    """{task: float32 (rows,)} of {raw column: (rows,)}."""
    rows = {tensor.name: np.asarray(columns[tensor.name], tensor.dtype) for tensor in model.inputs}
    return model.predict(rows, batch_size=BATCH, verbose=0)


def predict(path, csv, out):
    """Score the rows of a CSV with the model in `path`: `out` gets its id columns and a column a task, 6 decimals."""
    import pandas as pd

    model, csv, out = load(path), Path(csv), Path(out)
    floats = [tensor.name for tensor in model.inputs if "float" in str(tensor.dtype)]
    rows = read_columns(Source(csv.parent), csv.name, [tensor.name for tensor in model.inputs], real=floats)
    order = [column for column in pd.read_csv(csv, nrows=0).columns if column in rows]  # as the CSV has them
    found = {column: rows[column] for column in order} | probabilities(model, rows)
    with beside(out) as place:
        pd.DataFrame(found).to_csv(place, index=False, float_format="%.6f", lineterminator="\n")
    return len(next(iter(rows.values())))


def export(path, folder):
    """Write the model in `path` as a SavedModel in the next version of `folder` (FOLDER/1, FOLDER/2, ...); returns its path."""
    model, folder = load(path), Path(folder)
    taken = [int(one.name) for one in folder.glob("*") if one.name.isdigit()]
    version = folder / str(max(taken, default=0) + 1)
    with beside(version) as place:
        model.export(place, verbose=False)
    return version
