"""From rows of interactions to what a network takes: one vector a field, and the dense values side by side."""
import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("multitask")
class FeatureEmbedding(keras.layers.Layer):
    """Looks an interaction's features up and embeds them.

    Takes {column: integers (batch,)}: row numbers of the tables, the day, and codes of features without a table. Gives
    vectors (batch, fields, dim), first one an id feature, then one a list, the mean of its items' (zeros for an empty list),
    and dense (batch, width), the dense features side by side, dot products last. All vocabularies lie one below the other in
    one trained matrix, `table`; features of one vocabulary share its rows. What the tables hold is frozen inside the layer,
    so that a row of a batch is a few integers.
    """

    def __init__(self, spec, dim, **kwargs):
        """spec: what `specify` makes; dim: length of a vector."""
        super().__init__(**kwargs)
        self.spec, self.dim = spec, dim
        self.table = self.add_weight((spec["n_ids"], dim), self.initializer(), name="table")
        self.frozen = {
            name: self.add_weight(shape, "zeros", dtype=dtype, trainable=False, name=name)
            for name, (shape, dtype) in spec["frozen"].items()
        }

    @staticmethod
    def initializer(seed=None):
        """What draws the embedding table."""
        return keras.initializers.RandomNormal(stddev=0.01, seed=seed)

    @classmethod
    def of(cls, data, features, dim, latest=False):
        """The layer for the named features of a Data, its frozen tables filled; `latest` as in `specify`."""
        spec, arrays = specify(data, features, latest)
        layer = cls(spec, dim)
        for name, array in arrays.items():
            layer.frozen[name].assign(array)
        return layer

    def symbols(self):
        """Keras inputs for a network: vectors (batch, fields, dim) and dense (batch, width)."""
        n_fields = sum(map(len, self.spec["ids"].values())) + sum(map(len, self.spec["lists"].values()))
        width = sum(width for widths in self.spec["dense"].values() for width in widths.values())
        width += sum(n for _, _, n, _, _ in self.spec["dots"].values())
        return keras.Input((n_fields, self.dim), name="vectors"), keras.Input((width,), name="dense_values")

    def call(self, inputs):
        spec, frozen = self.spec, {name: variable.value for name, variable in self.frozen.items()}
        table = self.table.value
        batch = tf.shape(next(iter(inputs.values())))[0]

        ids = [tf.gather(frozen[f"{key}_ids"], inputs[key]) for key, names in spec["ids"].items() if key and names]
        ids += [tf.cast(inputs[name], tf.int32)[:, None] + spec["starts"][name] for name in spec["ids"].get("", ())]
        vectors = [tf.gather(table, tf.concat(ids, axis=1))] if ids else []  # (batch, id fields, dim)

        for key, names in spec["lists"].items():
            n = len(names)  # the lists of a row lie one behind the other
            first = tf.cast(inputs[key], tf.int32)[:, None] * n + tf.range(n)  # (batch, lists)
            first = tf.reshape(first, [-1])
            starts, ends = tf.gather(frozen[f"{key}_offsets"], first), tf.gather(frozen[f"{key}_offsets"], first + 1)
            items = tf.ragged.range(starts, ends)
            values = tf.gather(table, tf.gather(frozen[f"{key}_values"], items.flat_values))  # (items, dim)
            sums = tf.math.unsorted_segment_sum(values, items.value_rowids(), batch * n)
            means = sums / tf.cast(tf.maximum(ends - starts, 1), tf.float32)[:, None]
            vectors.append(tf.reshape(means, [batch, n, self.dim]))

        dense = [tf.reshape(tf.cast(inputs[name], tf.float32), [batch, width]) for name, width in spec["dense"].get("", {}).items()]
        for key in filter(inputs.__contains__, spec["tables"]):
            row = tf.cast(inputs[key], tf.int32)
            if f"{key}_dense" in frozen:
                dense.append(tf.gather(frozen[f"{key}_dense"], row))
            if f"{key}_daily" in frozen:  # one block of rows a day
                place = tf.cast(inputs["day"], tf.int32) * spec["tables"][key] + row
                dense.append(tf.cast(tf.gather(frozen[f"{key}_daily"], place), tf.float32))
        for name, (key, other, *shape, daily) in spec["dots"].items():
            row = tf.cast(inputs[key], tf.int32)
            place = tf.cast(inputs["day"], tf.int32) * spec["tables"][key] + row if daily else row
            own = tf.reshape(tf.cast(tf.gather(frozen[f"{name}_own"], place), tf.float32), [batch, *shape])  # (batch, n, k)
            dense.append(tf.linalg.matvec(own, tf.gather(frozen[f"{name}_other"], inputs[other])))
        dense = tf.concat(dense, axis=1) if dense else tf.zeros([batch, 0])
        return tf.concat(vectors, axis=1) if vectors else tf.zeros([batch, 0, self.dim]), dense

    def get_config(self):
        return {**super().get_config(), "spec": self.spec, "dim": self.dim}


def specify(data, names, latest=False):
    """What FeatureEmbedding needs to know of the named features of a Data: a spec of plain values, and the frozen arrays.

    With `latest` the daily features stand still at their last day, that of the test, and no day is asked for.

    spec: n_ids, rows of the embedding table; starts {feature: its first row there}; tables {key: rows}; ids, lists {key:
    [feature]}; dense {key: {feature: width}}; dots {feature: [its key, the other's, n, k, daily]}; inputs, the columns of
    interactions that are read; frozen {name: (shape, dtype)}. The key "" stands for features without a table.
    """
    features = {name: data.meta["features"][name] for name in names}
    used = dict.fromkeys(feature["vocabulary"] for feature in features.values() if feature["kind"] in ("id", "list"))
    sizes = [data.meta["vocabularies"][vocabulary] for vocabulary in used]
    first = dict(zip(used, np.concatenate([[0], np.cumsum(sizes)]).tolist()))
    starts = {name: first[feature["vocabulary"]] for name, feature in features.items() if feature["kind"] in ("id", "list")}

    def of(kind, key, **conditions):
        return [
            name for name, feature in features.items()
            if feature["kind"] == kind and (feature["table"] or "") == key
            and all(feature[condition] == value for condition, value in conditions.items())
        ]

    keys, arrays = {key: len(table["key"]) for key, table in data.tables.items()}, {}
    dense = {"": {name: data.train[name][:1].size for name in of("dense", "")}}
    for key, table in data.tables.items():
        ids, lists, fixed, daily = of("id", key), of("list", key), of("dense", key, daily=False), of("dense", key, daily=True)
        days = {name: table[name][-1] for name in daily} if latest else {}
        if ids:
            arrays[f"{key}_ids"] = np.stack([table[name] + starts[name] for name in ids], axis=1).astype(np.int32)
        if lists:
            arrays[f"{key}_values"], arrays[f"{key}_offsets"] = interleave([
                (table[name]["values"] + starts[name], table[name]["offsets"]) for name in lists
            ])
        if fixed or days:
            still = [table[name] for name in fixed] + list(days.values())
            arrays[f"{key}_dense"] = np.concatenate([values.astype(np.float32) for values in still], axis=1)
        if daily and not latest:
            blocks = np.concatenate([table[name].astype(np.float16) for name in daily], axis=2)
            arrays[f"{key}_daily"] = blocks.reshape(-1, blocks.shape[2])
        dense[key] = {name: table[name].shape[-1] for name in fixed + daily}
    dots = {}
    for name, feature in features.items():
        if feature["kind"] == "dot":
            other = data.meta["features"][feature["with"]]["table"]
            own, daily = data.tables[feature["table"]][name], feature["daily"] and not latest
            own = own[-1] if feature["daily"] and latest else own
            dots[name] = [feature["table"], other, *own.shape[-2:], daily]
            arrays[f"{name}_own"] = own.reshape(-1, own.shape[-2] * own.shape[-1])
            arrays[f"{name}_other"] = data.tables[other][feature["with"]].astype(np.float32)
    of_dots = {key for dot in dots.values() for key in dot[:2]}
    used_keys = [key for key in keys if of("id", key) or of("list", key) or dense[key] or key in of_dots]
    daily = not latest and any(feature.get("daily") for feature in features.values())
    spec = {
        "inputs": [*used_keys, *(["day"] if daily else []), *of("id", ""), *dense[""]], "n_ids": int(sum(sizes)), "starts": starts, "tables": keys,
        "dense": dense, "dots": dots,
        "ids": {key: of("id", key) for key in (*keys, "")},
        "lists": {key: of("list", key) for key in keys if of("list", key)},
        "frozen": {name: (list(array.shape), str(array.dtype)) for name, array in arrays.items()},
    }
    return spec, arrays


def interleave(lists):
    """Lists of one table, each (values, offsets (rows + 1,)), as one such pair of rows * len(lists) lists, row by row."""
    lengths = np.stack([np.diff(offsets) for _, offsets in lists], axis=1)  # (rows, lists)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.empty(offsets[-1], np.int32)
    for column, (items, own) in enumerate(lists):
        shift = offsets[:-1].reshape(lengths.shape)[:, column] - own[:-1]  # of each row's items, from own place to the new
        values[np.arange(len(items)) + np.repeat(shift, lengths[:, column])] = items
    return values, offsets
