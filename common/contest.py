"""The contest's files as checked arrays."""

import csv
import io
import reprlib
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from functools import partial

from common.blocks import EMBEDDED, in_two_threads
from common.columns import (
    ACTIONS,
    EVERY_ACTION,
    FEED_EMBEDDINGS,
    FEED_IDS,
    KEYWORD_LISTS,
    OTHER_ACTIONS,
    TAG_LISTS,
    TASKS,
    TEST,
    TESTS,
    USER_ACTION,
)
from common.command import InputError, bar
from common.csvs import LARGEST_ID, MISSING, read_columns, read_header
from common.features.ids import distinct
from common.pickles import stamp_of
from common.schema import is_array
from common.source import unpacking

import numpy as np

MOST_DAYS = 999  # the tables of daily features have a block each
MIN_WEIGHT = 0.1  # items of a machine list that the machine believes less are left out


def read_source(source, report):
    """All that is used of the CSVs: {"place", "note", "log", "tests", "feeds", "truth"}.

    With "labelled", the rows of test.csv, and "embeddings", (feed ids, float32 (n, 512)), where the
    files are there. truth: {action: true probability (rows,)} of the synthetic stand-in. Raises
    InputError.
    """
    name = "feed_embeddings.csv"
    with (
        ThreadPoolExecutor(1) as aside,  # ends when the file is closed
        source.open(name) if source.has(name) else nullcontext() as file,
    ):
        embeddings = file and aside.submit(read_embeddings, file, source.path / name)
        note = source.note()
        made_up = " -- SYNTHETIC: results on it say nothing of people"
        print(f"{source.path}: {note['name']}{made_up if note.get('synthetic') else ''}")
        raw = {"place": source.path, "note": note}
        raw["log"] = read_log(source, "user_action.csv", report)
        if source.has("test.csv"):
            raw["labelled"] = read_log(source, "test.csv", report)
        found = [test for test in TESTS if source.has(f"{test}.csv")]
        raw["tests"] = {test: read_rows(source, f"{test}.csv", TEST) for test in found}
        for test, rows in raw["tests"].items():
            report(f"{test}.csv", f"{len(rows['userid']):,} rows")
        raw["feeds"] = read_feeds(source)
        report("feed_info.csv", f"{len(raw['feeds']['feedid']):,} feeds")
        if embeddings:
            with bar(f"reading {name}", size=source.size(name)) as done:
                while not wait([embeddings], timeout=0.1).done:
                    done.update(file.tell() - done.n)
            raw["embeddings"] = embeddings.result()
            report(name, "{:,} feeds, {} numbers each".format(*raw["embeddings"][1].shape))
    names = [*(f"{test}.csv" for test in TESTS), name]
    absent = [file_name for file_name in names if not source.has(file_name)]
    if absent:
        report("not there", ", ".join(absent))
    raw["truth"] = read_truth(source, raw["note"], raw["log"], report)
    return raw


def read_log(source, name, report):
    """{column: array} of a file of labelled rows; columns of actions and `play` may be absent."""
    columns = [column for column in (*USER_ACTION, *OTHER_ACTIONS) if column != "stay"]
    log = read_rows(source, name, columns)
    if not any(task in log for task in TASKS):
        raise InputError(f"{source.path / name} has no column of {', '.join(TASKS)}: restore it.")
    days = log["date_"]
    n_days = len(distinct(days))
    if n_days > MOST_DAYS:
        which = f"column date_: it has {n_days:,} different days"
        raise InputError(f"{source.path / name}, {which}: cut it to {MOST_DAYS} days at most.")
    absent = [column for column in (*ACTIONS, "play") if column not in log]
    without = f"; without {', '.join(absent)}" if absent else ""
    report(name, f"{len(days):,} rows, days {days.min()}..{days.max()}{without}")
    return log


def read_rows(source, name, columns):
    """{column: array} of an action or test file."""
    within = dict.fromkeys(columns, (0, LARGEST_ID)) | {"date_": (1, LARGEST_ID)}
    within |= dict.fromkeys(EVERY_ACTION, (0, 1))
    return read_columns(source, name, columns, optional=(*EVERY_ACTION, "play"), within=within)


def read_feeds(source):
    """{column: array} of feed_info.csv, each feed once; a list is (values, lengths)."""
    name = "feed_info.csv"
    lists = (*TAG_LISTS, *KEYWORD_LISTS)
    within = {"feedid": (0, LARGEST_ID), **dict.fromkeys(FEED_IDS, (MISSING, LARGEST_ID))}
    columns = (*within, *lists, "videoplayseconds")
    real = ("videoplayseconds",)
    info = read_columns(source, name, columns, text=lists, real=real, within=within)
    again = repeated(info["feedid"])
    if again is not None:
        feed = info["feedid"][again]
        raise InputError(f"{source.line(name, again)}: feed {feed} is listed twice: keep one line.")
    for column in lists:
        info[column] = parse_list(info[column], partial(source.line, name), column)
    return info


def repeated(ids):
    """The first row whose id stands in a row before; None if there is none."""
    import pandas as pd

    again = pd.Series(ids).duplicated()
    return int(again.idxmax()) if again.any() else None


def parse_list(strings, line, column):
    """Items of `81;269;159` or, in a machine list, of `269 0.85;81 0.41`, one string a feed.

    Returns values, int64 (items,), and lengths, int64 (feeds,). Items of a weight under MIN_WEIGHT
    are left out. line(row): names the place of a string in an error.
    """
    ids = Ids()
    values = []
    lengths = []
    for owner, string in enumerate(bar(f"parsing {column}", strings)):
        before = len(values)
        for item in string.split(";") if string else ():
            word, _, weight = item.strip().partition(" ")
            try:
                if word and not (weight and float(weight) < MIN_WEIGHT):
                    values.append(ids[word])
            except ValueError:
                given = reprlib.repr(item)
                raise InputError(
                    f"{line(owner)}, column {column}: {given} is no id with or without a weight: "
                    "mend the line."
                ) from None
        lengths.append(len(values) - before)
    return np.array(values, np.int64), np.array(lengths, np.int64)


class Ids(dict):
    """{word: the id that it says}, each parsed once. Raises ValueError for a word that is none."""

    def __missing__(self, word):
        value = int(word)
        if not (word.isdecimal() and value <= LARGEST_ID):
            raise ValueError
        self[word] = value
        return value


def read_embeddings(file, place):
    """Feed ids, int64 (feeds,), and embeddings, float32 (feeds, 512), of an open file."""
    with unpacking(place):
        header = tuple(read_header(file, place))
    if header != FEED_EMBEDDINGS:
        raise InputError(f"{place}: the header must be {','.join(FEED_EMBEDDINGS)}: restore it.")
    blocks = blocks_of_embeddings(file, place)
    parts = [*in_two_threads(partial(embeddings_of, place), blocks)]
    if not parts:
        raise InputError(f"{place} has no rows: get the file again, or remove it.")
    ids, vectors = map(np.concatenate, zip(*parts, strict=True))
    again = repeated(ids)
    if again is not None:
        feed = f"feed {ids[again]} is listed twice"
        raise InputError(f"{place}, line {again + 2}: {feed}: keep one line.")
    return ids, vectors


def blocks_of_embeddings(file, place):
    """(line, block, lines, width) of an open file behind its header, EMBEDDED bytes at a time.

    line: the number of the block's first one; width: numbers a line, of the file's first one.
    """
    line = 2
    width = 0
    with unpacking(place):
        while block := file.read(EMBEDDED) + file.readline():
            width = width or max(2, len(block.partition(b"\n")[0].replace(b",", b" ").split()))
            n_lines = block.rstrip().count(b"\n") + 1
            yield line, block, n_lines, width
            line += n_lines


def embeddings_of(place, line, block, n_lines, width):
    """Ids, int64 (lines,), and vectors, float32 (lines, width - 1). Raises InputError."""
    numbers = parse_embeddings(block, n_lines, width)
    if numbers is None:
        rows = enumerate(block.split(b"\n"))
        wrong = next((n for n, row in rows if parse_embeddings(row, 1, width) is None), 0)
        what = f"not an id and {width - 1} finite numbers: get the file again"
        raise InputError(f"{place}, line {line + wrong}: {what}.")
    return numbers[:, 0].astype(np.int64), numbers[:, 1:].astype(np.float32)


def parse_embeddings(block, n_lines, width):
    """float64 (lines, width): the id and the numbers of each line; None if there is anything else.

    pandas reads them as one column, which takes half the time of np.fromstring, and lets other
    threads run.
    """
    import pandas as pd

    text = io.BytesIO(block.translate(bytes.maketrans(b", ", b"\n\n")))
    options = {"header": None, "names": ["number"], "dtype": np.float64, "na_filter": False}
    try:
        numbers = pd.read_csv(text, quoting=csv.QUOTE_NONE, **options)
        numbers = numbers["number"].to_numpy().reshape(n_lines, width)
    except ValueError:  # a word that is no number, or too many or too few of them
        return None
    ids = numbers[:, 0]
    right = (np.abs(numbers) <= np.finfo(np.float32).max).all()
    right = right and ((ids == np.floor(ids)) & (ids >= 0) & (ids <= LARGEST_ID)).all()
    return numbers if right else None


def read_truth(source, note, log, report):
    """{action: true probability, float (rows,)} of the stand-in; {} for other data.

    Rows that were edited or sorted since it was made are told by the stamp of their labels.
    """
    name = "true_probability.npy"
    if not source.has(name):
        return {}
    with source.open(name) as file, unpacking(source.path / name):
        try:
            table = np.load(file, allow_pickle=False)
        except ValueError:
            table = None
    labels = {action: log[action] for action in ACTIONS if action in log}
    right = note.get("labels") == stamp_of(labels)
    right = right and is_array(table, "f", (len(log["date_"]), len(labels)))
    if not (right and ((table > 0) & (table < 1)).all()):
        report(name, "left out: it is of other rows or an older stand-in")
        return {}
    return dict(zip(labels, table.T, strict=True))
