"""Trained models kept for later: from raw ids to probabilities, saved, exported, applied to a CSV.

`user_data/NAME.keras` holds a keras.Model that takes the columns of a test file (userid, feedid,
device), int64 (batch,), and gives {task: probability (batch,)} for the day after the last labelled
one. To load it elsewhere in Python, import its script first (`import mmoe`), which makes the layers
known to Keras. A SavedModel needs no code at all.
"""

from pathlib import Path

import common.backend  # noqa: F401
from common.command import InputError
from common.csvs import Source, read_columns, read_header
from common.embedding import FeatureEmbedding, LookUp, specify
from common.pickles import OTHER, beside

import keras
import numpy as np

BATCH = 16384


@keras.saving.register_keras_serializable("multitask")
class FrozenEmbedding(keras.layers.Layer):
    """A FeatureEmbedding with all that it looks up as weights, so that it can be saved.

    {column: integers (batch,)} -> vectors (batch, fields, dim) and dense values (batch, width).
    """

    def __init__(self, spec, shapes, dim, **kwargs):
        """spec: of the LookUp; shapes: {name of a frozen array: [shape, dtype]}."""
        super().__init__(**kwargs)
        self.spec = spec
        self.shapes = shapes
        self.supports_jit = False  # what is looked up varies in length
        self.embedding = FeatureEmbedding(LookUp(spec, {}), dim)
        self.frozen = {
            name: self.add_weight(shape, "zeros", dtype, trainable=False, name=name)
            for name, (shape, dtype) in shapes.items()
        }

    @classmethod
    def of(cls, data, trained):
        """The layer for the day after the last labelled one, of a trained FeatureEmbedding."""
        spec, arrays = specify(data, latest=True)
        shapes = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
        layer = cls(spec, shapes, trained.dim)
        layer.embedding.table.assign(trained.table)
        for name in list(arrays):  # each is let go once it is a weight
            layer.frozen[name].assign(arrays.pop(name))
        return layer

    def call(self, columns):
        look_up = LookUp(self.spec, {name: weight.value for name, weight in self.frozen.items()})
        return self.embedding(look_up(columns))

    def get_config(self):
        config = {"spec": self.spec, "shapes": self.shapes, "dim": self.embedding.dim}
        return {**super().get_config(), **config}


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
        known = data.vocabulary(vocabulary)
        options = {"mask_token": -1}
        size = data.meta["vocabularies"][vocabulary]
        unknown = OTHER
    if known is not None and len(known) and (np.diff(known) > 0).all():
        options["vocabulary_dtype"] = "int64"
        return keras.layers.IntegerLookup(vocabulary=known, **options)(raw)
    return keras.ops.where((raw >= 0) & (raw < size), raw, unknown)


def whole_model(data, models):
    """A keras.Model from raw ids to {task: probability (batch,)}, of one Recommender or several."""
    names = data.meta.get("raw", {})
    inputs = {}
    columns = {}
    outputs = {}
    for number, model in enumerate(models):
        embedding = FrozenEmbedding.of(data, model.embedding)
        for column in embedding.spec["inputs"]:
            name = names.get(column, column)
            if name in inputs:
                continue
            values = data.train[column]
            if values.dtype.kind == "f":
                inputs[name] = keras.Input(values.shape[1:], dtype="float32", name=name)
                columns[column] = inputs[name]
            else:
                inputs[name] = keras.Input((), dtype="int64", name=name)
                columns[column] = codes_of(inputs[name], data, column)
        model.network.name = f"network_{number}"
        vectors_and_dense = embedding({name: columns[name] for name in embedding.spec["inputs"]})
        for task, logit in model.network(list(vectors_and_dense)).items():
            logit = model.link(logit) if model.link else logit
            outputs[task] = keras.ops.sigmoid(keras.ops.squeeze(logit, axis=-1))
    return keras.Model(inputs, outputs)


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
    except (ValueError, OSError, TypeError, KeyError) as error:
        why = str(error).split("\n")[0]
        raise InputError(f"{path} cannot be loaded ({why}): train the model again.") from None


def probabilities(model, columns):
    """{task: float32 (rows,)} of {raw column: (rows,)}."""
    rows = {tensor.name: np.asarray(columns[tensor.name], tensor.dtype) for tensor in model.inputs}
    return model.predict(rows, batch_size=BATCH, verbose=0)


def predict(path, csv, out):
    """Score a CSV with the model in `path`; the number of its rows.

    `out` gets the CSV's columns that the model takes, in its order, and a column a task, 6
    decimals. A dense feature of several numbers has the columns NAME_0, NAME_1, ...
    """
    import pandas as pd

    model = load(path)
    csv = Path(csv)
    wide = {tensor.name: tensor.shape[1:] for tensor in model.inputs}
    columns = {
        name: [f"{name}_{i}" for i in range(shape[0])] if shape else [name]
        for name, shape in wide.items()
    }
    every = [name for group in columns.values() for name in group]
    floats = {tensor.name for tensor in model.inputs if "float" in str(tensor.dtype)}
    real = [name for owner, group in columns.items() if owner in floats for name in group]
    within = {name: (-(2**62), 2**62) for name in every if name not in real}
    source = Source(csv.parent)
    rows = read_columns(source, csv.name, every, real=real, within=within)
    inputs = {
        name: np.column_stack([rows[part] for part in group]) if wide[name] else rows[name]
        for name, group in columns.items()
    }
    with source.open(csv.name) as file:
        order = [name for name in read_header(file, csv) if name in rows]
    table = pd.DataFrame({name: rows[name] for name in order} | probabilities(model, inputs))
    with beside(out) as place:
        table.to_csv(place, index=False, float_format="%.6f", lineterminator="\n")
    return len(table)


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
