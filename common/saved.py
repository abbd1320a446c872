"""Trained models kept for later: from raw ids to probabilities, saved, exported, applied to a CSV.

`user_data/NAME.keras` holds a keras.Model that takes the columns of a test file (userid, feedid,
device), int64 (batch,), and gives {task: probability (batch,)} for the day after the last labelled
one, of several runs that of their mean logit. To load it elsewhere in Python, import its script
first (`import mmoe`), which makes the layers known to Keras. A SavedModel needs no code at all.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import common.backend  # noqa: F401
from common.command import InputError
from common.csvs import read_columns, read_header
from common.embedding import FeatureEmbedding, LookUp, specify
from common.lines import write_columns
from common.pickles import OTHER, beside
from common.recommender import SCORING_BATCH, copied
from common.source import DAMAGED, file_of

import keras
import numpy as np


@keras.saving.register_keras_serializable("multitask")
class FrozenEmbedding(keras.layers.Layer):
    """FeatureEmbeddings of one LookUp, with all that it looks up as weights, to be saved.

    {column: integers (batch,)} -> [vectors (batch, fields, dim), one for each embedding], and dense
    values (batch, width).
    """

    def __init__(self, spec, shapes, dim, n, **kwargs):
        """spec: of the LookUp; shapes: {name of a frozen array: [shape, dtype]}; n: embeddings."""
        super().__init__(**kwargs)
        self.spec = spec
        self.shapes = shapes
        self.supports_jit = False  # what is looked up varies in length
        self.embeddings = [FeatureEmbedding(LookUp(spec, {}), dim) for _ in range(n)]
        self.frozen = {
            name: self.add_weight(shape, "zeros", dtype, trainable=False, name=name)
            for name, (shape, dtype) in shapes.items()
        }

    @classmethod
    def of(cls, data, tables):
        """The layer for the day after the last labelled one, of trained tables (rows, dim)."""
        spec, arrays = specify(data, latest=True)
        shapes = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
        layer = cls(spec, shapes, tables[0].shape[1], len(tables))
        for embedding, table in zip(layer.embeddings, tables, strict=True):
            embedding.table.assign(table)
        for name in list(arrays):  # each is let go once it is a weight
            layer.frozen[name].assign(arrays.pop(name))
        return layer

    def call(self, columns):
        look_up = LookUp(self.spec, {name: weight.value for name, weight in self.frozen.items()})
        batch = look_up(columns)
        vectors, dense = zip(*(embedding(batch) for embedding in self.embeddings), strict=True)
        return list(vectors), dense[0]

    def get_config(self):
        config = {"spec": self.spec, "shapes": self.shapes, "dim": self.embeddings[0].dim}
        return {**super().get_config(), **config, "n": len(self.embeddings)}


@dataclass
class Part:
    """What is kept of a trained Recommender."""

    table: np.ndarray  # of its embedding
    network: keras.Model
    link: object  # function from what the network gives to a logit, or None
    intercepts: dict  # {task: what is added to that logit}

    @classmethod
    def of(cls, model):
        network = copied(model.network)  # since the next seed trains the same network
        network.set_weights(model.network.get_weights())
        intercepts = {task: float(value) for task, value in model.intercepts.items()}
        return cls(model.embedding.table.numpy(), network, model.link, intercepts)


def codes_of(raw, data, column):
    """Rows of a table, or codes of a vocabulary, of a symbolic tensor of raw ids (batch,).

    By Keras's IntegerLookup, which has the very codes of the contract: to rows of a table 0 for
    unknown ids, to codes 0 for -1 and 1 for unknown ids. Where raw ids are not known the column
    itself is taken, and what is outside of the table or the vocabulary is unknown.
    """
    if column in data.tables:
        known = data.tables[column]["key"][1:]
        options = {"mask_token": None}
        size = len(known) + 1
        unknown = 0
    else:
        vocabulary = data.meta["features"][column]["vocabulary"]
        known = data.vocabularies.get(vocabulary)
        options = {"mask_token": -1}
        size = data.meta["vocabularies"][vocabulary]
        unknown = OTHER
    if known is not None and len(known) and (known[1:] > known[:-1]).all():
        options |= {"vocabulary": np.asarray(known, np.int64), "vocabulary_dtype": "int64"}
        return keras.layers.IntegerLookup(**options)(raw)
    return keras.ops.where((raw >= 0) & (raw < size), raw, unknown)


def whole_model(data, parts):
    """A keras.Model from raw ids to {task: probability (batch,)}: of the mean logit of the parts.

    parts: of several runs, or of networks of a task each.
    """
    names = data.meta.get("raw", {})
    layer = FrozenEmbedding.of(data, [part.table for part in parts])
    inputs = {}
    columns = {}
    for column in layer.spec["inputs"]:
        name = names.get(column, column)
        values = data.train[column]
        if values.dtype.kind == "f":
            inputs[name] = keras.Input(values.shape[1:], dtype="float32", name=name)
            columns[column] = inputs[name]
        else:
            inputs[name] = keras.Input((), dtype="int64", name=name)
            columns[column] = codes_of(inputs[name], data, column)
    every_vectors, dense = layer(columns)
    logits = {}
    for number, (part, vectors) in enumerate(zip(parts, every_vectors, strict=True)):
        part.network.name = f"network_{number}"
        for task, logit in part.network([vectors, dense]).items():
            logit = (part.link(logit) if part.link else logit) + part.intercepts[task]
            logits.setdefault(task, []).append(keras.ops.squeeze(logit, axis=-1))
    means = {task: sum(several) / len(several) for task, several in logits.items()}
    return keras.Model(inputs, {task: keras.ops.sigmoid(mean) for task, mean in means.items()})


def save(path, model):
    """Write `model` to `path`, a .keras file, beside its place first."""
    with beside(path) as place:
        model.save(place)


def load(path):
    """The keras.Model in `path`. Raises InputError."""
    if not Path(path).exists():
        raise InputError(f"{path} is missing: run the script without --predict and --export first.")
    try:
        return keras.saving.load_model(path)
    except (*DAMAGED, ValueError, OSError, TypeError, KeyError) as error:
        unknown = re.search(r"Could not locate (class|function) '(\w+)'", str(error))
        if unknown:
            what = f"it has a {unknown[1].replace('class', 'layer')} {unknown[2]}"
            remedy = f"use the script that made it, and decorate the {unknown[1]} with"
            remedy += " @keras.saving.register_keras_serializable()"
        elif "`Lambda` layer" in str(error):
            what, remedy = "it has a Lambda layer", "train it with a layer class instead"
        else:
            what = str(error).split("\n")[0]
            remedy = "train the model again"
        raise InputError(f"{path} cannot be loaded ({what}): {remedy}.") from None


def probabilities(model, columns):
    """{task: float32 (rows,)} of {raw column: (rows,)}."""
    rows = {tensor.name: np.asarray(columns[tensor.name], tensor.dtype) for tensor in model.inputs}
    return model.predict(rows, batch_size=SCORING_BATCH, verbose=0)


def predict(path, csv, out):
    """Score a CSV with the model in `path`; the number of its rows.

    `out` gets the CSV's columns that the model takes, in its order, and a column a task, 6
    decimals. A dense feature of several numbers has the columns NAME_0, NAME_1, ...; an empty one
    is unknown, and counts as 0.
    """
    model = load(path)
    source, name = file_of(csv)
    wide = {tensor.name: tensor.shape[1:] for tensor in model.inputs}
    columns = {
        owner: [f"{owner}_{i}" for i in range(shape[0])] if shape else [owner]
        for owner, shape in wide.items()
    }
    every = [part for group in columns.values() for part in group]
    floats = {tensor.name for tensor in model.inputs if "float" in str(tensor.dtype)}
    real = [part for owner, group in columns.items() if owner in floats for part in group]
    within = {part: (-(2**62), 2**62) for part in every if part not in real}
    rows = read_columns(source, name, every, real=real, within=within)
    known = rows | {part: np.nan_to_num(rows[part]) for part in real}
    inputs = {
        owner: np.column_stack([known[part] for part in group]) if wide[owner] else known[owner]
        for owner, group in columns.items()
    }
    with source.open(name) as file:
        order = [column for column in read_header(file, csv) if column in rows]
    write_columns(out, {column: rows[column] for column in order} | probabilities(model, inputs))
    return len(rows[order[0]])


def export(path, folder):
    """Write the model in `path` as a SavedModel in the next version of `folder`: its path."""
    model = load(path)
    taken = [int(old.name) for old in Path(folder).glob("*") if old.name.isdigit()]
    version = Path(folder) / str(max(taken, default=0) + 1)
    with beside(version) as place:
        model.export(place, verbose=False)
    return version


def use_saved(settings):
    """What --predict and --export ask for: the model that the last run saved at work."""
    path = Path(settings.user_data) / f"{settings.name}.keras"
    if settings.predict:
        out = Path(settings.out or path.with_name(f"{settings.name}_predictions.csv"))
        if not out.parent.is_dir():
            raise InputError(f"--out {out}: its folder does not exist: make it first.")
        print(f"{out}: {predict(path, settings.predict, out):,} rows")
    if settings.export:
        print(f"{export(path, settings.export)}: a SavedModel")
