"""From rows of interactions to what a network takes: a vector a field, and dense values.

`LookUp` gathers what a batch needs, in plain TensorFlow, since lists vary in length.
`FeatureEmbedding` does the arithmetic, under XLA. A kind of feature is a class that does both.
"""

import common.backend  # noqa: F401
from common.kinds import KINDS, filled_up

import keras
import tensorflow as tf


def specify(data, latest=False):
    """What a LookUp of a Data's features needs: a spec of plain values, and the frozen arrays.

    With `latest` daily features stand still at their last day, that of the test, and no day is
    asked for.
    """
    features = data.features
    names = {kind: [n for n in features if features[n]["kind"] == kind] for kind in KINDS}
    first = {}  # of each vocabulary: its first row in the embedding table
    n_rows = 0
    for name in names["id"] + names["list"]:
        vocabulary = features[name]["vocabulary"]
        if vocabulary not in first:
            first[vocabulary] = n_rows
            n_rows += data.meta["vocabularies"][vocabulary]
    kinds = {}
    frozen = {}
    for kind, group in names.items():
        if group:
            kinds[kind], arrays = KINDS[kind].specify(data, group, first, latest)
            frozen |= arrays
    inputs = []
    for name, feature in features.items():
        inputs.append(feature["table"] or name)
        if feature["kind"] == "dot":
            inputs.append(data.meta["features"][feature["with"]]["table"])
    if not latest and any(feature.get("daily") for feature in features.values()):
        inputs.append("day")
    return {"inputs": list(dict.fromkeys(inputs)), "n_rows": n_rows, "kinds": kinds}, frozen


class LookUp:
    """What a batch needs of all tables: {column: (batch,)} -> nested dict of tensors.

    Under "ids" stand the rows of the embedding table that the batch touches, each once, filled up
    with the last row of the table, which stands for nothing. Under a kind's name stands what else
    it needs, "places" being where in `ids` each occurrence of one stands.
    """

    def __init__(self, spec, frozen):
        """spec: plain values, as `specify` makes them; frozen: {name: tensor}."""
        self.spec = spec
        self.frozen = frozen
        self.kinds = {kind: KINDS[kind](part) for kind, part in spec["kinds"].items()}

    @classmethod
    def of(cls, data):
        """The LookUp of the features of a Data."""
        spec, arrays = specify(data)
        with tf.device("CPU:0"):
            return cls(spec, {name: tf.constant(arrays.pop(name)) for name in list(arrays)})

    def __call__(self, columns):
        columns = {name: tf.convert_to_tensor(columns[name]) for name in self.spec["inputs"]}
        columns = {
            name: column if column.dtype.is_floating else tf.cast(column, tf.int32)
            for name, column in columns.items()
        }
        batch = tf.shape(columns[self.spec["inputs"][0]])[0]
        found = {}
        places = {}
        for kind, part in self.kinds.items():
            rows, found[kind] = part.look_up(columns, self.frozen, self.spec["n_rows"])
            if rows is not None:
                places[kind] = rows
        every = tf.concat([tf.zeros([0], tf.int32), *places.values()], axis=0)
        ids, place = tf.unique(every)
        parts = tf.split(place, [tf.size(rows) for rows in places.values()]) if places else []
        for kind, part in zip(places, parts, strict=True):
            found[kind]["places"] = part
        return found | {"ids": filled_up(ids, batch, self.spec["n_rows"])}

    def dense_values(self, batch):
        """The dense values of what a call gives: a tensor (batch, width) for each kind of them."""
        kinds = [(kind, part) for kind, part in self.kinds.items() if "places" not in batch[kind]]
        return [part.values(batch[kind]) for kind, part in kinds]


class FeatureEmbedding(keras.layers.Layer):
    """Vectors (batch, fields, dim) and dense values (batch, width) of what a LookUp gives.

    A vector stands for each id feature, then for each list. All vocabularies lie one below the
    other in one trained matrix, `table`; features of one vocabulary share its rows.
    """

    def __init__(self, look_up, dim, **kwargs):
        """look_up: the LookUp whose batches it takes; dim: length of a vector."""
        super().__init__(**kwargs)
        self.look_up = look_up
        self.dim = dim
        shape = (look_up.spec["n_rows"] + 1, dim)  # the last row stands for nothing
        self.table = self.add_weight(shape, self.initializer(), name="table")
        self.built = True

    @staticmethod
    def initializer(seed=None):
        """What draws the embedding table."""
        return keras.initializers.RandomNormal(stddev=0.01, seed=seed)

    def symbols(self):
        """Keras inputs for a network: vectors (batch, fields, dim) and dense (batch, width)."""
        specs = self.look_up.spec["kinds"].values()
        fields = sum(spec.get("fields", 0) for spec in specs)
        width = sum(spec.get("width", 0) for spec in specs)
        vectors = keras.Input((fields, self.dim), name="vectors")
        return vectors, keras.Input((width,), name="dense_values")

    def call(self, batch):
        return self.assemble(tf.gather(self.table.value, batch["ids"]), batch)

    def assemble(self, rows, batch):
        """Vectors and dense values, from the rows (ids, dim) that the batch touches."""
        vectors = []
        for kind, part in self.look_up.kinds.items():
            if "places" in batch[kind]:
                embedded = tf.gather(rows, batch[kind]["places"])
                vectors.append(part.vectors(embedded, batch[kind]))
        values = self.look_up.dense_values(batch)
        size = tf.shape((vectors + values)[0])[0]
        vectors.append(tf.zeros([size, 0, self.dim]))
        values.append(tf.zeros([size, 0]))
        return tf.concat(vectors, axis=1), tf.concat(values, axis=1)
