"""The contest's CSVs in, encoded pickles out.

    python get_data.py [SOURCE] [--out user_data] [--valid-day D] [--min-count 5] [--quiet]

SOURCE is a folder that holds the CSVs, or `wechat_algo_data1/` with them, or the zip as the contest hands it out. With
nothing in `data/`, the synthetic stand-in is made in `data/sample/` and used. Interactions, feeds and users stay separate
tables; `user_data/README.md` says what the pickles hold, to the byte.
"""
import csv
import hashlib
import io
import reprlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np

from common.columns import (
    ACTIONS, FEED_EMBEDDINGS, FEED_IDS, FINAL_ROUND_WEIGHTS, KEYWORD_LISTS, TAG_LISTS, TASK_WEIGHTS, TEST, USER_ACTION,
)
from common import memory
from common.command import Parser, guarded
from common.pickles import FIRST, OTHER, PADDING, VERSION, InputError, write_all
from common.progress import bar
from common.reading import DAMAGED, LARGEST_ID, MISSING, Source, read_columns

HERE = Path(__file__).resolve().parent
EMBEDDING_WIDTH = 32  # components kept of the 512 numbers of a feed embedding
SMOOTHING = 20  # m: a past rate is shrunk towards everyone's as if m more rows had been seen
LENGTHS = 30  # groups of videos by length, about as many videos in each
SHRINKAGE = 2  # a feed's or author's positives and expected positives are both counted as if so many more had been seen
MIN_WEIGHT = 0.1  # items of a machine list that the machine believes less than this are left out
LONGEST_SECONDS = 3600  # a longer video was given in milliseconds by mistake
LISTS = {"tag": TAG_LISTS, "keyword": KEYWORD_LISTS}  # vocabulary: the lists that share it
TESTS = ("test_a", "test_b")
LAST_DAY = 999
USED = ("user_action.csv", "feed_info.csv", "feed_embeddings.csv", *(f"{name}.csv" for name in TESTS))
MEMORY, MEMORY_A_BYTE, RESERVED = 1.2e8, 1.4, 4e8  # bytes that a run takes, beside 1.4 a byte of the CSVs; addresses reserved beyond


# ---- reading -------------------------------------------------------------------------------------------------------------


def read_log(source, name, columns):
    """{column: array} of an action or test file, its numbers checked; columns of actions and `play` may be absent."""
    within = {column: (0, 1) if column in ACTIONS else (1, LAST_DAY) if column == "date_" else (0, LARGEST_ID) for column in columns}
    return read_columns(source, name, columns, optional=(*ACTIONS, "play"), within=within)


def read_embeddings(file, place):
    """Feed ids, int64 (feeds,), and their embeddings, float32 (feeds, 512), of feed_embeddings.csv, open as `file` and named `place`."""
    line, width, ids, blocks = 2, 0, [], []
    try:
        if tuple(file.readline().decode("utf-8-sig", "replace").strip().split(",")) != FEED_EMBEDDINGS:
            raise InputError(f"{place}: the header must be {','.join(FEED_EMBEDDINGS)}: restore it.")
        while block := file.read(1 << 20) + file.readline():
            width = width or len(block.partition(b"\n")[0].replace(b",", b" ").split())
            n_lines = block.rstrip().count(b"\n") + 1
            numbers = parse_embeddings(block, n_lines, width)
            if numbers is None:
                wrong = next((row for row, text in enumerate(block.split(b"\n")) if parse_embeddings(text, 1, width) is None), 0)
                raise InputError(f"{place}, line {line + wrong}: not an id and {width - 1} finite numbers: get the file again.")
            ids.append(numbers[:, 0].astype(np.int64))
            blocks.append(numbers[:, 1:].astype(np.float32))
            line += n_lines
    except DAMAGED as error:
        raise InputError(f"{place} cannot be unpacked ({str(error).strip()}): download the zip again.") from None
    if not ids:
        raise InputError(f"{place} has no rows: get the file again, or remove it.")
    return np.concatenate(ids), np.concatenate(blocks)


def parse_embeddings(block, n_lines, width):
    """float64 (lines, width): the id and the numbers of each line; None if a line has anything else.

    pandas reads them as one column, which takes half the time of np.fromstring, and lets other threads run.
    """
    import pandas as pd

    text = io.BytesIO(block.translate(bytes.maketrans(b", ", b"\n\n")))
    try:
        numbers = pd.read_csv(text, header=None, names=["number"], dtype=np.float64, na_filter=False, quoting=csv.QUOTE_NONE)
        numbers = numbers["number"].to_numpy().reshape(n_lines, width)
    except ValueError:  # a word that is no number, or too many or too few of them
        return None
    ids = numbers[:, 0]
    return numbers if np.isfinite(numbers).all() and ((ids == np.floor(ids)) & (ids >= 0) & (ids <= LARGEST_ID)).all() else None


def parse_list(strings, line, column):
    """Items of `81;269;159` or, in a machine list, of `269 0.85;81 0.41`, one string a feed.

    Returns values, int64 (items,), and lengths, int64 (feeds,). Items of a weight under MIN_WEIGHT are left out.
    line(row): names the place of a string in an error.
    """
    values, owners = [], []
    for owner, string in enumerate(bar(f"parsing {column}", strings)):
        for item in string.split(";") if string else ():
            word, _, weight = item.strip().partition(" ")
            try:
                if not word or (weight and float(weight) < MIN_WEIGHT):
                    continue
                values.append(int(word))
                if not (word.isdecimal() and values[-1] <= LARGEST_ID):
                    raise ValueError
            except ValueError:
                raise InputError(
                    f"{line(owner)}, column {column}: {reprlib.repr(item)} is no id with or without a weight: mend the line."
                ) from None
            owners.append(owner)
    return np.array(values, np.int64), np.bincount(np.array(owners, np.int64), minlength=len(strings))


# ---- encoding ------------------------------------------------------------------------------------------------------------


def vocabulary(ids, counts, min_count):
    """The ids, sorted, that occur in at least `min_count` training rows; `counts` weighs each of `ids` in rows."""
    known, place = np.unique(ids, return_inverse=True)
    total = np.bincount(place, weights=counts, minlength=len(known))
    return known[(known != MISSING) & (total >= max(min_count, 1))]


def distinct(ids):
    """The ids that occur, int64, sorted; flags are much faster than a sort where they are fewer than the ids."""
    if not len(ids) or ids.max() >= len(ids):
        return np.unique(ids).astype(np.int64)
    occurs = np.zeros(ids.max() + 1, bool)
    occurs[ids] = True
    return np.flatnonzero(occurs)


def rows_of(ids, keys):
    """Table rows of raw ids, int32: 1 + their place in the sorted `keys`, or 0, the unknown one's, where those lack them."""
    if not len(keys):
        return np.zeros(len(ids), np.int32)
    largest = int(keys[-1])
    if largest < len(ids):  # a table of all ids is much faster than a search
        rows = np.zeros(largest + 2, np.int32)
        rows[keys] = np.arange(1, len(keys) + 1)
        return rows[np.minimum(ids, largest + 1)]  # the last is 0, and MISSING, -1, is the last
    place = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return np.where(keys[place] == ids, 1 + place, 0).astype(np.int32)


def encode(ids, vocabulary):
    """Codes int32: PADDING where an id is MISSING, OTHER where the vocabulary lacks it, else FIRST + its place there."""
    return np.where(ids == MISSING, PADDING, OTHER + rows_of(ids, vocabulary)).astype(np.int32)  # OTHER is the one before FIRST


def decode(codes, vocabulary):
    """The ids of codes; MISSING for PADDING and OTHER."""
    return np.concatenate([[MISSING, MISSING], vocabulary])[codes]


def smoothed_rates(positives, rows):
    """Everyone's rate p, (actions,), and each user's, shrunk towards it as by m = SMOOTHING rows more: float32 (users, actions).

    positives: (users, actions). rows: (users,).
    """
    p = (positives.sum(axis=0, dtype=np.float64) + 0.5) / (rows.sum() + 1)
    return p, ((positives + SMOOTHING * p) / (rows[:, None] + SMOOTHING)).astype(np.float32)


def log_lifts(positives, expected, m):
    """log((positives + m) / (expected + m)): 0 is what was to be expected, and what little evidence is drawn to."""
    return np.log((positives + m) / (expected + m))


def watch_times(day, play, feed, seconds, seen):
    """How much longer each row's video played than those of about its length had by that day: float32 (rows,), in deviations.

    Of log(1 + seconds played), less the mean of the rows up to that day whose video is in the same of LENGTHS groups by length,
    over the deviation of what is left up to that day.
    day, play in ms, feed: (rows,). seconds: (feeds,), a video's length on any scale. seen: bool (feeds,), those that make the groups.
    """
    borders = np.unique(np.quantile(seconds[seen], np.linspace(0, 1, LENGTHS + 1)[1:-1]))
    group = np.searchsorted(borders, seconds).astype(np.uint8)[feed]
    watched, total, n, squares = np.zeros(len(day), np.float32), np.zeros(LENGTHS), np.zeros(LENGTHS), 0.0
    for today in range(1, int(day.max()) + 1):
        new = np.flatnonzero(day == today)
        of, left = group[new], np.log1p(np.float32(0.001) * play[new]).astype(np.float32)
        total += np.bincount(of, left, minlength=LENGTHS)
        n += np.bincount(of, minlength=LENGTHS)
        left -= (total / np.maximum(n, 1)).astype(np.float32)[of]
        squares += np.square(left, dtype=np.float64).sum()
        watched[new] = left / max(np.sqrt(squares / max(n.sum(), 1)), 1e-6)
    return watched


def past_statistics(day, user, feed, author, labels, watched, n_users):
    """The history statistics of users, feeds and authors: three float16 (days + 1, entities, actions + 2), indexed by day.

    What stands under a day looks at strictly earlier days: for each action the log lift of the positives over those to
    be expected, then log(1 + rows) / 10. A user is held against everyone's rate p, where it makes the log lift of the
    rate smoothed by m = SMOOTHING rows, log((positives + m p) / ((rows + m) p)). A feed or an author is held against
    the sum of its viewers' smoothed rates, since who happened to see a feed says more of its rate than the feed does.
    Last stands the mean of what was watched, shrunk to 0 as by m rows more, for a feed and an author less the viewers' own shrunk means.
    day, user, feed, labels {action: }, watched: (rows,). author: (feeds,), the author of each feed, a small integer.
    """
    from scipy.sparse import csr_array

    n_days, n_feeds, n_authors = int(day.max()) + 1, len(author), int(author.max()) + 1
    users, feeds, authors = (np.zeros((n_days + 1, n, len(labels) + 2), np.float16) for n in (n_users, n_feeds, n_authors))
    of_author = csr_array((np.ones(n_feeds, np.float32), (author, np.arange(n_feeds))))  # (authors, feeds)
    views, user_rows, feed_rows = [], np.zeros(n_users), np.zeros(n_feeds)  # views: each day's, (feeds, users)
    user_watched, feed_watched = np.zeros(n_users), np.zeros(n_feeds)
    user_positives, feed_positives = (np.zeros((n, len(labels)), np.float32) for n in (n_users, n_feeds))
    positives = [np.flatnonzero(label) for label in labels.values()]
    for today in bar("history by day", range(1, n_days + 1)):
        new = np.flatnonzero(day == today - 1)
        views.append(csr_array((np.ones(len(new), np.float32), (feed[new], user[new])), shape=(n_feeds, n_users)))
        user_rows += np.bincount(user[new], minlength=n_users)
        feed_rows += np.bincount(feed[new], minlength=n_feeds)
        user_watched += np.bincount(user[new], watched[new], minlength=n_users)
        feed_watched += np.bincount(feed[new], watched[new], minlength=n_feeds)
        for column, rows in enumerate(positives):
            hits = rows[day[rows] == today - 1]
            user_positives[:, column] += np.bincount(user[hits], minlength=n_users)
            feed_positives[:, column] += np.bincount(feed[hits], minlength=n_feeds)
        p, rate = smoothed_rates(user_positives, user_rows)
        mean = user_watched / (user_rows + SMOOTHING)
        known = np.column_stack([rate, mean.astype(np.float32)])
        expected = sum(seen @ known for seen in views)  # (feeds, actions + 1)
        surplus = feed_watched - expected[:, -1]
        users[today, :, :-2] = np.log(rate / p)
        feeds[today, :, :-2] = log_lifts(feed_positives, expected[:, :-1], SHRINKAGE)
        authors[today, :, :-2] = log_lifts(of_author @ feed_positives, of_author @ expected[:, :-1], SHRINKAGE)
        sums = (users, user_rows, user_watched), (feeds, feed_rows, surplus), (authors, of_author @ feed_rows, of_author @ surplus)
        for table, rows, longer in sums:
            table[today, :, -2] = np.log1p(rows) / 10
            table[today, :, -1] = longer / (rows + SMOOTHING)
    return users, feeds, authors


def past_tastes(day, user, feed, labels, watched, vectors, seen, n_users):
    """What each user likes and watches more than others do, in the feeds' space: float16 (days + 1, users, actions + 2, width).

    Under a day stands for each action the sum over the user's rows of strictly earlier days of (label - the user's smoothed
    rate) times the feed's vector, over the root of the positives to be expected: the score statistic of a logistic regression
    of the label on the vector. Scaled so that without any taste its dot product with the vector of a feed has about unit
    variance. Then comes the same of what was watched, (watched - the user's shrunk mean) over the root of rows + m, m = SMOOTHING.
    Last stands the mean vector of what the user watched, less everyone's, shrunk as by m rows more.
    day, user, feed, labels {action: }, watched: (rows,). vectors: (feeds, width). seen: bool (feeds,), the feeds seen in training.
    """
    from scipy.sparse import coo_array

    n_days, width = int(day.max()) + 1, vectors.shape[1]
    known = vectors[seen]  # their mean is zero, as PCA leaves it
    scale = max(np.linalg.norm(known.T @ known / max(len(known), 1)), 1e-6)  # deviation of the dot product of two of them
    tastes = np.zeros((n_days + 1, n_users, len(labels) + 2, width), np.float16)
    rows, longer, positives = np.zeros(n_users, np.float32), np.zeros(n_users, np.float32), np.zeros((n_users, len(labels)), np.float32)
    viewed, acted = np.zeros((n_users, width), np.float32), np.zeros((n_users, len(labels) + 1, width), np.float32)
    of_label = [np.flatnonzero(label) for label in labels.values()]

    def add(total, of, times=np.float32(1)):  # to the total of each user the vectors of the feeds in these rows
        who = distinct(user[of])
        seen_by = np.broadcast_to(times, len(of)), (rows_of(user[of], who) - 1, feed[of])
        total[who] += coo_array(seen_by, shape=(len(who), len(vectors))) @ vectors

    for today in bar("tastes by day", range(1, n_days + 1)):
        new = np.flatnonzero(day == today - 1)
        rows += np.bincount(user[new], minlength=n_users)
        longer += np.bincount(user[new], watched[new], minlength=n_users)
        add(viewed, new)
        add(acted[:, -1], new, watched[new])
        for column, of in enumerate(of_label):
            hits = of[day[of] == today - 1]
            positives[:, column] += np.bincount(user[hits], minlength=n_users)
            add(acted[:, column], hits)
        rates = smoothed_rates(positives, rows)[1]
        means = np.column_stack([rates, longer / (rows + SMOOTHING)])[:, :, None]  # (users, actions + 1, 1)
        spreads = np.sqrt(np.column_stack([rates, np.ones(n_users, np.float32)]) * (rows[:, None] + SMOOTHING))[:, :, None] * scale
        everyone = viewed.sum(axis=0) / max(rows.sum(), 1)
        for start in range(0, n_users, 1024):  # users whose numbers stay in the processor's cache
            some = slice(start, start + 1024)
            tastes[today, some, :-1] = (acted[some] - means[some] * viewed[some, None]) / spreads[some]
            tastes[today, some, -1] = (viewed[some] - rows[some, None] * everyone) / (rows[some, None] + SMOOTHING)
    return tastes


def standardize(values, seen):
    """(values - mean) / deviation over the rows `seen` in training; NaN becomes the mean, 0. float32."""
    known = values[seen & np.isfinite(values)]
    mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    return np.nan_to_num((values - mean) / (deviation or 1.0), nan=0.0).astype(np.float32)


def reduce_embeddings(embeddings, rows, seen):
    """float32 (table rows, EMBEDDING_WIDTH): PCA, the first component scaled to unit variance, fitted on the feeds `seen`.

    embeddings: (feeds, 512). rows: their rows in the table, 0 for those to leave out. seen: bool (table rows,). Rows without
    an embedding get zeros.
    """
    from sklearn.decomposition import PCA

    fitted_on = embeddings[seen[rows]]
    width = min(EMBEDDING_WIDTH, *fitted_on.shape) if len(fitted_on) > 1 else 0  # one feed differs from none
    reduced = np.zeros((len(seen), width), np.float32)
    if width:
        pca = PCA(width, svd_solver="covariance_eigh").fit(fitted_on)
        reduced[rows] = pca.transform(embeddings) / np.sqrt(max(pca.explained_variance_[0], 1e-12))
        reduced[0] = 0
    return reduced


def cooccurrence(user, feed, n_users, n_feeds):
    """Vectors of users and of feeds by who saw what, float32 (users, width) and (feeds, width), in deviations, cut off at 3.

    The singular vectors of the views, each view divided by the roots of its user's and of its feed's number of them, and the vectors
    of a user and of a feed divided by that root again: the axes of correspondence analysis. The first, which is constant, is left out.
    A row that was not seen has zeros. user, feed: (rows,) of training.
    """
    from scipy.sparse import coo_array
    from sklearn.utils.extmath import randomized_svd

    views = coo_array((np.ones(len(user), np.float32), (user, feed)), (n_users, n_feeds)).tocsr()
    units = [1 / np.sqrt(np.maximum(views.sum(axis=axis), 1)) for axis in (1, 0)]
    n = min(EMBEDDING_WIDTH + 1, n_users, n_feeds)
    of_users, _, of_feeds = randomized_svd(views.multiply(units[0][:, None]).multiply(units[1]).tocsr(), n, random_state=0)
    found = []
    for vectors, unit, rows in ((of_users, units[0], user), (of_feeds.T, units[1], feed)):
        seen, scaled = distinct(rows), np.zeros((len(vectors), n - 1), np.float32)
        vectors = vectors[seen, 1:] * unit[seen, None]
        scaled[seen] = (vectors / (vectors.std(axis=0) + 1e-12)).clip(-3, 3)
        found.append(scaled)
    return found


# ---- from CSVs to tables ---------------------------------------------------------------------------------------------------


def read_feeds(source):
    """{column: array} of feed_info.csv, ids checked, each feed once."""
    ids, lists = ("feedid", *FEED_IDS), (*TAG_LISTS, *KEYWORD_LISTS)
    within = {column: (MISSING if column in FEED_IDS else 0, LARGEST_ID) for column in ids}
    columns = (*ids, *lists, "videoplayseconds")
    info = read_columns(source, "feed_info.csv", columns, text=lists, real=("videoplayseconds",), within=within)
    line = partial(source.line, "feed_info.csv")
    _, first = np.unique(info["feedid"], return_index=True)
    if len(first) < len(info["feedid"]):
        again = np.setdiff1d(np.arange(len(info["feedid"])), first)[0]
        raise InputError(f"{line(again)}: feed {info['feedid'][again]} is listed twice: keep one of the lines.")
    for column in lists:
        info[column] = parse_list(info[column], line, column)
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
    vectors = "feed_embeddings.csv"
    with ThreadPoolExecutor(1) as aside, source.open(vectors) if source.has(vectors) else nullcontext() as file:  # closed, it ends the thread
        embeddings = file and aside.submit(read_embeddings, file, source.path / vectors)
        columns = [column for column in USER_ACTION if column != "stay"]
        raw = {"place": source.path, "note": source.note(), "log": read_log(source, "user_action.csv", columns)}
        days = raw["log"]["date_"]
        report("user_action.csv", f"{len(days):,} rows, days {days.min()}..{days.max()}")
        raw["tests"] = {name: read_log(source, f"{name}.csv", TEST) for name in TESTS if source.has(f"{name}.csv")}
        for name, rows in raw["tests"].items():
            report(f"{name}.csv", f"{len(rows['userid']):,} rows")
        raw["feeds"] = read_feeds(source)
        report("feed_info.csv", f"{len(raw['feeds']['feedid']):,} feeds")
        if embeddings:
            with bar(f"reading {vectors}", size=source.size(vectors)) as done:
                while not wait([embeddings], timeout=0.1).done:
                    done.update(file.tell() - done.n)
            raw["embeddings"] = embeddings.result()
            report(vectors, "{:,} feeds, {} numbers each".format(*raw["embeddings"][1].shape))
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
    train, valid, n_late = day < valid_day, day == valid_day, (day > valid_day).sum()
    if not (train.any() and valid.any() and actions):
        raise InputError(
            f"{raw['place'] / 'user_action.csv'}: validating day {valid_day} needs rows on that day and on one before, and a column of "
            f"{', '.join(ACTIONS)}: choose another --valid-day or get the file again."
        )

    done = bar("encoding", total=3)
    users = np.unique(np.concatenate([distinct(rows["userid"]) for rows in (log, *tests.values())]))
    feeds = np.unique(np.concatenate([distinct(rows["feedid"]) for rows in (log, *tests.values(), info)]))
    devices = distinct(log["device"])
    lacking = (rows_of(log["feedid"], np.sort(info["feedid"])) == 0).sum()
    user, feed, device = (rows_of(log.pop(name), keys) for name, keys in (("userid", users), ("feedid", feeds), ("device", devices)))
    user_rows, feed_rows, device_rows = (
        np.bincount(rows[train], minlength=len(keys) + 1) for rows, keys in ((user, users), (feed, feeds), (device, devices))
    )

    done.update()
    user_ids = np.concatenate([[MISSING], users])
    vocabularies = {"userid": vocabulary(user_ids, user_rows, min_count), "device": vocabulary(devices, device_rows[1:], min_count)}
    user_table = {"key": user_ids, "userid": encode(user_ids, vocabularies["userid"])}
    user_table["userid"][0] = OTHER
    feed_table, feed_vocabularies, author = encode_feeds(info, feeds, feed_rows, min_count)
    vocabularies |= feed_vocabularies
    done.update()
    if "embeddings" in raw:
        ids, embeddings = raw["embeddings"]
        feed_table["feed_embedding"] = reduce_embeddings(embeddings, rows_of(ids, feeds), feed_rows > 0)
    done.close()
    report("encoding", f"{len(users):,} users, {len(feeds):,} feeds; ids of fewer than {min_count} training rows share one row")
    if "embeddings" not in raw:
        sizes = len(users) + 1, len(feeds) + 1
        user_table["user_cooccurrence"], feed_table["feed_cooccurrence"] = cooccurrence(user[train], feed[train], *sizes)
        report("co-occurrence", "of users and feeds by who saw what in training, for want of feed embeddings")

    authors, author = np.unique(author, return_inverse=True)
    device = encode(devices, vocabularies["device"])[device - 1]
    columns = {"user": user, "feed": feed, "day": day, "device": device, **{name: log[name] for name in actions}}
    past = columns | ({"play": log.pop("play")} if "play" in log else {})
    past = {name: column[day <= valid_day] for name, column in past.items()} if n_late else past
    rows, labels = (past["day"], past["user"], past["feed"]), {name: past[name] for name in actions}
    has_play, watched = "play" in past, np.zeros(len(past["day"]), np.float32)
    if has_play:
        watched = watch_times(past["day"], past.pop("play"), past["feed"], feed_table["videoplayseconds"][:, 0], feed_rows > 0)
    of_user, of_feed, of_author = past_statistics(*rows, author, labels, watched, len(users) + 1)
    of_author[:, authors == MISSING] = 0  # feeds without an author have nothing in common
    for table, name, statistics in ((user_table, "user", of_user), (feed_table, "feed", of_feed), (feed_table, "author", of_author[:, author])):
        table[f"{name}_history"], watch_time = np.split(statistics, [-1], axis=2)
        if has_play:
            table[f"{name}_watch_time"] = watch_time
    report("history", f"rates, counts{', watch times' * has_play} of users, feeds and authors over strictly earlier days")
    if "feed_embedding" in feed_table:
        tastes = past_tastes(*rows, labels, watched, feed_table["feed_embedding"], feed_rows > 0, len(users) + 1)
        user_table["user_taste"] = tastes if has_play else np.delete(tastes, -2, axis=2)
        report("tastes", "of users for feed embeddings over strictly earlier days")
    del past, rows, labels, watched

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

    report("training rows", f"{train.sum():,}, days {day.min()}..{valid_day - 1}")
    report("validation rows", f"{valid.sum():,}, day {valid_day}; rows of later days left out: {n_late:,}")
    report("unknown feeds", f"{lacking:,} rows of feeds that feed_info.csv lacks, kept with their features unknown")
    report("vocabularies", ", ".join(f"{name} {len(ids):,}" for name, ids in vocabularies.items() if name != "stamp"))
    report("positive rates", ", ".join(f"{name} {files['train.pkl'][name].mean():.3%}" for name in actions))
    return files


def describe(files, note, actions, valid_day):
    """The content of meta.pkl; every file of `files` is stamped with the fingerprint of them all."""
    id_tables = {"userid": "user", "device": None, **dict.fromkeys(("feedid", *FEED_IDS), "feed")}
    features = {name: {"kind": "id", "table": table, "vocabulary": name} for name, table in id_tables.items()}
    for vocabulary_name, names in LISTS.items():
        features |= {name: {"kind": "list", "table": "feed", "vocabulary": vocabulary_name} for name in names}
    of_feed = ("videoplayseconds", "feed_embedding", "feed_cooccurrence")
    for name, table in (*((name, "feed") for name in of_feed), ("user_cooccurrence", "user")):
        if name in files[f"{table}.pkl"]:
            features[name] = {"kind": "dense", "table": table, "daily": False}
    watch_time = ["watch_time"] if "user_watch_time" in files["user.pkl"] else []
    for name, table in (("user", "user"), ("feed", "feed"), ("author", "feed")):
        features[f"{name}_history"] = {"kind": "dense", "table": table, "daily": True, "columns": [*actions, "rows"]}
        if watch_time:
            features[f"{name}_watch_time"] = {"kind": "dense", "table": table, "daily": True, "columns": watch_time}
    if "user_taste" in files["user.pkl"]:
        features["user_taste"] = {"kind": "dot", "table": "user", "daily": True, "with": "feed_embedding", "columns": [*actions, *watch_time, "views"]}
    sizes = {name: FIRST + len(ids) for name, ids in files["vocabularies.pkl"].items()}
    stamp = fingerprint(files)
    for content in files.values():
        content["stamp"] = stamp
    return {
        "version": VERSION, "stamp": stamp, "name": note["name"], "synthetic": bool(note.get("synthetic")),
        "tasks": {name: weight for name, weight in TASK_WEIGHTS.items() if name in actions},
        "more_tasks": {name: weight for name, weight in FINAL_ROUND_WEIGHTS.items() if name in actions and name not in TASK_WEIGHTS},
        "raw": {"user": "userid", "feed": "feedid", "device": "device"}, "group": "user", "tables": ["user", "feed"],
        "features": features, "valid_day": valid_day, "vocabularies": sizes,
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


def run(source, out, valid_day, min_count):
    """Encode the CSVs at `source` into the pickles of folder `out`, a printed line a stage. Raises InputError and OSError."""
    started = time.perf_counter()
    source = find_source(source)
    report = Report()
    note = source.note()
    synthetic = " -- SYNTHETIC: made up, results on it say nothing of people" if note.get("synthetic") else ""
    print(f"{source.path}: {note['name']}{synthetic}")
    memory.require(MEMORY + MEMORY_A_BYTE * sum(map(source.size, filter(source.has, USED))), RESERVED, f"encoding {source.path}")
    files = encode_source(read_source(source, report), valid_day, min_count, report)
    write_all(out, files)
    report("written", f"{', '.join(files)} to {out}")
    print(f"done in {time.perf_counter() - started:.1f} s")


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder or zip of the contest's CSVs (default: data)")
    parser.add_argument("--out", default="user_data", help="folder for the pickles (default: user_data)")
    parser.add_argument("--valid-day", type=int, help="day that validates; days before it train (default: the last labelled day)")
    parser.add_argument("--min-count", type=int, default=5, help="ids of fewer training rows share one row (default: 5)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    with redirect_stdout(None if args.quiet else sys.stdout):
        return guarded("get_data.py", lambda: run(args.source, args.out, args.valid_day, args.min_count), args.out)


if __name__ == "__main__":
    sys.exit(main())
