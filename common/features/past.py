"""What was logged up to the validation day, and sums of it over strictly earlier days."""

from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cached_property
from threading import RLock

from common.csvs import MISSING
from common.features import Feature
from common.features.ids import rows_of

import numpy as np

SMOOTHING = 20  # m: a past rate or mean is shrunk as if m more rows had been seen
N_LENGTHS = 30  # groups of videos by length, about as many videos in each
LONGEST_SECONDS = 3600  # a longer video was given in milliseconds by mistake


class shared_property(cached_property):
    """A cached property that is made once, though two groups of features ask for it at a time."""

    def __init__(self, make):
        super().__init__(make)
        self.lock = RLock()

    def __get__(self, past, owner=None):
        with self.lock:
            return super().__get__(past, owner)


@dataclass
class Past:
    """The log up to the validation day, one row an impression, and what describes its feeds.

    user and feed are rows of their tables, whose row 0 is the unknown one; ids are raw.
    """

    day: np.ndarray  # (rows,)
    user: np.ndarray  # (rows,)
    feed: np.ndarray  # (rows,)
    device: np.ndarray  # (rows,), raw
    labels: dict  # {action: 0/1 (rows,)}
    play: np.ndarray | None  # (rows,), ms; None where the log has none
    train: np.ndarray  # bool (rows,)
    user_ids: np.ndarray  # raw ids of the users' table but for row 0
    feed_ids: np.ndarray  # raw ids of the feeds' table but for row 0
    info: dict  # columns of feed_info.csv; a list column is (values, lengths)
    embeddings: tuple | None  # (feed ids, vectors (n, 512)) of feed_embeddings.csv
    min_count: int  # training rows that an id needs for a code of its own
    # "daily", or "exposures": the rows of a day, but for their labels, are known on it
    regime: str = "daily"
    later: tuple | None = None  # (user, feed) of the rows of the day after, as the tests give them
    is_wanted: bool = True  # False where the features are no longer waited for

    def __post_init__(self):
        self.n_days = int(self.day.max()) + 1
        self.n_users = len(self.user_ids) + 1
        self.n_feeds = len(self.feed_ids) + 1
        authors = self.of_feeds(self.info["authorid"], MISSING)
        # raw ids, MISSING among them, sorted, and the place of each feed's author among them
        self.authors, self.author = np.unique(authors, return_inverse=True)

    @shared_property
    def info_rows(self):
        """Rows of the feeds' table in the order of feed_info.csv."""
        return rows_of(self.info["feedid"], self.feed_ids)

    def of_feeds(self, column, empty):
        """A column of feed_info.csv in the order of the feeds' table, `empty` where it has none."""
        values = np.full(self.n_feeds, empty)
        values[self.info_rows] = column
        return values

    @shared_property
    def user_rows(self):
        """Training rows of each user."""
        return np.bincount(self.user[self.train], minlength=self.n_users)

    @shared_property
    def feed_rows(self):
        """Training rows of each feed."""
        return np.bincount(self.feed[self.train], minlength=self.n_feeds)

    @shared_property
    def author_sums(self):
        """Sparse (authors, feeds): `author_sums @ values` sums over an author's feeds."""
        from scipy.sparse import csr_array

        ones = np.ones(self.n_feeds, np.float32)
        return csr_array((ones, (self.author, np.arange(self.n_feeds))))

    def daily_tables(self, width):
        """{entity: zeros, float16 (days + 1, its rows, width)} of users, feeds and authors."""
        sizes = {"user": self.n_users, "feed": self.n_feeds, "author": len(self.authors)}
        return {
            name: np.zeros((self.n_days + 1, n, width), np.float16) for name, n in sizes.items()
        }

    def daily_features(self, group, tables, columns):
        """{ENTITY_GROUP: Feature} of such tables; a feed has its author's, zeros without one."""
        tables["author"][:, self.authors == MISSING] = 0
        values = tables | {"author": tables["author"][:, self.author]}
        about = {"kind": "dense", "daily": True, "columns": columns}
        of = {"user": "user", "feed": "feed", "author": "feed"}  # the table that has it
        return {
            f"{name}_{group}": Feature(table=of[name], values=table, **about)
            for name, table in values.items()
        }

    @shared_property
    def lengths(self):
        """log(1 + seconds) of each feed's video, in standard deviations, 0 if unknown: (feeds,)."""
        seconds = self.of_feeds(self.info["videoplayseconds"], np.nan)
        seconds = np.where(seconds > LONGEST_SECONDS, seconds / 1000, seconds)
        log_seconds = np.log1p(np.where(seconds > 0, seconds, np.nan))
        return standardize(log_seconds, self.feed_rows > 0)

    @shared_property
    def watched(self):
        """The watch time of each row, float32 (rows,), as `watch_times` says."""
        seen = self.feed_rows > 0
        return watch_times(self.day, self.play, self.feed, self.lengths, seen)

    @shared_property
    def rows_by_day(self):
        """For each day its rows."""
        return [np.flatnonzero(self.day == day) for day in range(self.n_days)]

    @property
    def known_views(self):
        """(user, feed) of the rows whose views are known.

        Those of training; in the regime `exposures` those of the validation day too, and where no
        day validates the tests'.
        """
        if self.regime != "exposures":
            return self.user[self.train], self.feed[self.train]
        if not self.train.all() or not self.later:
            return self.user, self.feed
        return tuple(map(np.concatenate, zip((self.user, self.feed), self.later, strict=True)))

    def shown_on(self, day):
        """(user, feed) of a day's rows; of the day after the log the tests', or the last day's."""
        if day == self.n_days and self.later:
            return self.later
        rows = self.rows_by_day[min(day, self.n_days - 1)]
        return self.user[rows], self.feed[rows]

    @shared_property
    def positives_by_day(self):
        """For each day and action the rows with that action: few, so that sums are quick."""
        positives = [np.flatnonzero(label) for label in self.labels.values()]
        return [[rows[self.day[rows] == day] for rows in positives] for day in range(self.n_days)]

    @shared_property
    def views_by_day(self):
        """For each day how often who saw what: sparse (feeds, users)."""
        from scipy.sparse import csr_array

        shape = (self.n_feeds, self.n_users)
        views = []
        for rows in self.rows_by_day:
            ones = np.ones(len(rows), np.float32)
            views.append(csr_array((ones, (self.feed[rows], self.user[rows])), shape=shape))
        return views

    def sum_over_viewers(self, today, values):
        """Sum of the users' values (users, n) over each feed's views before today: (feeds, n)."""
        return sum(views @ values for views in self.views_by_day[:today])


class RunningSums:
    """Sums over the rows of each user or feed, up to the day that was added last."""

    def __init__(self, past, entity):
        """entity: "user" or "feed"."""
        self.past = past
        self.row = getattr(past, entity)
        self.n = past.n_users if entity == "user" else past.n_feeds
        self.rows = np.zeros(self.n)
        self.positives = np.zeros((self.n, len(past.labels)), np.float32)

    def add(self, day):
        """Take in the rows of a day. Raises CancelledError where nobody waits for it any more."""
        if not self.past.is_wanted:
            raise CancelledError
        self.rows += np.bincount(self.row[self.past.rows_by_day[day]], minlength=self.n)
        for action, rows in enumerate(self.past.positives_by_day[day]):
            self.positives[:, action] += np.bincount(self.row[rows], minlength=self.n)

    def sum_of(self, day, values):
        """Sum of values (rows of the log,) over the rows of a day: (n,)."""
        rows = self.past.rows_by_day[day]
        return np.bincount(self.row[rows], values[rows], minlength=self.n)


def smoothed_rates(positives, rows):
    """Everyone's rate p (actions,), and each user's, float32 (users, actions).

    A user's is shrunk towards p as by m = SMOOTHING rows: (positives + m p) / (rows + m).
    """
    p = (positives.sum(axis=0, dtype=np.float64) + 0.5) / (rows.sum() + 1)
    return p, ((positives + SMOOTHING * p) / (rows[:, None] + SMOOTHING)).astype(np.float32)


def standardize(values, seen):
    """(values - mean) / deviation over the rows `seen` in training; NaN becomes 0. float32."""
    known = values[seen & np.isfinite(values)]
    mean = known.mean() if len(known) else 0.0
    deviation = known.std() if len(known) else 1.0
    return np.nan_to_num((values - mean) / (deviation or 1.0), nan=0.0).astype(np.float32)


def watch_times(day, play, feed, seconds, seen):
    """log(1 + seconds played) of each row, less the mean of rows of about that length by that day.

    In standard deviations by that day, float32 (rows,). day, play in ms, feed: (rows,). seconds:
    (feeds,), lengths on any scale. seen: bool (feeds,), those that make the groups by length.
    """
    borders = np.unique(np.quantile(seconds[seen], np.linspace(0, 1, N_LENGTHS + 1)[1:-1]))
    group = np.searchsorted(borders, seconds).astype(np.uint8)[feed]
    watched = np.zeros(len(day), np.float32)
    total = np.zeros(N_LENGTHS)
    n = np.zeros(N_LENGTHS)
    squares = 0.0
    for today in range(1, int(day.max()) + 1):
        new = np.flatnonzero(day == today)
        left = np.log1p(np.float32(0.001) * play[new]).astype(np.float32)
        total += np.bincount(group[new], left, minlength=N_LENGTHS)
        n += np.bincount(group[new], minlength=N_LENGTHS)
        left -= (total / np.maximum(n, 1)).astype(np.float32)[group[new]]
        squares += np.square(left, dtype=np.float64).sum()
        watched[new] = left / max(np.sqrt(squares / max(n.sum(), 1)), 1e-6)
    return watched
