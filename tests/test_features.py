"""The groups of features against slow, obvious versions on small data, and how a group is added."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import get_data
from common import features
from common.contract import load
from common.csvs import LARGEST_ID, MISSING
from common.embedding import LookUp
from common.features import Feature, cooccurrence, embedding, exposures, history, taste, watch_time
from common.features.ids import distinct, encode, rows_of, vocabulary
from common.features.past import Past, RunningSums, shared_property, watch_times
from common.pickles import OTHER, PADDING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

M = 20  # rows by which rates and means are smoothed, as user_data/README.md says
DAYS = range(7)  # day 3 has no rows, day 5 validates, and what is known before day 6 is the test's
AUTHORS = {1: 7, 2: 8, 3: 8, 4: 9, 7: 7}  # of the feeds' rows; 0, 5 and 6 have none
ACTIONS = ("like", "forward")


def past_of(n_rows=150, **changes):
    """A Past of five users and seven feeds; the last of both come on the last day alone."""
    rng = np.random.default_rng(0)
    day = rng.choice([1, 2, 4, 5], n_rows)
    train = day < 5
    info = {  # feed 105 is not described, 106 without author, 107 as long as 101
        "feedid": np.array([107, 103, 101, 106, 102, 104]),
        "authorid": np.array([7, 8, 7, MISSING, 8, 9]),
        "videoplayseconds": np.array([20_000.0, 60, 20, np.nan, 300, 7]),
    }
    columns = {
        "day": day,
        "user": np.where(train, rng.integers(1, 5, n_rows), rng.integers(1, 6, n_rows)),
        "feed": np.where(train, rng.integers(1, 7, n_rows), rng.integers(1, 8, n_rows)),
        "labels": {name: (rng.random(n_rows) < 0.3).astype(np.uint8) for name in ACTIONS},
        "play": rng.integers(0, 60_000, n_rows),
        "train": train,
        "user_ids": np.arange(11, 16),
        "feed_ids": np.arange(101, 108),
    }
    more = {"device": None, "embeddings": None, "info": info, "min_count": 1}
    return Past(**columns | more | changes)


def log_of(past):
    """The log as a DataFrame, the authors and the slowly computed watch times with it."""
    log = pd.DataFrame({"day": past.day, "user": past.user, "feed": past.feed, **past.labels})
    log["author"] = log.feed.map(AUTHORS)
    if past.play is not None:
        log["watched"] = slow_watch_times(log, np.log1p(past.play / 1000), past.lengths)
    return log


def slow_watch_times(log, played, lengths):
    """The watch time of each row, where only videos of exactly one length make a group."""
    length = lengths[log.feed]
    surplus = pd.Series(0.0, log.index)
    watched = surplus.copy()
    for day in np.unique(log.day):
        for row in np.flatnonzero(log.day == day):
            alike = (log.day <= day) & (length == length[row])
            surplus[row] = played[row] - played[alike].mean()
        deviation = np.sqrt(np.square(surplus[log.day <= day]).mean())
        watched[log.day == day] = surplus / deviation
    return watched


def rows_of_each(log):
    """Rows of each user, of each feed, and of each feed's author: {name: [DataFrame]}."""
    return {
        "user": [log[log.user == user] for user in range(6)],
        "feed": [log[log.feed == feed] for feed in range(8)],
        "author": [log[log.author == AUTHORS.get(feed)] for feed in range(8)],
    }


def rates_of(log, action):
    """Everyone's rate of an action, and the smoothed rates of the users."""
    p = (log[action].sum() + 0.5) / (len(log) + 1)
    users = rows_of_each(log)["user"]
    return p, pd.Series([(own[action].sum() + M * p) / (len(own) + M) for own in users])


def assert_close(found, expected):
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, atol=2e-3)  # of float16


def test_histories_equal_loops_over_strictly_earlier_days():
    past = past_of()
    log = log_of(past)
    made = history.features(past, {})
    for day in DAYS:
        before = log[log.day < day]
        for name, groups in rows_of_each(before).items():
            feature = made[f"{name}_history"]
            assert len(feature.values) == len(DAYS) and feature.columns == (*ACTIONS, "rows")
            for column, action in enumerate(ACTIONS):
                p, rates = rates_of(before, action)
                viewers = [rows.user.map(rates).sum() for rows in groups]
                positives = [rows[action].sum() for rows in groups]
                lifts = np.log(np.add(positives, 2) / np.add(viewers, 2))
                expected = np.log(rates / p) if name == "user" else lifts
                assert_close(feature.values[day, :, column], expected)
            n_rows = [len(rows) for rows in groups]
            assert_close(feature.values[day, :, -1], np.log1p(n_rows) / 10)


def test_watch_times_equal_loops_over_strictly_earlier_days():
    past = past_of()
    log = log_of(past)
    assert_close(past.watched, log.watched)
    made = watch_time.features(past, {})
    for day in DAYS:
        groups = rows_of_each(log[log.day < day])
        own = pd.Series([rows.watched.sum() / (len(rows) + M) for rows in groups["user"]])
        assert_close(made["user_watch_time"].values[day, :, 0], own)
        for name in ("feed", "author"):
            surplus = [(rows.watched - rows.user.map(own)).sum() for rows in groups[name]]
            expected = np.divide(surplus, [len(rows) + M for rows in groups[name]])
            assert_close(made[f"{name}_watch_time"].values[day, :, 0], expected)
    assert watch_time.features(past_of(play=None), {}) == {}


def test_watch_times_do_not_depend_on_the_length_of_the_video():
    rng = np.random.default_rng(0)
    seconds = rng.uniform(5, 60, 400)
    eagerness = rng.normal(size=50)
    day, user, feed = rng.integers([[1], [0], [0]], [[5], [50], [400]], (3, 40_000))
    noise = 0.3 * eagerness[user] + 0.2 * rng.normal(size=len(day))
    play = 1000 * np.expm1(1 + np.log(seconds[feed]) / 2 + noise)
    watched = watch_times(day, play, feed, np.log1p(seconds), np.ones(400, bool))
    assert abs(np.corrcoef(watched, seconds[feed])[0, 1]) < 0.03
    assert np.corrcoef(watched, eagerness[user])[0, 1] > 0.75
    assert watched.std() == pytest.approx(1, abs=0.02)


def slow_tastes(log, vectors, scale):
    """(users, vectors of actions, watch time if that is in the log, and views)."""
    tastes = np.zeros((6, 3 + ("watched" in log), vectors.shape[1]))
    everyone = sum(vectors[log.feed]) / max(len(log), 1)
    for user, own in enumerate(rows_of_each(log)["user"]):
        n = len(own)
        for column, action in enumerate(ACTIONS):
            rate = rates_of(log, action)[1][user]
            total = (own[action].to_numpy() - rate) @ vectors[own.feed]
            tastes[user, column] = total / np.sqrt(rate * (n + M)) / scale
        if "watched" in log:
            total = (own.watched - own.watched.sum() / (n + M)).to_numpy() @ vectors[own.feed]
            tastes[user, 2] = total / np.sqrt(n + M) / scale
        tastes[user, -1] = (sum(vectors[own.feed]) - n * everyone) / (n + M)
    return tastes


@pytest.mark.parametrize("block", [2, taste.BLOCK])
@pytest.mark.parametrize("play", [True, False])
def test_tastes_equal_loops_over_strictly_earlier_days(monkeypatch, play, block):
    monkeypatch.setattr(taste, "BLOCK", block)
    past = past_of() if play else past_of(play=None)
    log = log_of(past)
    vectors = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    vectors[0] = 0
    scale = np.sqrt(np.mean([(a @ b) ** 2 for a in vectors[1:7] for b in vectors[1:7]]))
    embedding = {"feed_embedding": Feature("dense", "feed", vectors)}
    (feature,) = taste.features(past, embedding).values()
    for day, found in zip(DAYS, feature.values, strict=True):
        assert_close(found, slow_tastes(log[log.day < day], vectors, scale))
    assert feature.columns == (*ACTIONS, *(["watch_time"] if play else []), "views")
    assert feature.partner == "feed_embedding" and taste.features(past, {}) == {}


def test_cooccurrence_is_the_singular_vectors_of_the_normalized_views():
    rng = np.random.default_rng(0)
    user, feed = rng.integers(1, [[41], [51]], (2, 3000))
    feed = np.where((user > 20) & (rng.random(3000) < 0.8), 1 + feed // 2, feed)
    day = np.repeat([1, 2], [2900, 100])  # day 2 validates
    views = np.zeros((42, 52))  # users and feeds that nobody met at both ends
    np.add.at(views, (user[:2900], feed[:2900]), 1)
    sums = [views.sum(axis=1), views.sum(axis=0)]
    roots = [np.sqrt(np.maximum(n, 1)) for n in sums]
    left, _, right = np.linalg.svd(views / np.outer(*roots))
    ids = {"user_ids": np.arange(41), "feed_ids": np.arange(51)}
    past = past_of(user=user, feed=feed, day=day, train=day < 2, **ids)
    made = cooccurrence.features(past, {})
    assert [*made] == ["user_cooccurrence", "feed_cooccurrence"]
    for feature, exact, n, root in zip(made.values(), (left, right.T), sums, roots, strict=True):
        assert feature.values.shape == (len(n), 32) and not feature.values[n == 0].any()
        for axis, found in enumerate(feature.values.T[:3], start=1):
            expected = np.where(n > 0, exact[:, axis] / root, 0)
            expected = (expected / expected[n > 0].std()).clip(-3, 3)
            assert min(np.abs(found - sign * expected).max() for sign in (1, -1)) < 0.02
    assert cooccurrence.features(past, {"feed_embedding": None}) == {}


@pytest.mark.parametrize("later", [None, (np.array([1, 1, 3, 5]), np.array([4, 7, 7, 0]))])
def test_exposures_count_the_rows_of_the_day_itself_and_no_labels(later):
    past = past_of(regime="exposures", later=later)
    made = exposures.features(past, {})
    log = log_of(past)[["day", "user", "feed", "author"]]
    shown = {day: log[log.day == day] for day in DAYS}
    shown[6] = shown[5]  # the day after the last one, where nobody says what is shown
    if later:
        shown[6] = pd.DataFrame({"user": later[0], "feed": later[1]})
        shown[6]["author"] = shown[6].feed.map(AUTHORS)
    for day in DAYS[1:]:
        for name, groups in rows_of_each(shown[day]).items():
            others = np.array([max(len(rows) - 1, 0) for rows in groups])
            if name != "user":
                others = others * 10_000 / max(len(shown[day]), 1)
            assert_close(made[f"{name}_exposures"].values[day, :, 0], np.log1p(others) / 3)
    flipped = {name: 1 - label for name, label in past.labels.items()}
    again = exposures.features(past_of(regime="exposures", later=later, labels=flipped), {})
    for name, feature in made.items():
        np.testing.assert_array_equal(feature.values, again[name].values)
    assert exposures.features(past_of(later=later), {}) == {}


def test_views_of_later_days_are_known_in_the_regime_exposures_alone():
    later = np.array([1, 2]), np.array([7, 7])
    daily, exposed = (past_of(regime=name, later=later) for name in ("daily", "exposures"))
    assert np.array_equal(daily.known_views, [daily.user[daily.train], daily.feed[daily.train]])
    assert np.array_equal(exposed.known_views, [daily.user, daily.feed])  # not of the day after
    final = past_of(regime="exposures", later=later, train=np.ones(150, bool))
    assert np.array_equal(final.known_views[0], np.append(daily.user, later[0]))
    assert np.array_equal(final.known_views[1], np.append(daily.feed, later[1]))


def test_the_pca_is_that_of_scikit_learn_signs_included():
    rng = np.random.default_rng(0)
    full = rng.normal(size=(300, 60)) * np.geomspace(1, 0.05, 60) + rng.normal(size=60)
    rows = rng.permutation(300)
    seen = np.arange(300) % 3 > 0
    fitted = PCA(32, svd_solver="full").fit(full[seen[rows]])
    expected = np.zeros((300, 32))
    expected[rows] = fitted.transform(full) / np.sqrt(fitted.explained_variance_[0])
    expected[0] = 0
    found = embedding.reduce_embeddings(full.astype(np.float32), rows, seen)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    for n_seen, width in ((0, 0), (1, 0), (2, 2), (40, 32)):  # one feed differs from none
        few = np.isin(np.arange(300), np.arange(1, n_seen + 1))
        assert embedding.reduce_embeddings(full, rows, few).shape == (300, width)


IDS = st.just(MISSING) | st.integers(0, 50) | st.integers(0, LARGEST_ID)


@given(st.lists(st.tuples(IDS, st.integers(0, 9)), min_size=1), st.lists(IDS), st.integers(0, 12))
def test_every_id_has_its_row_and_its_code_or_is_rare_or_missing(counted, others, min_count):
    raw, counts = np.array(counted, np.int64).T
    known = vocabulary(raw, counts, min_count)
    totals = {value: counts[raw == value].sum() for value in raw.tolist()}
    frequent = [v for v, n in totals.items() if v != MISSING and n >= max(min_count, 1)]
    assert known.tolist() == sorted(frequent)
    places = {value: row for row, value in enumerate(known.tolist(), start=1)}
    for times in (1, 60):  # many ids are looked up in a table, few are searched
        ids = np.tile(np.append(raw, others).astype(np.int32), times)
        rows = [places.get(value, 0) for value in ids.tolist()]
        codes = [PADDING if v == MISSING else OTHER + row for v, row in zip(ids, rows, strict=True)]
        assert rows_of(ids, known).tolist() == rows and encode(ids, known).tolist() == codes
        assert distinct(ids[ids >= 0]).tolist() == sorted({*ids.tolist()} - {MISSING})


def group_of(function, monkeypatch, **more):
    """Put a group of features in GROUPS that is made by `function`; more: what its module has."""
    group = ModuleType(f"common.features.{function.__name__}")
    vars(group).update(ABOUT="made for this test", features=function, **more)
    monkeypatch.setitem(sys.modules, group.__name__, group)
    monkeypatch.setattr(features, "GROUPS", (*features.GROUPS, function.__name__))


def test_ctrl_c_ends_the_groups_that_are_being_made(monkeypatch):
    def endless(past, made):
        sums = RunningSums(past, "user")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            sums.add(1)
        ended.append("too late")

    def press(*about):
        raise KeyboardInterrupt

    def quick(past, made):
        return {"rows": Feature("dense", "user", past.user_rows[:, None])}

    ended = []
    monkeypatch.setattr(features, "GROUPS", ())
    for function in (quick, endless):
        group_of(function, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        get_data.make_features(past_of(), press)
    assert not ended and not any("ThreadPool" in t.name for t in threading.enumerate())


@pytest.mark.parametrize("others", [("none",), ("toy",)])
def test_a_group_that_can_never_be_made_is_an_error(monkeypatch, others):
    def toy(past, made):
        return {}

    monkeypatch.setattr(features, "GROUPS", ())
    group_of(toy, monkeypatch, BUILDS_ON=others)
    with pytest.raises(ValueError, match="toy"):
        get_data.make_features(past_of(), lambda *about: None)


def test_what_two_groups_ask_for_at_a_time_is_made_once(monkeypatch):
    def slowly(past):
        made.append(past)
        time.sleep(0.2)
        return len(made)

    made = []
    monkeypatch.setattr(Past, "slow", shared_property(slowly), raising=False)
    Past.slow.__set_name__(Past, "slow")
    past = past_of()
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(lambda _: past.slow, range(2))] == [1, 1]


def test_a_group_is_a_module_and_a_name_in_groups(tiny, tmp_path, monkeypatch, capsys):
    def toy(past, made):
        assert list(made) == ["user_taste"]
        views = np.log1p(past.feed_rows)
        daily = np.zeros((past.n_days + 1, past.n_users, 1), np.float16)
        daily += np.arange(past.n_days + 1)[:, None, None] / 100
        return {
            "toy": Feature("dense", "feed", views[:, None], daily=False, columns=("views",)),
            "toy_by_day": Feature("dense", "user", daily, daily=True, default=False),
        }

    group_of(toy, monkeypatch, BUILDS_ON=("taste",))
    get_data.main([str(tiny), "--out", str(tmp_path / "out")])
    assert "made for this test" in capsys.readouterr().out
    data = load(tmp_path / "out")
    described = data.meta["features"]
    assert [*described][-3:] == ["user_taste", "toy", "toy_by_day"]
    about = {"kind": "dense", "table": "feed", "daily": False, "columns": ["views"]}
    assert described["toy"] == about and described["toy_by_day"]["default"] is False
    assert "toy" in data.features and "toy_by_day" not in data.features
    views = np.log1p(np.bincount(data.train["feed"]))
    data.choose(features=["toy", "toy_by_day"])
    batch = {name: column[:50] for name, column in data.train.items()}
    still, daily = LookUp.of(data)(batch)["dense"]["parts"]
    np.testing.assert_allclose(still[:, 0], views[batch["feed"]], rtol=1e-6)
    np.testing.assert_allclose(daily[:, 0], batch["day"] / 100, rtol=1e-3)
