"""The contest's CSVs in, encoded pickles out.

    python get_data.py [SOURCE] [--out user_data] [--valid-day D] [--min-count 5]

SOURCE is a folder that holds the CSVs, or `wechat_algo_data1/` with them, or the zip as the contest hands it out. With
nothing in `data/`, the synthetic stand-in is made in `data/sample/` and used. Interactions, feeds and users stay separate
tables; `user_data/README.md` says what the pickles hold, to the byte.
"""
import argparse
import hashlib
import json
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from common.columns import (
    ACTIONS, FEED_EMBEDDINGS, FEED_IDS, KEYWORD_LISTS, TAG_LISTS, TASK_WEIGHTS, TEST, USER_ACTION,
)
from common.pickles import FIRST, OTHER, PADDING, VERSION, InputError, write_all

HERE = Path(__file__).resolve().parent
EMBEDDING_WIDTH = 32  # components kept of the 512 numbers of a feed embedding
SMOOTHING = 20  # m: a past rate is shrunk towards everyone's as if m more rows had been seen
SHRINKAGE = 2  # a feed's or author's positives and expected positives are both counted as if so many more had been seen
MIN_WEIGHT = 0.1  # items of a machine list that the machine believes less than this are left out
LONGEST_SECONDS = 3600  # a longer video was given in milliseconds by mistake
LISTS = {"tag": TAG_LISTS, "keyword": KEYWORD_LISTS}  # vocabulary: the lists that share it
TESTS = ("test_a", "test_b")
LARGEST_ID = 2**31 - 1
LAST_DAY = 999
MISSING = -1  # an id that the CSV leaves empty


# ---- reading -------------------------------------------------------------------------------------------------------------


class Source:
    """The CSVs of a folder or of a zip, by name."""

    def __init__(self, path):
        path = Path(path)
        if path.is_dir() and not (path / "user_action.csv").exists():
            inside = [path / "wechat_algo_data1", path / "wechat_algo_data1.zip"]
            path = next((place for place in inside if place.exists()), path)
        self.path, self.zip = path, None
        if path.is_file():
            try:
                self.zip = zipfile.ZipFile(path)
            except zipfile.BadZipFile:
                raise InputError(f"{path} is not a zip that can be read: download it again.") from None
            self.members = {Path(name).name: name for name in self.zip.namelist()}
        elif not path.is_dir():
            raise InputError(f"{path} does not exist: give the folder or the zip that holds user_action.csv.")

    def has(self, name):
        return name in self.members if self.zip else (self.path / name).exists()

    def open(self, name):
        if not self.has(name):
            raise InputError(f"{self.path / name} is missing: put the contest's file there, or give its folder as SOURCE.")
        return self.zip.open(self.members[name]) if self.zip else open(self.path / name, "rb")

    def note(self):
        """What the maker of a converted or synthetic data set left beside it."""
        if not self.has("source.json"):
            return {"name": "WeChat Big Data Challenge 2021"}
        with self.open("source.json") as file:
            return json.load(file)


def read_columns(source, name, columns, optional=(), text=(), real=()):
    """{column: array} of a CSV: int64, float64 for the columns in `real`, strings for those in `text`.

    An empty id of FEED_IDS is MISSING, an empty real NaN, an empty string "". Columns in `optional` may be absent.

    Raises InputError naming the file, and the row and column where there is one.
    """
    import pandas as pd

    place = source.path / name
    with source.open(name) as file:
        header = file.readline().decode("utf-8-sig", "replace").strip().split(",")
    lost = [column for column in columns if column not in header and column not in optional]
    if lost:
        raise InputError(f"{place}: column {lost[0]} is missing from the header: restore it.")
    columns = [column for column in columns if column in header]
    options = dict(usecols=columns, encoding="utf-8-sig", encoding_errors="replace")
    kinds = {column: str if column in text else np.float64 if column in real else np.int64 for column in columns}
    try:
        with source.open(name) as file, np.errstate(invalid="ignore"):  # an empty id is found below, by its ValueError
            table = pd.read_csv(file, dtype=kinds, **options)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{place} cannot be parsed ({str(error).strip()}): get the file again.") from None
    except (ValueError, OverflowError):  # an empty, fractional or non-numeric value somewhere: read again, and look for it
        with source.open(name) as file:
            table = pd.read_csv(file, dtype=str, **options)
        for column in columns:
            if column not in text:
                table[column] = _numbers(table[column], place, column)
    if not len(table):
        raise InputError(f"{place} has no rows: get the file again.")
    return {column: table[column].fillna("").tolist() if column in text else table[column].to_numpy(kinds[column]) for column in columns}


def _numbers(strings, place, column):
    """The numbers of a column of strings such as 5, 5.0 or, where that is allowed, nothing: NaN, or MISSING for an id."""
    import pandas as pd

    numbers = pd.to_numeric(strings, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    empty, whole = strings.isna().to_numpy(), column != "videoplayseconds"
    wrong = np.isnan(numbers) & ~(empty & (column in (*FEED_IDS, "videoplayseconds")))
    if whole:
        wrong |= ~empty & (numbers != np.floor(numbers))
    if wrong.any():
        row = int(np.argmax(wrong))
        given = "nothing" if empty[row] else repr(strings.iloc[row])
        raise InputError(f"{place}, line {row + 2}, column {column}: {given} is not a {'whole ' * whole}number: mend or remove the line.")
    return np.where(empty, MISSING, np.where(np.isfinite(numbers), numbers, 0)).astype(np.int64) if whole else numbers


def check_range(values, low, high, place, column):
    """Raise InputError where a value of the column lies outside low..high."""
    wrong = (values < low) | (values > high)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place}, line {row + 2}, column {column}: {values[row]} is not in {low}..{high}: mend or remove the line.")


def read_log(source, name, columns):
    """{column: array} of an action or test file, its ids, days and labels checked; columns of actions may be absent."""
    log = read_columns(source, name, columns, optional=ACTIONS)
    for column, values in log.items():
        low, high = (0, 1) if column in ACTIONS else (1, LAST_DAY) if column == "date_" else (0, LARGEST_ID)
        check_range(values, low, high, source.path / name, column)
        log[column] = values.astype(np.uint8 if column in ACTIONS else np.int32)
    return log


def read_embeddings(source):
    """Feed ids, int64 (feeds,), and their embeddings, float32 (feeds, 512)."""
    name = "feed_embeddings.csv"
    place, line, ids, blocks, left = source.path / name, 2, [], [], b""
    with source.open(name) as file:
        if tuple(file.readline().decode("utf-8-sig", "replace").strip().split(",")) != FEED_EMBEDDINGS:
            raise InputError(f"{place}: the header must be {','.join(FEED_EMBEDDINGS)}: restore it.")
        while block := file.read(1 << 24):
            block, _, left = (left + block).rpartition(b"\n")
            if block:
                numbers = _parse_embeddings(block, blocks, place, line)
                ids.append(numbers[:, 0].astype(np.int64))
                blocks.append(numbers[:, 1:].astype(np.float32))
                line += len(numbers)
    if left.strip():
        numbers = _parse_embeddings(left, blocks, place, line)
        ids.append(numbers[:, 0].astype(np.int64))
        blocks.append(numbers[:, 1:].astype(np.float32))
    if not ids:
        raise InputError(f"{place} has no rows: get the file again, or remove it.")
    return np.concatenate(ids), np.concatenate(blocks)


def _parse_embeddings(block, blocks, place, line):
    """float64 (lines of the block, 1 + width): the id and the numbers of each line."""
    block = block.replace(b",", b" ")
    rows = block.split(b"\n")
    width = 1 + blocks[0].shape[1] if blocks else len(rows[0].split())

    def numbers(text, n_rows):
        try:
            parsed = np.fromstring(text, sep=" ").reshape(n_rows, width)
        except ValueError:  # a word that is no number, or too many or too few of them
            return None
        return parsed if np.isfinite(parsed).all() and (parsed[:, 0] == np.floor(parsed[:, 0])).all() else None

    parsed = numbers(block, len(rows))
    if parsed is None:
        wrong = next((row for row, text in enumerate(rows) if numbers(text, 1) is None), 0)
        raise InputError(f"{place}, line {line + wrong}: not an id and {width - 1} finite numbers: get the file again.")
    return parsed


def parse_list(strings, place, column):
    """Items of `81;269;159` or, in a machine list, of `269 0.85;81 0.41`, one string a feed.

    Returns values, int64 (items,), and lengths, int64 (feeds,). Items of a weight under MIN_WEIGHT are left out.
    """
    values, owners = [], []
    for owner, string in enumerate(strings):
        for item in string.split(";") if string else ():
            word, _, weight = item.strip().partition(" ")
            try:
                if not word or (weight and float(weight) < MIN_WEIGHT):
                    continue
                values.append(int(word))
            except ValueError:
                raise InputError(
                    f"{place}, line {owner + 2}, column {column}: {item!r} is no id with or without a weight: mend the line."
                ) from None
            owners.append(owner)
    return np.array(values, np.int64), np.bincount(np.array(owners, np.int64), minlength=len(strings))


# ---- encoding ------------------------------------------------------------------------------------------------------------


def vocabulary(ids, counts, min_count):
    """The ids, sorted, that occur in at least `min_count` training rows; `counts` weighs each of `ids` in rows."""
    known, place = np.unique(ids, return_inverse=True)
    total = np.bincount(place, weights=counts, minlength=len(known))
    return known[(known != MISSING) & (total >= max(min_count, 1))]


def encode(ids, vocabulary):
    """Codes int32: PADDING where an id is MISSING, OTHER where the vocabulary lacks it, else FIRST + its place there."""
    if not len(vocabulary):
        return np.where(ids == MISSING, PADDING, OTHER).astype(np.int32)
    place = np.minimum(np.searchsorted(vocabulary, ids), len(vocabulary) - 1)
    codes = np.where(vocabulary[place] == ids, place + FIRST, OTHER)
    return np.where(ids == MISSING, PADDING, codes).astype(np.int32)


def decode(codes, vocabulary):
    """The ids of codes; MISSING for PADDING and OTHER."""
    return np.concatenate([[MISSING, MISSING], vocabulary])[codes]


def log_lifts(positives, expected, m):
    """log((positives + m) / (expected + m)): 0 is what was to be expected, and what little evidence is drawn to."""
    return np.log((positives + m) / (expected + m))


def past_statistics(day, user, feed, author, labels, n_users):
    """The history statistics of users, feeds and authors: three float16 (days + 1, entities, actions + 1), indexed by day.

    What stands under a day looks at strictly earlier days: for each action the log lift of the positives over those to
    be expected, and last log(1 + rows) / 10. A user is held against everyone's rate p, where it makes the log lift of the
    rate smoothed by m = SMOOTHING rows, log((positives + m p) / ((rows + m) p)). A feed or an author is held against
    the sum of its viewers' smoothed rates, since who happened to see a feed says more of its rate than the feed does.
    day, user, feed, labels {action: }: (rows,). author: (feeds,), the author of each feed, a small integer.
    """
    from scipy.sparse import csr_array

    n_days, n_feeds, n_authors = int(day.max()) + 1, len(author), int(author.max()) + 1
    users, feeds, authors = (np.zeros((n_days + 1, n, len(labels) + 1), np.float16) for n in (n_users, n_feeds, n_authors))
    of_author = csr_array((np.ones(n_feeds, np.float32), (author, np.arange(n_feeds))))  # (authors, feeds)
    views = csr_array((n_feeds, n_users), dtype=np.float32)  # how often each user saw each feed before today
    user_positives, feed_positives = (np.zeros((n, len(labels)), np.float32) for n in (n_users, n_feeds))
    for today in range(1, n_days + 1):
        new = np.flatnonzero(day == today - 1)
        views += csr_array((np.ones(len(new), np.float32), (feed[new], user[new])), shape=views.shape)
        for column, label in enumerate(labels.values()):
            hits = new[label[new] > 0]
            user_positives[:, column] += np.bincount(user[hits], minlength=n_users)
            feed_positives[:, column] += np.bincount(feed[hits], minlength=n_feeds)
        user_rows, feed_rows = views.sum(axis=0), views.sum(axis=1)
        p = (user_positives.sum(axis=0, dtype=np.float64) + 0.5) / (user_rows.sum() + 1)  # (actions,)
        rate = ((user_positives + SMOOTHING * p) / (user_rows[:, None] + SMOOTHING)).astype(np.float32)  # (users, actions)
        expected = views @ rate  # (feeds, actions)
        users[today, :, :-1] = np.log(rate / p)
        feeds[today, :, :-1] = log_lifts(feed_positives, expected, SHRINKAGE)
        authors[today, :, :-1] = log_lifts(of_author @ feed_positives, of_author @ expected, SHRINKAGE)
        for table, rows in ((users, user_rows), (feeds, feed_rows), (authors, of_author @ feed_rows)):
            table[today, :, -1] = np.log1p(rows) / 10
    return users, feeds, authors


def standardize(values, seen):
    """(values - mean) / deviation over the rows `seen` in training; NaN becomes the mean, 0. float32."""
    known = values[seen & np.isfinite(values)]
    mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    return np.nan_to_num((values - mean) / (deviation or 1.0), nan=0.0).astype(np.float32)


def reduce_embeddings(embeddings, rows, seen):
    """float32 (table rows, EMBEDDING_WIDTH): PCA, the first component scaled to unit variance, fitted on the feeds `seen`.

    embeddings: (feeds, 512). rows: their rows in the table. seen: bool (table rows,). Rows without an embedding get zeros.
    """
    from sklearn.decomposition import PCA

    fitted_on = embeddings[seen[rows]]
    reduced = np.zeros((len(seen), min(EMBEDDING_WIDTH, *fitted_on.shape)), np.float32)
    if reduced.shape[1]:
        pca = PCA(reduced.shape[1], svd_solver="covariance_eigh").fit(fitted_on)
        reduced[rows] = pca.transform(embeddings) / np.sqrt(max(pca.explained_variance_[0], 1e-12))
    return reduced


# ---- from CSVs to tables ---------------------------------------------------------------------------------------------------


def rows_of(ids, keys):
    """Table rows of raw ids: 1 + their place in the sorted `keys`, row 0 being the unknown one's."""
    return (1 + np.searchsorted(keys, ids)).astype(np.int32)


def read_feeds(source):
    """{column: array} of feed_info.csv, ids checked, each feed once."""
    ids, lists = ("feedid", *FEED_IDS), (*TAG_LISTS, *KEYWORD_LISTS)
    info = read_columns(source, "feed_info.csv", (*ids, *lists, "videoplayseconds"), text=lists, real=("videoplayseconds",))
    place = source.path / "feed_info.csv"
    for column in ids:
        check_range(info[column], MISSING if column in FEED_IDS else 0, LARGEST_ID, place, column)
    _, first = np.unique(info["feedid"], return_index=True)
    if len(first) < len(info["feedid"]):
        again = np.setdiff1d(np.arange(len(info["feedid"])), first)[0]
        raise InputError(f"{place}, line {again + 2}: feed {info['feedid'][again]} is listed twice: keep one of the lines.")
    for column in lists:
        info[column] = parse_list(info[column], place, column)
    return info


def encode_feeds(info, keys, rows_seen, min_count):
    """The feeds' table without embedding and history, its vocabularies, and the raw author of each row.

    info: what read_feeds gives. keys: raw ids of all feeds, sorted. rows_seen: training rows of each table row.
    """
    n, rows = len(keys) + 1, rows_of(info["feedid"], keys)

    def placed(values, empty):  # a column of feed_info.csv, in the order of the table
        column = np.full(n, empty)
        column[rows] = values
        return column

    raw = {"feedid": np.concatenate([[MISSING], keys]), **{name: placed(info[name], MISSING) for name in FEED_IDS}}
    vocabularies = {name: vocabulary(ids, rows_seen, min_count) for name, ids in raw.items()}
    table = {"key": raw["feedid"], **{name: encode(ids, vocabularies[name]) for name, ids in raw.items()}}
    table["feedid"][0] = OTHER
    for subject, names in LISTS.items():
        items = [info[name][0] for name in names]
        owners = [np.repeat(rows, info[name][1]) for name in names]
        known = vocabulary(np.concatenate(items), rows_seen[np.concatenate(owners)], min_count)
        for name, values, owner in zip(names, items, owners):
            offsets = np.concatenate([[0], np.cumsum(placed(info[name][1], 0))]).astype(np.int32)
            table[name] = {"values": encode(values[np.argsort(owner, kind="stable")], known), "offsets": offsets}
        vocabularies[subject] = known
    seconds = placed(info["videoplayseconds"], np.nan)
    seconds = np.where(seconds > LONGEST_SECONDS, seconds / 1000, seconds)
    table["videoplayseconds"] = standardize(np.log1p(np.where(seconds > 0, seconds, np.nan)), rows_seen > 0)[:, None]
    return table, vocabularies, raw["authorid"]


class Report:
    """Prints one line a stage: what it is, its seconds if it took any, what was found."""

    def __init__(self):
        self.since = time.perf_counter()

    def __call__(self, stage, found):
        now = time.perf_counter()
        seconds = f"{now - self.since:.1f} s" if now - self.since >= 0.05 else ""
        print(f"  {stage:20} {seconds:>8}  {found}", flush=True)
        self.since = now


def read_source(source, report):
    """Everything used of the CSVs: {"log", "tests", "feeds"} and, where they are there, {"embeddings", "truth"}."""
    raw = {"note": source.note(), "log": read_log(source, "user_action.csv", [c for c in USER_ACTION if c not in ("play", "stay")])}
    days = raw["log"]["date_"]
    report("user_action.csv", f"{len(days):,} rows, days {days.min()}..{days.max()}")
    raw["tests"] = {name: read_log(source, f"{name}.csv", TEST) for name in TESTS if source.has(f"{name}.csv")}
    for name, rows in raw["tests"].items():
        report(f"{name}.csv", f"{len(rows['userid']):,} rows")
    raw["feeds"] = read_feeds(source)
    report("feed_info.csv", f"{len(raw['feeds']['feedid']):,} feeds")
    if source.has("feed_embeddings.csv"):
        raw["embeddings"] = read_embeddings(source)
        report("feed_embeddings.csv", "{:,} feeds, {} numbers each".format(*raw["embeddings"][1].shape))
    if source.has("true_probability.npy"):
        with source.open("true_probability.npy") as file:
            raw["truth"] = np.load(file)
    return raw


def encode_source(raw, valid_day, min_count, report):
    """{file name: content} of every pickle, from what read_source gives. Raises InputError for days that cannot be split."""
    log, tests, info = raw["log"], raw["tests"], raw["feeds"]
    actions = [name for name in ACTIONS if name in log]
    day = log["date_"]
    valid_day = int(day.max()) if valid_day is None else valid_day
    train, valid, kept = day < valid_day, day == valid_day, day <= valid_day
    if not (train.any() and valid.any() and actions):
        raise InputError(
            f"user_action.csv: validating day {valid_day} needs rows on that day and on one before, and a column of "
            f"{', '.join(ACTIONS)}: choose another --valid-day or get the file again."
        )
    labels = {name: log[name] for name in actions}

    users = np.unique(np.concatenate([np.unique(rows["userid"]) for rows in (log, *tests.values())]))
    feeds = np.unique(np.concatenate([np.unique(rows["feedid"]) for rows in (log, *tests.values(), info)]))
    user, feed = rows_of(log["userid"], users), rows_of(log["feedid"], feeds)
    user_rows = np.bincount(user[train], minlength=len(users) + 1)
    feed_rows = np.bincount(feed[train], minlength=len(feeds) + 1)

    user_ids = np.concatenate([[MISSING], users])
    vocabularies = {"userid": vocabulary(user_ids, user_rows, min_count), "device": vocabulary(log["device"], train, min_count)}
    user_table = {"key": user_ids, "userid": encode(user_ids, vocabularies["userid"])}
    user_table["userid"][0] = OTHER
    feed_table, feed_vocabularies, author = encode_feeds(info, feeds, feed_rows, min_count)
    vocabularies |= feed_vocabularies
    if "embeddings" in raw:
        ids, embeddings = raw["embeddings"]
        known = np.isin(ids, feeds)
        feed_table["feed_embedding"] = reduce_embeddings(embeddings[known], rows_of(ids[known], feeds), feed_rows > 0)
    report("encoding", f"{len(users):,} users, {len(feeds):,} feeds; ids of fewer than {min_count} training rows share one row")

    authors, author = np.unique(author, return_inverse=True)
    past_labels = {name: label[kept] for name, label in labels.items()}
    user_table["user_history"], feed_table["feed_history"], author_history = past_statistics(
        day[kept], user[kept], feed[kept], author, past_labels, len(users) + 1
    )
    author_history[:, authors == MISSING] = 0  # feeds without an author have nothing in common
    feed_table["author_history"] = author_history[:, author]
    report("history", "rates and counts of users, feeds and authors over strictly earlier days")

    columns = {"user": user, "feed": feed, "day": day, "device": encode(log["device"], vocabularies["device"]), **labels}
    files = {"user.pkl": user_table, "feed.pkl": feed_table, "vocabularies.pkl": vocabularies}
    files["train.pkl"] = {name: column[train] for name, column in columns.items()}
    files["valid.pkl"] = {name: column[valid] for name, column in columns.items()}
    if "truth" in raw:
        files["valid.pkl"] |= {f"true_{name}": raw["truth"][valid, i] for i, name in enumerate(raw["note"]["columns"])}
    for name, rows in tests.items():
        files[f"{name}.pkl"] = {
            "user": rows_of(rows["userid"], users), "feed": rows_of(rows["feedid"], feeds),
            "day": np.full(len(rows["userid"]), valid_day + 1, np.int32), "device": encode(rows["device"], vocabularies["device"]),
        }
    files["meta.pkl"] = describe(files, raw["note"], actions, valid_day)

    lacking = np.isin(log["feedid"], info["feedid"], invert=True).sum()
    report("training rows", f"{train.sum():,}, days {day.min()}..{valid_day - 1}")
    report("validation rows", f"{valid.sum():,}, day {valid_day}; rows of later days left out: {len(day) - kept.sum():,}")
    report("unknown feeds", f"{lacking:,} rows of feeds that feed_info.csv lacks, kept with their features unknown")
    report("vocabularies", ", ".join(f"{name} {len(ids):,}" for name, ids in vocabularies.items() if name != "stamp"))
    report("positive rates", ", ".join(f"{name} {labels[name][train].mean():.3%}" for name in actions))
    return files


def describe(files, note, actions, valid_day):
    """The content of meta.pkl; every file of `files` is stamped with the fingerprint of them all."""
    id_tables = {"userid": "user", "device": None, **dict.fromkeys(("feedid", *FEED_IDS), "feed")}
    features = {name: {"kind": "id", "table": table, "vocabulary": name} for name, table in id_tables.items()}
    for vocabulary_name, names in LISTS.items():
        features |= {name: {"kind": "list", "table": "feed", "vocabulary": vocabulary_name} for name in names}
    for name in ("videoplayseconds", "feed_embedding"):
        if name in files["feed.pkl"]:
            features[name] = {"kind": "dense", "table": "feed", "daily": False}
    for name, table in (("user_history", "user"), ("feed_history", "feed"), ("author_history", "feed")):
        features[name] = {"kind": "dense", "table": table, "daily": True, "columns": [*actions, "rows"]}
    sizes = {name: FIRST + len(ids) for name, ids in files["vocabularies.pkl"].items()}
    stamp = fingerprint(files)
    for content in files.values():
        content["stamp"] = stamp
    return {
        "version": VERSION, "stamp": stamp, "name": note["name"], "synthetic": bool(note.get("synthetic")),
        "tasks": {name: weight for name, weight in TASK_WEIGHTS.items() if name in actions}, "group": "user",
        "tables": ["user", "feed"], "features": features, "valid_day": valid_day,
        "vocabularies": sizes,
    }


def fingerprint(files):
    """A short hash of every name and array: equal for equal data, whenever and wherever it was made."""
    digest = hashlib.blake2b(digest_size=8)

    def add(content):
        for name in sorted(content):
            digest.update(name.encode())
            if isinstance(content[name], dict):
                add(content[name])
            else:
                digest.update(np.ascontiguousarray(content[name]))

    add(files)
    return digest.hexdigest()


def find_source(path):
    """The Source at `path`; with no path given, `data/`, or the stand-in made in `data/sample/` if nothing is there."""
    if path is not None:
        return Source(path)
    source = Source(HERE / "data")
    if source.zip is None and not source.has("user_action.csv"):
        stand_in = HERE / "data" / "sample"
        print(f"nothing in {HERE / 'data'}: using the SYNTHETIC stand-in in {stand_in}", flush=True)
        if not (stand_in / "source.json").exists():
            from data import sample

            sample.generate(stand_in)
        source = Source(stand_in)
    return source


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder or zip of the contest's CSVs (default: data)")
    parser.add_argument("--out", default="user_data", help="folder for the pickles (default: user_data)")
    parser.add_argument("--valid-day", type=int, help="day that validates; days before it train (default: the last labelled day)")
    parser.add_argument("--min-count", type=int, default=5, help="ids of fewer training rows share one row (default: 5)")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    try:
        source = find_source(args.source)
        report = Report()
        note = source.note()
        synthetic = " -- SYNTHETIC: made up, results on it say nothing of people" if note.get("synthetic") else ""
        print(f"{source.path}: {note['name']}{synthetic}")
        raw = read_source(source, report)
        files = encode_source(raw, args.valid_day, args.min_count, report)
        write_all(args.out, files)
        report("written", f"{', '.join(files)} to {args.out}")
    except InputError as error:
        print(f"get_data.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"get_data.py: {error.filename or args.out}: {error.strerror}: make room or check permissions.", file=sys.stderr)
        return 2
    print(f"done in {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
