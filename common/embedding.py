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
        self.spec, self.dim, self.supports_jit = spec, dim, False  # where Keras compiles on its own: what is looked up varies in length
        self.n_ids, self.n_lists = (sum(map(len, spec[kind].values())) for kind in ("ids", "lists"))  # fields
        self.table = self.add_weight((spec["n_rows"], dim), self.initializer(), name="table")
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
        for name in list(arrays):  # each let go once it is there
            layer.frozen[name].assign(arrays.pop(name))
        return layer

    def symbols(self):
        """Keras inputs for a network: vectors (batch, fields, dim) and dense (batch, width)."""
        width = sum(width for widths in self.spec["dense"].values() for width in widths.values())
        width += sum(n for _, _, _, n, _ in self.spec["dots"].values())
        return keras.Input((self.n_ids + self.n_lists, self.dim), name="vectors"), keras.Input((width,), name="dense_values")

    def call(self, inputs):
        found = self.look_up(inputs)
        return self.assemble(tf.gather(self.table.value, found["places"]), found)

    def look_up(self, inputs):
        """What is frozen of a batch, {name: tensor} for `assemble`. Gathers alone, since what they give varies in length.

        places: int32 (occurrences,), rows of `table`: those of the ids, (batch, id fields), then those of the lists' items.
        owners: int32 (items,), the list that an item is of, among (batch, lists) of them. lengths: int32 (batch, lists).
        dense: rows of the dense features as the tables keep them; dots: pairs of rows to be multiplied.
        """
        frozen, batch = {name: variable.value for name, variable in self.frozen.items()}, tf.shape(next(iter(inputs.values())))[0]
        rows = {key: tf.cast(inputs[key], tf.int32) for key in self.spec["tables"] if key in inputs}

        def today(key):  # tables of daily features have one block of rows a day
            return tf.cast(inputs["day"], tf.int32) * self.spec["tables"][key] + rows[key]

        ids = [tf.gather(frozen[f"{key}_ids"], row) for key, row in rows.items() if f"{key}_ids" in frozen]
        ids += [tf.cast(inputs[name], tf.int32)[:, None] + self.spec["starts"][name] for name in self.spec["ids"][""]]
        bounds = [tf.gather(frozen[f"{key}_bounds"], row) for key, row in rows.items() if f"{key}_bounds" in frozen]
        starts, ends = tf.unstack(tf.concat([tf.zeros([batch, 2, 0], tf.int32), *bounds], axis=2), axis=1)  # (batch, lists)
        items = tf.ragged.range(tf.reshape(starts, [-1]), tf.reshape(ends, [-1]))
        places = [tf.reshape(tf.concat(ids, axis=1), [-1])] if ids else []
        places += [tf.gather(frozen["list_values"], items.flat_values)] if bounds else []
        found = {"places": tf.concat([tf.zeros([0], tf.int32), *places], axis=0), "owners": tf.cast(items.value_rowids(), tf.int32), "lengths": ends - starts}

        dense = [tf.reshape(inputs[name], [batch, width]) for name, width in self.spec["dense"][""].items()]
        for key, row in rows.items():
            dense += [tf.gather(frozen[f"{key}_dense"], row)] if f"{key}_dense" in frozen else []
            dense += [tf.gather(frozen[f"{key}_daily"], today(key))] if f"{key}_daily" in frozen else []
        dots = [
            (tf.gather(frozen[f"{name}_own"], today(key) if daily else rows[key]), tf.gather(frozen[f"{name}_other"], rows[other]))
            for name, (key, other, _, _, daily) in self.spec["dots"].items()
        ]
        return found | {"dense": dense, "dots": dots}

    def assemble(self, embedded, found):
        """Vectors and dense from what stands in `table` at the places, (occurrences, dim), and what else was looked up.

        Arithmetic alone, so that XLA compiles it; an item whose owner is -1 is of no list.
        """
        lengths, n_lists = found["lengths"], self.n_lists
        batch = tf.shape(lengths)[0]
        sums = tf.math.unsorted_segment_sum(embedded[batch * self.n_ids :], found["owners"], batch * n_lists)
        means = tf.reshape(sums, [batch, n_lists, self.dim]) / tf.cast(tf.maximum(lengths, 1), tf.float32)[:, :, None]
        vectors = tf.concat([tf.reshape(embedded[: batch * self.n_ids], [batch, self.n_ids, self.dim]), means], axis=1)

        dense = [tf.cast(rows, tf.float32) for rows in found["dense"]]
        for (own, other), (_, _, k, n, _) in zip(found["dots"], self.spec["dots"].values()):
            own = tf.reshape(tf.cast(own, tf.float32), [batch, k, n])
            dense.append(tf.reduce_sum(own * other[:, :, None], axis=1))  # (batch, n)
        return vectors, tf.concat([tf.zeros([batch, 0]), *dense], axis=1)

    def get_config(self):
        return {**super().get_config(), "spec": self.spec, "dim": self.dim}


def specify(data, names, latest=False):
    """What FeatureEmbedding needs to know of the named features of a Data: a spec of plain values, and the frozen arrays.

    With `latest` the daily features stand still at their last day, that of the test, and no day is asked for.

    spec: n_rows, those of the embedding table; starts {feature: its first row there}; tables {key: rows}; ids, lists {key:
    [feature]}; dense {key: {feature: width}}; dots {feature: [its key, the other's, k, n, daily]}; inputs, the columns of
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

    keys, arrays, values = {key: len(table["key"]) for key, table in data.tables.items()}, {}, []
    dense = {"": {name: data.train[name][:1].size for name in of("dense", "")}}
    for key, table in data.tables.items():
        ids, lists, fixed, daily = of("id", key), of("list", key), of("dense", key, daily=False), of("dense", key, daily=True)
        days = {name: table[name][-1] for name in daily} if latest else {}
        if ids:
            arrays[f"{key}_ids"] = np.stack([table[name] + starts[name] for name in ids], axis=1).astype(np.int32)
        if lists:
            shift = np.cumsum([sum(map(len, values)), *(len(table[name]["values"]) for name in lists)])
            offsets = np.stack([table[name]["offsets"] + before for name, before in zip(lists, shift)], axis=1)
            arrays[f"{key}_bounds"] = np.stack([offsets[:-1], offsets[1:]], axis=1).astype(np.int32)  # (rows, 2, lists)
            values += [table[name]["values"] + starts[name] for name in lists]
        if fixed or days:
            still = [table[name] for name in fixed] + list(days.values())
            arrays[f"{key}_dense"] = np.concatenate([column.astype(np.float32) for column in still], axis=1)
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
            own = own.swapaxes(-1, -2)  # (..., k, n): the sum over k then runs over whole vectors of n
            dots[name] = [feature["table"], other, *own.shape[-2:], daily]
            arrays[f"{name}_own"] = own.reshape(-1, own.shape[-2] * own.shape[-1])
            arrays[f"{name}_other"] = data.tables[other][feature["with"]].astype(np.float32)
    if values:
        arrays["list_values"] = np.concatenate(values).astype(np.int32)
    of_dots = {key for dot in dots.values() for key in dot[:2]}
    used_keys = [key for key in keys if of("id", key) or of("list", key) or dense[key] or key in of_dots]
    daily = not latest and any(feature.get("daily") for feature in features.values())
    spec = {
        "inputs": [*used_keys, *(["day"] if daily else []), *of("id", ""), *dense[""]], "n_rows": int(sum(sizes)), "starts": starts, "tables": keys,
        "dense": dense, "dots": dots,
        "ids": {key: of("id", key) for key in (*keys, "")},
        "lists": {key: of("list", key) for key in keys if of("list", key)},
        "frozen": {name: (list(array.shape), str(array.dtype)) for name, array in arrays.items()},
    }
    return spec, arrays
