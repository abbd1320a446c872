"""The contract of `user_data/README.md` as checks, each a sentence about what breaks it."""

import math

from common.command import InputError
from common.csvs import MISSING
from common.pickles import FIRST

import numpy as np

# keys of meta.pkl, of those that may be absent, of a feature's description: the type of their value
META = {"version": int, "stamp": str, "name": str, "synthetic": bool, "tasks": dict, "tables": list}
META |= {"group": str | None, "valid_day": int | None, "vocabularies": dict, "features": dict}
MORE_META = {"more_tasks": dict, "raw": dict}
FEATURE = {"kind": str, "table": str | None, "vocabulary": str, "daily": bool, "with": str}
MORE_FEATURE = {"columns": list, "default": bool}
# kind: keys of its description that must be there, beside kind and table
KINDS = {"id": {"vocabulary"}, "list": {"vocabulary"}, "dense": {"daily"}, "dot": {"daily", "with"}}
OWN_FILES = ("meta", "train", "valid", "test", "test_a", "test_b", "vocabularies")
WRITE_AGAIN = "write it again by user_data/README.md"


def require(condition, problem):
    """Raise InputError with the problem and its remedy, unless the condition holds."""
    if not condition:
        raise InputError(f"{problem}: {WRITE_AGAIN}.")


def is_array(value, kinds, shape):
    """Whether it is an array of such a dtype kind and shape; None in a shape is any length."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind in kinds
        and value.ndim == len(shape)
        and all(wanted in (None, n) for wanted, n in zip(shape, value.shape, strict=True))
    )


def is_name(text):
    """Whether it can name a column, a task or a file."""
    return isinstance(text, str) and text.isprintable() and 0 < len(text) < 100 and "/" not in text


def check_meta(meta, path):
    """Raise InputError unless meta.pkl keeps the contract in itself."""
    for key in META | meta:
        right = isinstance(meta.get(key, ...), (META | MORE_META).get(key, ()))
        require(right, f"{path}: {key!r:.60} is missing, of another type or no key of the contract")
    more = meta.get("more_tasks", {})
    require(len(meta["tasks"]) > 0, f"{path}: there is no task")
    require(not set(more) & set(meta["tasks"]), f"{path}: a task stands among more_tasks too")
    for task, weight in (meta["tasks"] | more).items():
        right = is_name(task) and isinstance(weight, int | float) and 0 < weight < math.inf
        require(right, f"{path}: task {task!r:.60} must be a name with a weight above 0")
    raw = meta.get("raw", {})
    right = all(map(is_name, [*raw, *raw.values()])) and len(set(raw.values())) == len(raw)
    require(right, f"{path}: 'raw' must hold names of columns, each once")
    tables = meta["tables"]
    right = all(map(is_name, tables)) and len(set(tables)) == len(tables)
    require(right and not set(tables) & set(OWN_FILES), f"{path}: 'tables' must be distinct names")
    for name, size in meta["vocabularies"].items():
        right = is_name(name) and isinstance(size, int) and FIRST <= size < 2**31
        require(right, f"{path}: vocabulary {name!r:.60} must have a size, at least {FIRST}")
    require(len(meta["features"]) > 0, f"{path}: there is no feature")
    for name, feature in meta["features"].items():
        check_feature(name, feature, meta, f"{path}: feature {name!r:.60}")
    for name, feature in meta["features"].items():
        if feature["kind"] == "dot":
            partner = meta["features"].get(feature["with"], {})
            right = partner.get("kind") == "dense" and partner["table"] is not None
            right = right and not partner["daily"]
            problem = "'with' must name a dense feature of a table that is not daily"
            require(right, f"{path}: feature {name!r:.60}: {problem}")


def check_feature(name, feature, meta, place):
    """Raise InputError unless the description of a feature keeps the contract."""
    require(is_name(name) and isinstance(feature, dict), f"{place} must be a name and a dict")
    for key, value in feature.items():
        right = isinstance(value, (FEATURE | MORE_FEATURE).get(key, ()))
        require(right, f"{place}: {key!r:.60} is no key of a feature or of another type")
    kind = feature.get("kind")
    require(kind in KINDS, f"{place} must have a kind of {[*KINDS]}")
    needed = KINDS[kind] | {"kind", "table"}
    right = needed <= set(feature) <= needed | set(MORE_FEATURE)
    require(right, f"{place} must have the keys {sorted(needed)}")
    table = feature["table"]
    right = table is None or table in meta["tables"]
    require(right, f"{place} is of a table that 'tables' does not name")
    if table is None:
        taken = {"day", *meta["tables"], *meta["tasks"], *meta.get("more_tasks", {})}
        right = kind == "id" or (kind == "dense" and not feature["daily"])
        require(right, f"{place} needs a table, being a {kind}")
        require(name not in taken, f"{place} has the name of a task, a table or the day")
    if "vocabulary" in needed:
        right = feature["vocabulary"] in meta["vocabularies"]
        require(right, f"{place} is of a vocabulary that 'vocabularies' does not name")
    right = all(isinstance(text, str) for text in feature.get("columns", []))
    require(right, f"{place}: 'columns' must be a list of names")


def check_key(table, path):
    """Raise InputError unless a table has a `key` and a row 0, the unknown one."""
    key = table.get("key")
    require(is_array(key, "iu", (None,)), f"{path}: 'key' must be there, whole numbers (rows,)")
    require(len(key) > 0, f"{path}: row 0, the unknown one, is missing")


def check_column(data, name, feature):
    """Raise InputError unless the column of a table's feature is what its description says."""
    table = data.tables[feature["table"]]
    n_rows = len(table["key"])
    column = table.get(name)
    place = f"{data.folder / feature['table']}.pkl: column {name}"
    kind = feature["kind"]
    if kind == "id":
        check_codes(column, n_rows, data.meta["vocabularies"][feature["vocabulary"]], place)
    elif kind == "list":
        check_lists(column, n_rows, data.meta["vocabularies"][feature["vocabulary"]], place)
    else:
        days = (None,) if feature["daily"] else ()
        shape = (*days, n_rows, None)
        if kind == "dot":
            partner = data.meta["features"][feature["with"]]["table"]
            vectors = data.tables[partner].get(feature["with"])
            width = vectors.shape[-1] if isinstance(vectors, np.ndarray) and vectors.ndim else 0
            shape = (*days, n_rows, None, width)
        check_numbers(column, shape, place)
        if feature["daily"] and column.dtype != np.float16:  # as which it is kept
            most = np.finfo(np.float16).max
            require(np.abs(column).max(initial=0) <= most, f"{place} must be within {most:.0f}")


def check_lists(column, n_rows, size, place):
    """Raise InputError unless it holds a list of codes a row."""
    right = isinstance(column, dict) and set(column) == {"values", "offsets"}
    require(right, f"{place} must be a dict of 'values' and 'offsets'")
    offsets = column["offsets"]
    right = is_array(offsets, "iu", (n_rows + 1,))
    require(right, f"{place}: 'offsets' must be {n_rows + 1} whole numbers")
    check_codes(column["values"], None, size, f"{place}: 'values'")
    steps = np.diff(offsets.astype(np.int64))
    right = offsets[0] == 0 and (steps >= 0).all() and offsets[-1] == len(column["values"])
    require(right, f"{place}: 'offsets' must rise from 0 to the number of values")


def check_codes(column, n_rows, size, place):
    """Raise InputError unless it is whole numbers in 0..size - 1, (n_rows,)."""
    right = is_array(column, "iu", (n_rows,))
    require(right, f"{place} must be there, whole numbers ({n_rows or 'items'},)")
    right = not len(column) or (column.min() >= 0 and column.max() < size)
    require(right, f"{place} holds codes or rows outside 0..{size - 1}")


def check_numbers(column, shape, place):
    """Raise InputError unless it is finite floats of this shape, None being any length."""
    wanted = ", ".join("any" if n is None else str(n) for n in shape)
    right = is_array(column, "f", shape) and column.size
    require(right, f"{place} must be there, floats of shape ({wanted})")
    right = np.isfinite(column).all()
    if column.itemsize > 4:
        right = right and np.abs(column).max() <= np.finfo(np.float32).max
    require(right, f"{place} holds NaN, infinity or too large a number; 0 is the mean")


def check_vocabularies(vocabularies, sizes, path):
    """Raise InputError unless it holds the raw ids, sorted, of each vocabulary of this size."""
    for name, size in sizes.items():
        known = vocabularies.get(name)
        right = is_array(known, "iu", (size - FIRST,)) and (known[1:] > known[:-1]).all()
        right = right and not (known == MISSING).any()
        problem = f"{path}: {name!r:.40} must hold {size - FIRST} whole numbers in ascending order"
        problem += f", and not {MISSING}, which is none"
        require(right, problem)


def check_rows(rows, data, path, labelled):
    """Raise InputError unless interactions keep the contract; labelled: whether tasks are there."""
    meta = data.meta
    require(rows, f"{path} has no columns")
    for name, column in rows.items():
        right = isinstance(column, np.ndarray) and column.ndim and len(column)
        require(right, f"{path}: column {name} must be an array, and not empty")
    n_rows = len(next(iter(rows.values())))
    for name, column in rows.items():
        lengths = f"{len(column):,} values and {next(iter(rows))} {n_rows:,}"
        require(len(column) == n_rows, f"{path}: column {name} has {lengths}")
    for task in meta["tasks"] | meta.get("more_tasks", {}) if labelled else ():
        place = f"{path}: column {task}"
        right = is_array(rows.get(task), "biuf", (n_rows,))
        require(right, f"{place} must be there, of shape ({n_rows},)")
        right = ((rows[task] == 0) | (rows[task] == 1)).all()
        require(right, f"{place} must hold 0 and 1 only")
    for key, table in data.tables.items():
        check_codes(rows.get(key), n_rows, len(table["key"]), f"{path}: column {key}")
    for name, feature in meta["features"].items():
        place = f"{path}: column {name}"
        if feature.get("daily"):
            n_days = len(data.tables[feature["table"]][name])
            check_codes(rows.get("day"), n_rows, n_days, f"{path}: column day, for {name},")
        elif feature["table"] is None and feature["kind"] == "id":
            check_codes(rows.get(name), n_rows, meta["vocabularies"][feature["vocabulary"]], place)
        elif feature["table"] is None:
            shape = (
                data.train[name].shape[1:] if isinstance(data.train.get(name), np.ndarray) else ()
            )
            require(len(shape) < 2, f"{place} must have at most two dimensions")
            check_numbers(rows.get(name), (n_rows, *shape), place)
    if meta["group"] is not None and (rows is data.valid or rows is data.test):
        place = f"{path}: column {meta['group']}, 'group' of meta.pkl,"
        check_codes(rows.get(meta["group"]), n_rows, 2**31, place)
    for name in [name for name in rows if name.startswith("true_")]:
        right = is_array(rows[name], "f", (n_rows,)) and ((rows[name] > 0) & (rows[name] < 1)).all()
        require(right, f"{path}: column {name} must hold probabilities between 0 and 1")
