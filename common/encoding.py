"""From raw ids to the pickles of a run: users, feeds, interactions and what describes them."""

from common.columns import EVERY_ACTION, FINAL_ROUND_WEIGHTS, OTHER_ACTIONS, TASK_WEIGHTS
from common.command import InputError
from common.csvs import MISSING
from common.features.ids import distinct, encode, rows_of
from common.pickles import FIRST, VERSION, stamp_of

import numpy as np


def replace_ids(raw):
    """Give users and feeds rows of tables and days numbers, in place of ids and dates of the log.

    The ids of all that any file names become raw["users"] and raw["feed_ids"], the dates
    raw["dates"]: int64, sorted. Rows and days count from 1. Raw ids are not kept beside them.
    """
    log = raw["log"]
    others = [*raw["tests"].values()] + ([raw["labelled"]] if "labelled" in raw else [])
    users, feeds = ([distinct(rows[n]) for rows in (log, *others)] for n in ("userid", "feedid"))
    raw["users"] = np.unique(np.concatenate(users))
    raw["feed_ids"] = np.unique(np.concatenate([*feeds, raw["feeds"]["feedid"]]))
    raw["dates"] = distinct(log["date_"])  # whatever the numbers of the days are
    raw["log"] = {
        "user": rows_of(log.pop("userid"), raw["users"]),
        "feed": rows_of(log.pop("feedid"), raw["feed_ids"]),
        "day": rows_of(log.pop("date_"), raw["dates"]),
        **log,
    }


def tables_of(made, users, feeds):
    """{file name: table} of the users and feeds: the features of each, and the raw ids as `key`."""
    keys = {"user": users, "feed": feeds}
    return {
        f"{key}.pkl": {
            "key": np.concatenate([[MISSING], ids]),
            **{name: feature.values for name, feature in made.items() if feature.table == key},
        }
        for key, ids in keys.items()
    }


def interactions(log, train, made, truth):
    """{file name: columns} of the training rows, bool (rows,), and of the others, which validate.

    truth: {action: true probability (rows,)}.
    """
    log = dict(log)
    log.pop("play", None)
    for name, feature in made.items():
        if feature.table is None:
            log[name] = encode(log[name], feature.known)
    files = {"train.pkl": {name: column[train] for name, column in log.items()}}
    if not train.all():
        valid = {name: column[~train] for name, column in log.items()}
        files["valid.pkl"] = valid | {f"true_{name}": p[~train] for name, p in truth.items()}
    return files


def labelled_rows(rows, log, made, users, feeds, day, place):
    """The columns of rows of test.csv, of one day, those that the log has. Raises InputError."""
    actions = [name for name in EVERY_ACTION if name in log]
    lacking = [name for name in actions if name not in rows]
    if lacking:
        raise InputError(f"{place} lacks the column {lacking[0]} of user_action.csv: restore it.")
    return test_rows(rows, made, users, feeds, day) | {name: rows[name] for name in actions}


def test_rows(rows, made, users, feeds, day):
    """The columns of a test file."""
    n = len(rows["userid"])
    return {
        "user": rows_of(rows["userid"], users),
        "feed": rows_of(rows["feedid"], feeds),
        "day": np.full(n, day, np.int32),
        "device": encode(rows["device"], made["device"].known),
    }


def describe(files, note, made, valid_day):
    """The content of meta.pkl; every file is stamped with the fingerprint of them all."""
    stamp = stamp_of(files)
    sizes = {name: FIRST + len(ids) for name, ids in files["vocabularies.pkl"].items()}
    for content in files.values():
        content["stamp"] = stamp
    weights = FINAL_ROUND_WEIGHTS | dict.fromkeys(OTHER_ACTIONS, 1)
    weights = {name: w for name, w in weights.items() if name in files["train.pkl"]}
    return {
        "version": VERSION,
        "stamp": stamp,
        "name": note["name"],
        "synthetic": bool(note.get("synthetic")),
        "tasks": {name: weight for name, weight in weights.items() if name in TASK_WEIGHTS},
        "more_tasks": {name: w for name, w in weights.items() if name not in TASK_WEIGHTS},
        "raw": {"user": "userid", "feed": "feedid", "device": "device"},
        "group": "user",
        "tables": ["user", "feed"],
        "features": {name: feature.description() for name, feature in made.items()},
        "valid_day": valid_day,
        "vocabularies": sizes,
    }
