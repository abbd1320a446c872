"""The kinds of features, a class each: what a batch looks up, and what the network gets of it.

`specify` turns the named features of a Data into a spec of plain values and frozen arrays; `first`
is {vocabulary: its first row in the embedding table}, `latest` as in `common.embedding.specify`.
`look_up` gathers in plain TensorFlow. `vectors`, of kinds that are embedded, and `values`, of kinds
that are numbers, are arithmetic for XLA.
"""

import numpy as np
import tensorflow as tf

SHORTEST = 512  # what varies in length is filled up to a multiple of this at the least


class Kind:
    """A kind of feature, whose `spec` says what `look_up` gathers."""

    def __init__(self, spec):
        self.spec = spec


class Ids(Kind):
    """The id features: one code a row of interactions, which names a row of the embedding table."""

    @staticmethod
    def specify(data, names, first, latest):
        """(spec, frozen arrays); first: {vocabulary: its first row in the embedding table}."""
        start = {name: first[data.features[name]["vocabulary"]] for name in names}
        by_table = names_by_table(data, names)
        own = {name: start[name] for name in by_table.pop("", [])}
        frozen = {
            f"id_{key}": np.stack(
                [data.tables[key][name].astype(np.int32) + start[name] for name in group], axis=1
            )
            for key, group in by_table.items()
        }
        return {"tables": list(by_table), "own": own, "fields": len(names)}, frozen

    def look_up(self, columns, frozen, padding):
        """Rows of the embedding table (batch * fields,), and nothing else."""
        codes = [tf.gather(frozen[f"id_{key}"], columns[key]) for key in self.spec["tables"]]
        codes += [columns[name][:, None] + start for name, start in self.spec["own"].items()]
        return tf.reshape(tf.concat(codes, axis=1), [-1]), {}

    def vectors(self, embedded, found):
        """(batch * fields, dim) -> (batch, fields, dim)."""
        return tf.reshape(embedded, [-1, self.spec["fields"], embedded.shape[-1]])


class Lists(Kind):
    """The list features: any number of codes a row of a table, whose vectors are averaged."""

    @staticmethod
    def specify(data, names, first, latest):
        """(spec, frozen arrays): all lists one after the other, and where each begins and ends."""
        values = []
        length = 0
        frozen = {}
        groups = names_by_table(data, names)
        for key, group in groups.items():
            offsets = []
            for name in group:
                column = data.tables[key][name]
                offsets.append(column["offsets"].astype(np.int32) + length)
                start = first[data.features[name]["vocabulary"]]
                values.append(column["values"].astype(np.int32) + start)
                length += len(column["values"])
            offsets = np.stack(offsets, axis=1)  # (rows + 1, lists)
            frozen[f"list_{key}"] = np.stack([offsets[:-1], offsets[1:]], axis=1)
        spec = {"tables": list(groups), "fields": len(names)}
        return spec, frozen | {"list_values": np.concatenate(values)}

    def look_up(self, columns, frozen, padding):
        """Rows of the embedding table (items,); each item's owner among (batch * lists); lengths.

        `padding` fills the items up to a multiple of the batch, so that few shapes are compiled: it
        is a row of the table that stands for nothing, and its owner is -1, which sums leave out.
        """
        bounds = [tf.gather(frozen[f"list_{key}"], columns[key]) for key in self.spec["tables"]]
        starts, ends = tf.unstack(tf.concat(bounds, axis=2), axis=1)  # (batch, lists)
        items = tf.ragged.range(tf.reshape(starts, [-1]), tf.reshape(ends, [-1]))
        places = tf.gather(frozen["list_values"], items.flat_values)
        owners = tf.cast(items.value_rowids(), tf.int32)
        batch = tf.shape(starts)[0]
        found = {"owners": filled_up(owners, batch, -1), "lengths": ends - starts}
        return filled_up(places, batch, padding), found

    def vectors(self, embedded, found):
        """(items, dim) -> means (batch, lists, dim), zeros for an empty list."""
        shape = [tf.shape(found["lengths"])[0], self.spec["fields"], embedded.shape[-1]]
        sums = tf.math.unsorted_segment_sum(embedded, found["owners"], shape[0] * shape[1])
        lengths = tf.cast(tf.maximum(found["lengths"], 1), embedded.dtype)
        return tf.reshape(sums, shape) / lengths[:, :, None]


class Dense(Kind):
    """The dense features: numbers of the interactions themselves, or of a row of a table by day."""

    @staticmethod
    def specify(data, names, first, latest):
        """(spec, frozen arrays): a table's columns side by side; those by day a block a day."""
        own = {}
        fixed = {}
        daily = {}
        for name in names:
            feature = data.features[name]
            if feature["table"] is None:
                own[name] = data.train[name][:1].size
                continue
            column = data.tables[feature["table"]][name]
            if feature["daily"]:  # whose place among the values is the same with `latest`
                column = column[-1:] if latest else column
                daily.setdefault(feature["table"], []).append(column.astype(np.float16, copy=False))
            else:
                fixed.setdefault(feature["table"], []).append(column.astype(np.float32))
        frozen = {f"dense_{key}": np.concatenate(group, axis=1) for key, group in fixed.items()}
        for key, group in daily.items():
            block = np.concatenate(group, axis=2)  # (days, rows, width)
            frozen[f"daily_{key}"] = block.reshape(-1, block.shape[2])
        width = sum(own.values()) + sum(array.shape[1] for array in frozen.values())
        rows = {key: 0 if latest else len(data.tables[key]["key"]) for key in daily}
        spec = {"own": own, "fixed": list(fixed), "daily": rows, "width": width}
        return spec, frozen

    def look_up(self, columns, frozen, padding):
        """The rows of numbers (batch, some), as the tables keep them."""
        found = [tf.reshape(columns[name], [-1, width]) for name, width in self.spec["own"].items()]
        found += [tf.gather(frozen[f"dense_{key}"], columns[key]) for key in self.spec["fixed"]]
        for key, n_rows in self.spec["daily"].items():
            row = columns["day"] * n_rows + columns[key] if n_rows else columns[key]
            found.append(tf.gather(frozen[f"daily_{key}"], row))
        return None, {"parts": tuple(found)}

    def values(self, found):
        """(batch, width)."""
        return tf.concat([tf.cast(part, tf.float32) for part in found["parts"]], axis=1)


class Dots(Kind):
    """Dot products of a row's vectors with the vector of another table's row: n numbers each."""

    @staticmethod
    def specify(data, names, first, latest):
        """(spec, frozen arrays): both sides of each product."""
        products = {}
        frozen = {}
        for name in names:
            feature = data.features[name]
            key = feature["table"]
            other = data.meta["features"][feature["with"]]["table"]
            own = data.tables[key][name]
            own = own.astype(np.float16, copy=False) if feature["daily"] else own
            own = own[-1] if feature["daily"] and latest else own
            own = own.swapaxes(-1, -2)  # (..., dim, n): the sum then runs over whole rows of n
            dim, n = own.shape[-2:]
            daily = len(data.tables[key]["key"]) if feature["daily"] and not latest else 0
            products[name] = {"own": key, "other": other, "dim": dim, "n": n, "daily": daily}
            frozen[f"own_{name}"] = own.reshape(-1, dim * n)
            frozen[f"other_{name}"] = data.tables[other][feature["with"]].astype(np.float32)
        return {"products": products, "width": sum(p["n"] for p in products.values())}, frozen

    def look_up(self, columns, frozen, padding):
        """Of each product both sides: (batch, dim * n) and (batch, dim)."""
        found = {}
        for name, product in self.spec["products"].items():
            row = columns[product["own"]]
            if product["daily"]:
                row = columns["day"] * product["daily"] + row
            other = tf.gather(frozen[f"other_{name}"], columns[product["other"]])
            found[name] = {"own": tf.gather(frozen[f"own_{name}"], row), "other": other}
        return None, found

    def values(self, found):
        """(batch, width)."""
        numbers = []
        for name, product in self.spec["products"].items():
            own = tf.cast(found[name]["own"], tf.float32)
            own = tf.reshape(own, [-1, product["dim"], product["n"]])
            numbers.append(tf.reduce_sum(own * found[name]["other"][:, :, None], axis=1))
        return tf.concat(numbers, axis=1)


KINDS = {"id": Ids, "list": Lists, "dense": Dense, "dot": Dots}  # in this order side by side


def names_by_table(data, names):
    """{table, or "" for the interactions: names of its features}."""
    groups = {}
    for name in names:
        groups.setdefault(data.features[name]["table"] or "", []).append(name)
    return groups


def filled_up(values, batch, filling):
    """The values (n,), filled up to a multiple of the batch, so that few shapes are compiled."""
    more = -tf.size(values) % tf.maximum(batch, SHORTEST)
    return tf.pad(values, [[0, more]], constant_values=filling)
