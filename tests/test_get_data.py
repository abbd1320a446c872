"""get_data.py on data whose answer is known: reading, encoding, splitting, history, and what it refuses."""
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, in_terminal, script
from sklearn.decomposition import PCA

import benchmark
import get_data
from common import reading
from common.columns import ACTIONS
from common.pickles import FIRST, OTHER, PADDING, InputError, load, read
from common.reading import MISSING, Source, read_columns
from get_data import SHRINKAGE, SMOOTHING

USER_ACTION = """userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,favorite
5,100,1,1,1,0,0,12000,13000,0,0,0,0
5,101,1,1,0,0,1,3000,20,0,0,0,0
5,100,2,2,0,0,0,500,20,0,0,0,0
9,100,2,1,1,0,0,60000,90000,0,0,0,0
9,102,2,1,0,0,0,0,20,1,0,0,0
5,102,3,1,0,0,0,25000,25000,0,1,0,0
9,100,3,2,1,0,0,800,900,0,0,0,0
12,103,3,1,0,0,1,10,20,0,0,0,0
"""
FEED_INFO = """feedid,authorid,videoplayseconds,description,ocr,asr,bgm_song_id,bgm_singer_id,manual_keyword_list,\
machine_keyword_list,manual_tag_list,machine_tag_list,description_char,ocr_char,asr_char
103,7,20000,1 2,,,5.0,,,,3,3 0.9;8 0.00000011,,,
100,7,20,,,,5.0,6.0,40;41,40,1;2;1,1 0.8,,,
101,8,,,,,,,41,,,,,,
102,7,60,,,,4.0,6.0,,,2;9,2 0.5;9 0.4,,,
"""
EMBEDDINGS = "feedid,feed_embedding\n" + "".join(
    f"{feed},{' '.join(f'{v:.8f}' for v in np.cos(np.arange(8) * feed))} \n" for feed in (100, 101, 102, 103)
)
TEST = "userid,feedid,device\n9,100,1\n77,999,2\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "csv"
    folder.mkdir()
    texts = {"user_action": USER_ACTION, "feed_info": FEED_INFO, "feed_embeddings": EMBEDDINGS, "test_a": TEST}
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.fixture
def encode(tmp_path, capsys):
    """Runs main on a source; returns the folder of pickles, whose output is checked for its lines."""

    def run(source, *flags, out="out", code=0):
        assert get_data.main([str(source), "--out", str(tmp_path / out), *map(str, flags)]) == code
        run.printed, run.error = capsys.readouterr()
        return tmp_path / out

    return run


def decoded(column, vocabulary):
    return get_data.decode(column, vocabulary).tolist()


# ---- tables


def test_rows_days_and_labels_stay_as_they_are_in_the_csv(source, encode):
    data = load(encode(source, "--min-count", 1))
    log = pd.read_csv(source / "user_action.csv")
    for split, rows in (("train", log[log.date_ < 3]), ("valid", log[log.date_ == 3])):
        found = getattr(data, split)
        assert data.tables["user"]["key"][found["user"]].tolist() == rows.userid.tolist()
        assert data.tables["feed"]["key"][found["feed"]].tolist() == rows.feedid.tolist()
        assert found["day"].tolist() == rows.date_.tolist()
        for action in ACTIONS:
            assert found[action].tolist() == rows[action].tolist()
    assert data.meta["tasks"] == {"read_comment": 4, "like": 3, "click_avatar": 2, "forward": 1}


def test_every_feature_of_a_feed_is_encoded(source, encode):
    out = encode(source, "--min-count", 1)
    data, vocabularies = load(out), read(out / "vocabularies.pkl")
    feed = data.tables["feed"]
    row = {raw: i for i, raw in enumerate(feed["key"].tolist())}
    assert sorted(row) == [MISSING, 100, 101, 102, 103, 999]
    # 103 is seen on the validation day alone: its id is OTHER, what it shares with training feeds is known
    assert decoded(feed["feedid"], vocabularies["feedid"]) == [MISSING, 100, 101, 102, MISSING, MISSING]
    assert feed["feedid"][row[103]] == feed["feedid"][row[999]] == feed["feedid"][0] == OTHER
    assert decoded(feed["authorid"][[row[100], row[101], row[103]]], vocabularies["authorid"]) == [7, 8, 7]
    assert feed["bgm_song_id"][row[101]] == PADDING and decoded(feed["bgm_song_id"][[row[102]]], vocabularies["bgm_song_id"]) == [4]

    def items(name, subject, raw):
        column = feed[name]
        return decoded(column["values"][column["offsets"][row[raw]] : column["offsets"][row[raw] + 1]], vocabularies[subject])

    assert items("manual_tag_list", "tag", 100) == [1, 2, 1] and items("manual_tag_list", "tag", 101) == []
    assert items("manual_tag_list", "tag", 102) == [2, 9] and items("machine_tag_list", "tag", 102) == [2, 9]
    assert items("manual_tag_list", "tag", 103) == [MISSING]  # tag 3 is in no training row
    assert items("machine_tag_list", "tag", 103) == [MISSING]  # of the same vocabulary; the item of no weight is left out
    assert items("manual_keyword_list", "keyword", 100) == [40, 41] and items("machine_keyword_list", "keyword", 100) == [40]
    seconds = feed["videoplayseconds"][:, 0]
    logs = np.log1p([20, 60])  # of the feeds seen in training that have a length
    wanted = (np.log1p([20, 20, 60]) - logs.mean()) / logs.std()
    np.testing.assert_allclose(seconds[[row[100], row[103], row[102]]], wanted, rtol=1e-5)  # 20000 was milliseconds
    assert seconds[row[101]] == 0 == seconds[0]


def test_rare_ids_share_the_other_row_and_every_known_id_decodes_to_itself(source, encode):
    out = encode(source, "--min-count", 2)
    vocabularies, data = read(out / "vocabularies.pkl"), load(out)
    assert vocabularies["userid"].tolist() == [5, 9] and vocabularies["feedid"].tolist() == [100]
    assert vocabularies["tag"].tolist() == [1, 2, 9] and data.meta["vocabularies"]["tag"] == 3 + FIRST  # 9 by both lists
    assert get_data.vocabulary(np.array([MISSING, 3, MISSING]), np.ones(3), 1).tolist() == [3]
    rng = np.random.default_rng(0)
    known = np.unique(rng.integers(0, 2**31 - 1, 1000))
    codes = get_data.encode(known, known)
    assert codes.min() == FIRST and len(np.unique(codes)) == len(known) and decoded(codes, known) == known.tolist()
    assert get_data.encode(np.array([MISSING, 2**31 - 1]), known).tolist() == [PADDING, OTHER]


def test_pca_is_fitted_on_training_feeds_and_keeps_their_distances(source, encode):
    data = load(encode(source))
    reduced = data.tables["feed"]["feed_embedding"]
    full = np.cos(np.outer([100, 101, 102], np.arange(8)))
    ratio = np.linalg.norm(reduced[1] - reduced[2]) / np.linalg.norm(reduced[1] - reduced[3])
    assert ratio == pytest.approx(np.linalg.norm(full[0] - full[1]) / np.linalg.norm(full[0] - full[2]), rel=1e-4)
    np.testing.assert_allclose(reduced[1:4].mean(axis=0), 0, atol=1e-5)  # the mean of the feeds seen in training
    assert reduced[1:4, 0].std(ddof=1) == pytest.approx(1, rel=1e-4)
    assert not reduced[0].any() and reduced[4].any()  # 103 is projected, the unknown feed is not


def test_pca_is_that_of_scikit_learn_signs_included():
    rng = np.random.default_rng(0)
    embeddings = (rng.normal(size=(300, 60)) * np.geomspace(1, 0.05, 60) + rng.normal(size=60)).astype(np.float32)
    rows, seen = rng.permutation(np.r_[0, np.arange(1, 300)]), np.arange(300) % 3 > 0
    fitted = PCA(get_data.EMBEDDING_WIDTH, svd_solver="full").fit(embeddings[seen[rows]].astype(float))
    wanted = np.zeros((300, get_data.EMBEDDING_WIDTH))
    wanted[rows] = fitted.transform(embeddings.astype(float)) / np.sqrt(fitted.explained_variance_[0])
    wanted[0] = 0
    np.testing.assert_allclose(get_data.reduce_embeddings(embeddings, rows, seen), wanted, atol=5e-3)


# ---- splits


def test_valid_day_splits_and_leaves_later_days_out(source, encode):
    data = load(encode(source, "--valid-day", 2))
    assert data.train["day"].tolist() == [1, 1] and set(data.valid["day"].tolist()) == {2} and data.meta["valid_day"] == 2
    assert data.tables["user"]["user_history"].shape[0] == 4  # days 0..3, the third being the test's
    assert read(data.folder / "test_a.pkl")["day"].tolist() == [3, 3]


def test_test_rows_keep_order_and_unknown_ids_have_rows(source, encode):
    out = encode(source)
    data, test = load(out), read(out / "test_a.pkl")
    assert data.tables["user"]["key"][test["user"]].tolist() == [9, 77]
    assert data.tables["feed"]["key"][test["feed"]].tolist() == [100, 999]
    assert test["day"].tolist() == [4, 4] and data.tables["user"]["userid"][test["user"][1]] == OTHER


# ---- history


def slow_history(log, key, rates, action, day, entity):
    """Log lift by loops: of a user against everyone, of any other entity against its viewers' expected positives."""
    before = log[log.date_ < day]
    p = (before[action].sum() + 0.5) / (len(before) + 1)
    own = before[before[key] == entity]
    if key == "userid":
        return np.log((own[action].sum() + SMOOTHING * p) / ((len(own) + SMOOTHING) * p))
    expected = sum(rates(row.userid, day) for row in own.itertuples())
    return np.log((own[action].sum() + SHRINKAGE) / (expected + SHRINKAGE))


def test_history_equals_loops_over_strictly_earlier_days(source, encode):
    out = encode(source)
    data, log = load(out), pd.read_csv(source / "user_action.csv")
    log = log.merge(pd.read_csv(source / "feed_info.csv")[["feedid", "authorid"]])
    row = {key: {raw: i for i, raw in enumerate(table["key"].tolist())} for key, table in data.tables.items()}
    for column, action in enumerate(ACTIONS):

        def rate(user, day):
            before = log[log.date_ < day]
            p = (before[action].sum() + 0.5) / (len(before) + 1)
            return p * np.exp(slow_history(log, "userid", None, action, day, user))

        for day in (1, 2, 3, 4):
            for user in (5, 9, 12):
                found = data.tables["user"]["user_history"][day, row["user"][user]]
                assert found[column] == pytest.approx(slow_history(log, "userid", rate, action, day, user), abs=2e-3)
                assert found[-1] == pytest.approx(np.log1p((log[log.date_ < day].userid == user).sum()) / 10, abs=1e-3)
                assert len(found) == len(ACTIONS) + 1
            for feed, author in ((100, 7), (101, 8), (102, 7), (103, 7)):
                found = data.tables["feed"]["feed_history"][day, row["feed"][feed], column]
                assert found == pytest.approx(slow_history(log, "feedid", rate, action, day, feed), abs=2e-3)
                found = data.tables["feed"]["author_history"][day, row["feed"][feed], column]
                assert found == pytest.approx(slow_history(log, "authorid", rate, action, day, author), abs=2e-3)


def slow_watch_times(log, seconds):
    """{row of the log: its watch time}, `seconds` of each feed; only feeds of one length are of a group."""
    plain, watched = {}, {}
    for day in sorted(set(log.date_)):
        today = log[log.date_ == day]
        for row in today.itertuples():
            alike = log[(log.date_ <= day) & (log.feedid.map(seconds) == seconds[row.feedid])]
            plain[row.Index] = np.log1p(row.play / 1000) - np.log1p(alike.play / 1000).mean()
        spread = max(np.sqrt(np.mean(np.square([*plain.values()]))), 1e-6)
        watched |= {row: plain[row] / spread for row in today.index}
    return pd.Series(watched)


def with_watch_times(source, data):
    log, feeds = pd.read_csv(source / "user_action.csv"), data.tables["feed"]
    log["watched"] = slow_watch_times(log, dict(zip(feeds["key"].tolist(), feeds["videoplayseconds"][:, 0].tolist())))
    assert log.watched.std() > 0.1
    return log


def test_history_of_watch_times_equals_loops_over_strictly_earlier_days(source, encode):
    data = load(encode(source))
    log = with_watch_times(source, data).merge(pd.read_csv(source / "feed_info.csv")[["feedid", "authorid"]])
    row = {key: {raw: i for i, raw in enumerate(table["key"].tolist())} for key, table in data.tables.items()}

    def mean(values):
        return sum(values) / (len(values) + SMOOTHING)

    for day in (1, 2, 3, 4):
        before = log[log.date_ < day]
        of_user = {user: mean(before[before.userid == user].watched) for user in (5, 9, 12)}
        for user, wanted in of_user.items():
            assert data.tables["user"]["user_watch_time"][day, row["user"][user], 0] == pytest.approx(wanted, abs=1e-3)
        surplus = before.watched - before.userid.map(of_user)
        for feed, author in ((100, 7), (101, 8), (102, 7), (103, 7)):
            for name, wanted in (("feed", surplus[before.feedid == feed]), ("author", surplus[before.authorid == author])):
                assert data.tables["feed"][f"{name}_watch_time"][day, row["feed"][feed], 0] == pytest.approx(mean(wanted), abs=1e-3)


def test_watch_times_do_not_depend_on_the_length_of_the_video():
    rng = np.random.default_rng(0)
    rows, seconds, eager = 40_000, rng.uniform(5, 60, 400), rng.normal(size=50)
    day, user, feed = rng.integers(1, 5, rows), rng.integers(0, 50, rows), rng.integers(0, 400, rows)
    play = 1000 * np.expm1(1 + np.log(seconds[feed]) / 2 + 0.3 * eager[user] + 0.2 * rng.normal(size=rows))
    watched = get_data.watch_times(day, play, feed, np.log1p(seconds), np.ones(400, bool))
    assert abs(np.corrcoef(watched, seconds[feed])[0, 1]) < 0.03 and np.corrcoef(watched, eager[user])[0, 1] > 0.75
    assert watched.std() == pytest.approx(1, abs=0.02)


def test_a_log_without_play_has_no_watch_times(source, encode):
    pd.read_csv(source / "user_action.csv").drop(columns="play").to_csv(source / "user_action.csv", index=False)
    data = load(encode(source))
    assert not any(name.endswith("watch_time") for name in (*data.meta["features"], *data.tables["user"], *data.tables["feed"]))
    assert data.meta["features"]["user_taste"]["columns"] == [*ACTIONS, "views"]
    assert data.tables["user"]["user_taste"].shape[2] == len(ACTIONS) + 1


def test_tastes_equal_loops_over_strictly_earlier_days(source, encode):
    out = encode(source)
    data = load(out)
    log = with_watch_times(source, data)
    row = {key: {raw: i for i, raw in enumerate(table["key"].tolist())} for key, table in data.tables.items()}
    vectors = data.tables["feed"]["feed_embedding"].astype(float)
    seen = vectors[[row["feed"][feed] for feed in (100, 101, 102)]]  # 103 is not, before the validation day
    scale = np.sqrt(np.mean([(a @ b) ** 2 for a in seen for b in seen]))
    for column, action in enumerate(ACTIONS):
        for day in (1, 2, 3, 4):
            before = log[log.date_ < day]
            p = (before[action].sum() + 0.5) / (len(before) + 1)
            for user in (5, 9, 12):
                own = before[before.userid == user]
                rate = (own[action].sum() + SMOOTHING * p) / (len(own) + SMOOTHING)
                taste = sum((label - rate) * vectors[row["feed"][feed]] for label, feed in zip(own[action], own.feedid))
                wanted = taste / np.sqrt(rate * (len(own) + SMOOTHING)) / scale
                found = data.tables["user"]["user_taste"][day, row["user"][user], column]
                np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), atol=2e-3)
                mean = own.watched.sum() / (len(own) + SMOOTHING)
                taste = sum((watched - mean) * vectors[row["feed"][feed]] for watched, feed in zip(own.watched, own.feedid))
                found = data.tables["user"]["user_taste"][day, row["user"][user], -2]
                np.testing.assert_allclose(found, np.broadcast_to(taste / np.sqrt(len(own) + SMOOTHING) / scale, found.shape), atol=2e-3)
                viewed = sum((vectors[row["feed"][feed]] for feed in own.feedid), np.zeros(vectors.shape[1]))
                everyone = vectors[[row["feed"][feed] for feed in before.feedid]].sum(axis=0) / max(len(before), 1)
                found = data.tables["user"]["user_taste"][day, row["user"][user], -1]
                np.testing.assert_allclose(found, (viewed - len(own) * everyone) / (len(own) + SMOOTHING), atol=2e-3)
    assert data.meta["features"]["user_taste"]["columns"] == [*(a for a in ACTIONS if a in log), "watch_time", "views"]


def test_the_taste_of_a_user_without_one_has_unit_variance_on_any_feed():
    rng = np.random.default_rng(0)
    n_users, n_feeds, rows = 300, 500, 60_000
    day, user, feed = rng.integers(1, 4, rows), rng.integers(0, n_users, rows), rng.integers(0, n_feeds, rows)
    vectors = (rng.normal(size=(n_feeds, 6)) * [3, 2, 1, 1, 0.5, 0.1]).astype(np.float32)
    labels = {"like": (rng.random(rows) < 0.05).astype(np.uint8)}
    watched = rng.normal(size=rows).astype(np.float32)
    tastes = get_data.past_tastes(day, user, feed, labels, watched, vectors, np.ones(n_feeds, bool), n_users)
    assert not tastes[:2].any()
    for column in (0, 1):
        assert np.std(tastes[-1, :, column].astype(float) @ vectors.T) == pytest.approx(0.94, abs=0.1)  # 200 rows of 220 after smoothing


def test_without_embeddings_there_is_cooccurrence_and_no_tastes(source, encode):
    names = {"user_cooccurrence", "feed_cooccurrence"}
    assert not names & set(load(encode(source)).meta["features"])
    (source / "feed_embeddings.csv").unlink()
    data = load(encode(source))
    assert "user_taste" not in data.tables["user"] and "user_taste" not in data.meta["features"]
    assert names <= set(data.meta["features"])
    users, feeds = data.tables["user"], data.tables["feed"]
    assert not users["user_cooccurrence"][users["key"] == 12].any() and users["user_cooccurrence"][users["key"] == 5].any()  # 12 comes with the validation day
    assert not feeds["feed_cooccurrence"][feeds["key"] == 103].any() and feeds["feed_cooccurrence"][feeds["key"] == 102].any()


def test_cooccurrence_is_the_singular_vectors_of_the_normalized_views():
    rng = np.random.default_rng(0)
    user, feed = rng.integers(1, 41, 3000), rng.integers(1, 51, 3000)
    feed = np.where((user > 20) & (rng.random(3000) < 0.8), 1 + feed // 2, feed)
    views = np.zeros((42, 52))  # users and feeds that nobody met at both ends
    np.add.at(views, (user, feed), 1)
    normal = views / np.sqrt(np.maximum(views.sum(axis=1), 1))[:, None] / np.sqrt(np.maximum(views.sum(axis=0), 1))
    left, values, right = np.linalg.svd(normal)
    found = get_data.cooccurrence(user.astype(np.int32), feed.astype(np.int32), 42, 52)
    for vectors, exact, n in zip(found, (left, right.T), (views.sum(axis=1), views.sum(axis=0))):
        assert vectors.shape[1] == 32 and not vectors[n == 0].any()
        for column in range(3):
            wanted = exact[:, column + 1] / np.sqrt(np.maximum(n, 1))
            wanted = np.where(n > 0, wanted / wanted[n > 0].std(), 0).clip(-3, 3)
            assert min(np.abs(vectors[:, column] - wanted).max(), np.abs(vectors[:, column] + wanted).max()) < 0.02


@pytest.mark.parametrize("day", [1, 2, 3])
def test_labels_and_play_changed_on_a_day_change_no_feature_of_that_day_or_before(source, encode, day):
    before = load(encode(source, out="before"))
    log = pd.read_csv(source / "user_action.csv")
    changed = log.date_ == day
    log.loc[changed, list(ACTIONS)] = 1 - log.loc[changed, list(ACTIONS)]
    log.loc[changed, "play"] = 5000 + 3 * log.loc[changed, "play"]
    log.to_csv(source / "user_action.csv", index=False)
    after = load(encode(source, out="after"))
    moved = {}
    for key, table in before.tables.items():
        for name, column in table.items():
            if name.endswith(("_history", "_watch_time", "_taste")):
                np.testing.assert_array_equal(column[: day + 1], after.tables[key][name][: day + 1])
                moved[name] = bool((column[day + 1 :] != after.tables[key][name][day + 1 :]).any())
            elif name != "stamp" and not isinstance(column, dict):
                np.testing.assert_array_equal(column, after.tables[key][name])
    assert all(moved.values()), moved


def test_days_after_the_validation_day_change_nothing(source, encode):
    wanted = load(encode(source, "--valid-day", 2, out="before")).meta["stamp"]
    log = pd.read_csv(source / "user_action.csv")
    late = log.date_ == 3
    log.loc[late, [*ACTIONS, "play"]] = 1 - log.loc[late, [*ACTIONS, "play"]].clip(upper=1)
    log.to_csv(source / "user_action.csv", index=False)
    assert load(encode(source, "--valid-day", 2, out="after")).meta["stamp"] == wanted


# ---- sources


def test_subfolder_zip_and_folder_with_the_zip_give_the_same_pickles(source, encode, tmp_path):
    def stamp(place, out):
        return load(encode(place, out=out)).meta["stamp"]

    wanted = stamp(source, "plain")
    outer, zipped = tmp_path / "outer", tmp_path / "zipped"
    shutil.copytree(source, outer / "wechat_algo_data1")
    zipped.mkdir()
    with zipfile.ZipFile(zipped / "wechat_algo_data1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in source.iterdir():
            archive.write(path, f"wechat_algo_data1/{path.name}")
    assert stamp(outer, "a") == stamp(zipped, "b") == stamp(zipped / "wechat_algo_data1.zip", "c") == wanted


def test_same_data_same_stamp_other_label_other_stamp(source, encode):
    first, again = (load(encode(source, out=out)).meta["stamp"] for out in ("a", "b"))
    (source / "user_action.csv").write_text(USER_ACTION.replace("9,100,3,2,1", "9,100,3,2,0"))
    assert first == again != load(encode(source, out="c")).meta["stamp"]


def test_reordered_and_extra_columns_a_bom_crlf_and_1_0_for_1_are_read(source, encode):
    wanted = load(encode(source, out="a")).meta["stamp"]
    log = pd.read_csv(source / "user_action.csv")
    log["extra"] = "x"
    log = log[log.columns[::-1]].astype({"userid": float})
    (source / "user_action.csv").write_bytes(b"\xef\xbb\xbf" + log.to_csv(index=False, lineterminator="\r\n").encode())
    assert load(encode(source, out="b")).meta["stamp"] == wanted


def test_without_embeddings_tests_or_some_actions_it_works(source, encode):
    for name in ("feed_embeddings.csv", "test_a.csv"):
        (source / name).unlink()
    pd.read_csv(source / "user_action.csv").drop(columns=["favorite", "forward"]).to_csv(source / "user_action.csv", index=False)
    data = load(encode(source))
    assert list(data.meta["tasks"]) == ["read_comment", "like", "click_avatar"] and "feed_embedding" not in data.meta["features"]


def test_a_feed_that_feed_info_lacks_is_kept_and_counted(source, encode):
    lines = FEED_INFO.splitlines(keepends=True)
    (source / "feed_info.csv").write_text("".join(line for line in lines if not line.startswith("101,")))
    data = load(encode(source, "--min-count", 1))
    assert "1 rows of feeds that feed_info.csv lacks" in encode.printed
    row = data.tables["feed"]["key"].tolist().index(101)
    assert data.tables["feed"]["authorid"][row] == PADDING and data.tables["feed"]["feedid"][row] >= FIRST


def test_it_prints_what_it_read_and_made(source, encode):
    encode(source, "--min-count", 1)
    for words in ("8 rows, days 1..3", "4 feeds", "2 rows", "5, days 1..2", "3, day 3", "userid 2", "tag 3", "read_comment 40.000%"):
        assert words in encode.printed, words


# ---- what is refused: one sentence, exit code 2, and what was there stays


WRONG = {
    "header renamed": ("user_action.csv", USER_ACTION.replace("device", "phone"), "user_action.csv: column device is missing"),
    "label 2": ("user_action.csv", USER_ACTION.replace("5,101,1,1,0", "5,101,1,1,2"), "line 3, column read_comment: 2 is not in 0..1"),
    "text in an id": ("user_action.csv", USER_ACTION.replace("9,102", "nine,102"), "line 6, column userid: 'nine' is not a whole number"),
    "empty label": ("user_action.csv", USER_ACTION.replace("5,102,3,1,0", "5,102,3,1,"), "line 7, column read_comment: nothing is not"),
    "fractional id": ("user_action.csv", USER_ACTION.replace("9,102", "9.5,102"), "column userid: '9.5' is not a whole number"),
    "negative id": ("user_action.csv", USER_ACTION.replace("9,102", "-9,102"), "column userid: -9 is not in 0..2147483647"),
    "negative play": ("user_action.csv", USER_ACTION.replace(",500,", ",-500,"), "line 4, column play: -500 is not in 0..2147483647"),
    "huge id": ("user_action.csv", USER_ACTION.replace("9,102", "4294967296,102"), "column userid: 4294967296 is not in"),
    "day 0": ("user_action.csv", USER_ACTION.replace("9,102,2", "9,102,0"), "column date_: 0 is not in 1.."),
    "one day only": ("user_action.csv", "\n".join(USER_ACTION.splitlines()[:3]), "needs rows on that day and on one before"),
    "no rows": ("user_action.csv", USER_ACTION.splitlines()[0], "user_action.csv has no rows"),
    "empty file": ("user_action.csv", "", "user_action.csv: column userid is missing"),
    "feed twice": ("feed_info.csv", FEED_INFO + "100,7,20,,,,,,,,,,,,\n", "line 6: feed 100 is listed twice"),
    "list of words": ("feed_info.csv", FEED_INFO.replace("1;2;1", "1;two"), "line 3, column manual_tag_list: 'two' is no id"),
    "short embedding": ("feed_embeddings.csv", EMBEDDINGS.replace("1.00000000 ", "", 1), "feed_embeddings.csv, line"),
    "infinite seconds": ("feed_info.csv", FEED_INFO.replace("7,60,", "7,inf,"), "line 5, column videoplayseconds: 'inf' is not a number"),
    "fractional song": ("feed_info.csv", FEED_INFO.replace("4.0,6.0", "4.5,6.0"), "line 5, column bgm_song_id: '4.5' is not a whole number"),
    "quoted embedding": ("feed_embeddings.csv", EMBEDDINGS.replace("102,1.00000000", '102,"1.00000000"'), "feed_embeddings.csv, line 4"),
    "fractional feed": ("feed_embeddings.csv", EMBEDDINGS.replace("102,", "102.5,"), "feed_embeddings.csv, line 4: not an id and 8 finite numbers"),
    "nan embedding": ("feed_embeddings.csv", EMBEDDINGS.replace("\n102,1.00000000", "\n102,nan"), "feed_embeddings.csv, line 4"),
}


WRONG |= {
    "a row too long": ("user_action.csv", USER_ACTION.replace("5,101,1", "5,101,1,1"), "line 3: it has 14 fields and the header 13"),
    "every row too long": ("test_a.csv", TEST.replace("1\n", "1,7\n").replace("2\n", "2,7\n"), "line 2: it has 4 fields and the header 3"),
    "infinite id": ("user_action.csv", USER_ACTION.replace("9,102", "inf,102"), "line 6, column userid: 'inf' is not a whole number"),
    "id of 20 digits": ("user_action.csv", USER_ACTION.replace("9,102", "99999999999999999999,102"), "line 6, column userid"),
    "semicolons": ("user_action.csv", USER_ACTION.replace(",", ";"), "has semicolons between its columns"),
    "column twice": ("user_action.csv", USER_ACTION.replace("comment,like", "read_comment,like", 1), "read_comment stands twice"),
    "cut in a row": ("user_action.csv", USER_ACTION[:-12], "line 9, column"),
    "huge list item": ("feed_info.csv", FEED_INFO.replace("1;2;1", "1;99999999999999999999"), "'99999999999999999999' is no id"),
    "list item 1_0": ("feed_info.csv", FEED_INFO.replace("1;2;1", "1_0"), "'1_0' is no id"),
    "note": ("source.json", "[]", "source.json is damaged"),
    "after blank lines": ("user_action.csv", USER_ACTION.replace("5,100,2", "\n  \n\n5,100,2").replace("9,102,2", "9,102,0"), "line 9, column date_: 0"),
    "text after blank lines": ("user_action.csv", USER_ACTION.replace("5,100,2", "\n\n5,100,2").replace("9,102", "nine,102"), "line 8, column userid"),
    "list after a blank line": ("feed_info.csv", FEED_INFO.replace("1;2;1", "1;two").replace("\n103", "\n\n103"), "line 4, column manual_tag_list"),
    "after a line break in quotes": ("feed_info.csv", FEED_INFO.replace("1 2,", '"1\n2",') + "100,7,20,,,,,,,,,,,,\n", "line 7: feed 100 is listed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_leaves_what_was_there(source, encode, case):
    name, text, sentence = WRONG[case]
    out = encode(source)
    stamps = {path.name: path.read_bytes() for path in out.iterdir()}
    (source / name).write_text(text)
    encode(source, code=2)
    assert sentence in encode.error and encode.error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == stamps


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing_of_what_is_read_or_said(source, encode, monkeypatch, chunk):
    def outcomes():
        yield load(encode(source)).meta["stamp"]
        yield load(encode(source, "--valid-day", 2)).meta["stamp"]
        for name, text, _ in WRONG.values():
            before = (source / name).read_text() if (source / name).exists() else None
            (source / name).write_text(text)
            encode(source, code=2)
            yield encode.error
            (source / name).write_text(before) if before else (source / name).unlink()

    wanted = list(outcomes())
    monkeypatch.setattr(reading, "CHUNK", chunk)
    assert list(outcomes()) == wanted


def test_a_row_too_long_beside_one_too_short_is_refused(source):
    (source / "a.csv").write_text("a,b,c\n1,2\n1,2,3,4\n")
    with pytest.raises(InputError, match="a.csv, line 3: it has 4 fields and the header 3"):
        read_columns(Source(source), "a.csv", ["a"])


@pytest.mark.parametrize("text, suspect", [
    ("a,b\n1,2\n3,4\n", False), ("a,b\r\n1,2\r\n3,4", False), ("a,b\n1,2\n3,4,5\n", True), ("a,b\n1\n3,4\n", True), ('a,b\n"1,2",3\n', True),
])
def test_lines_of_another_number_of_fields_are_noticed_wherever_blocks_end(text, suspect):
    for size in range(1, len(text) + 1):
        file = reading._Watched(io.BytesIO(text.encode()), SimpleNamespace(update=int), 2)
        while file.read(size):
            pass
        assert file.suspect == suspect, size


def test_small_numbers_are_kept_small(source):
    log = get_data.read_log(Source(source), "user_action.csv", ["userid", "date_", "like"])
    assert [column.dtype for column in log.values()] == [np.int32, np.int32, np.uint8]


# ---- feed_embeddings.csv, which a thread reads


def embeddings(n, width=512):
    """A file of several blocks, and its numbers."""
    numbers = np.random.default_rng(0).normal(size=(n, width)).round(8)
    lines = [f"{7 * row},{' '.join(f'{v:.8f}' for v in one)} \n" for row, one in enumerate(numbers)]
    return "feedid,feed_embedding\n" + "".join(lines), numbers.astype(np.float32)


def test_embeddings_of_several_blocks_are_what_was_written():
    text, wanted = embeddings(500)
    assert len(text) > 2 << 20
    for ending in (text, text.rstrip(), text.replace("\n", "\r\n")):
        ids, found = get_data.read_embeddings(io.BytesIO(ending.encode()), "place")
        assert ids.tolist() == list(range(0, 3500, 7)) and found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("row", [0, 250, 499])
@pytest.mark.parametrize("how", [" 0.5\n", " x\n", " inf\n"])
def test_a_wrong_line_of_any_block_is_named(row, how):
    lines = embeddings(500)[0].split("\n")
    lines[row + 1] += how.rstrip("\n")
    wrong = 3 if (row, how) == (0, " 0.5\n") else row + 2  # the first line says how many numbers there are
    with pytest.raises(InputError, match=f"place, line {wrong}: not an id and"):
        get_data.read_embeddings(io.BytesIO("\n".join(lines).encode()), "place")


@pytest.mark.parametrize("wrong", [("user_action", "feed_embeddings"), ("test_a", "feed_embeddings"), ("feed_info", "feed_embeddings"), ("feed_embeddings",)])
def test_of_two_wrong_files_the_first_is_named_and_no_thread_is_left(source, encode, wrong):
    for name in wrong:
        path = source / f"{name}.csv"
        path.write_text(re.sub(r"^(\d)", r"x\1", path.read_text(), flags=re.M))
    encode(source, code=2)
    assert f"{wrong[0]}.csv, line" in encode.error and encode.error.count("\n") == 1
    assert not [thread.name for thread in threading.enumerate() if "Pool" in thread.name]


def test_ctrl_c_ends_the_thread(source, monkeypatch):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return super().read(size) or (self.seek(len("feedid,feed_embedding\n")), super().read(size))[1]

    opened = Source.open
    monkeypatch.setattr(Source, "open", lambda self, name: Endless(EMBEDDINGS.encode()) if name == "feed_embeddings.csv" else opened(self, name))

    def interrupted(stage, found):
        if stage == "feed_info.csv":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_data.read_source(Source(source), interrupted)
    assert not [thread.name for thread in threading.enumerate() if "Pool" in thread.name]


def test_a_missing_file_folder_or_zip_is_named(source, encode, tmp_path):
    (source / "feed_info.csv").unlink()
    encode(source, code=2)
    assert "feed_info.csv is missing" in encode.error
    encode(tmp_path / "nowhere", code=2)
    assert "nowhere does not exist" in encode.error
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    encode(tmp_path / "bad.zip", code=2)
    assert "bad.zip is not a zip" in encode.error


def test_commas_after_every_row_and_quotes_are_read(source, encode):
    wanted = load(encode(source, out="a")).meta["stamp"]
    first, *rows = USER_ACTION.splitlines()
    (source / "user_action.csv").write_text(first + "\n" + "".join(f"{row},,\n" for row in rows))
    assert load(encode(source, out="b")).meta["stamp"] == wanted
    (source / "user_action.csv").write_text("".join('"' + line.replace(",", '","') + '"\n' for line in USER_ACTION.splitlines()))
    assert load(encode(source, out="c")).meta["stamp"] == wanted


@pytest.mark.parametrize("name", ["user_action.csv", "feed_embeddings.csv"])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_zip_with_a_damaged_member_is_refused(source, encode, tmp_path, place, name):
    archive = tmp_path / "half.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in source.iterdir():
            file.write(path, path.name)
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo(name)
    content = bytearray(archive.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    offset = {"start": member.header_offset, "middle": start, "end": start + member.compress_size - 8}[place]
    content[offset : offset + 8] = bytes(255 - byte for byte in content[offset : offset + 8])
    archive.write_bytes(content)
    encode(archive, code=2)
    assert name in encode.error and encode.error.count("\n") == 1


def test_a_zip_with_a_bomb_or_two_files_of_one_name_or_a_password_is_refused(source, encode, tmp_path):
    for name, members in {"bomb": {"user_action.csv": "0," * 10**7}, "two": {"a/feed_info.csv": FEED_INFO, "b/feed_info.csv": FEED_INFO}}.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for member, text in members.items():
                file.writestr(member, text)
        encode(tmp_path / f"{name}.zip", code=2)
        assert {"bomb": "which no table does", "two": "two files feed_info.csv"}[name] in encode.error
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as file:
        file.writestr("user_action.csv", USER_ACTION)
    content = (tmp_path / "locked.zip").read_bytes()
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit that says a member is encrypted
        at = content.index(signature) + place
        content = content[:at] + bytes([content[at] | 1]) + content[at + 1 :]
    (tmp_path / "locked.zip").write_bytes(content)
    encode(tmp_path / "locked.zip", code=2)
    assert "password" in encode.error and encode.error.count("\n") == 1


def test_paths_in_a_zip_write_nothing_outside(source, encode, tmp_path):
    with zipfile.ZipFile(tmp_path / "paths.zip", "w") as file:
        for path in source.iterdir():
            file.write(path, f"../../{path.name}")
    before = sorted(tmp_path.parent.rglob("*"))
    assert load(encode(tmp_path / "paths.zip")).meta["stamp"] == load(encode(source, out="plain")).meta["stamp"]
    assert {path for path in tmp_path.parent.rglob("*") if path not in before} == {
        path for out in ("out", "plain") for path in [tmp_path / out, *(tmp_path / out).iterdir()]
    }


def test_valid_day_without_rows_is_refused(source, encode):
    encode(source, "--valid-day", 9, code=2)
    assert "another --valid-day" in encode.error


@pytest.mark.parametrize("packed", [False, True])
def test_a_bar_counts_every_byte_that_is_read(source, tmp_path, monkeypatch, packed):
    moved = []

    @contextmanager
    def bar(about, size):
        moved.append(-size)
        yield SimpleNamespace(update=moved.append)

    if packed:
        shutil.make_archive(str(tmp_path / "packed"), "zip", source)
        source = tmp_path / "packed.zip"
    monkeypatch.setattr(reading, "bar", bar)
    assert read_columns(Source(source), "user_action.csv", ["userid"])["userid"].tolist() == [5, 5, 5, 9, 9, 5, 9, 12]
    assert moved[0] == -len(USER_ACTION) and sum(moved) == 0


def test_ctrl_c_while_pandas_reads_is_not_taken_for_a_broken_file(source, monkeypatch):
    @contextmanager
    def bar(about, size):
        yield SimpleNamespace(update=lambda size: signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(reading, "bar", bar)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            read_columns(Source(source), "user_action.csv", ["userid"])
    finally:
        signal.signal(signal.SIGINT, before)


def test_bytes_that_are_no_text_are_read_as_such(source):
    (source / "feed_info.csv").write_bytes(b"\xef\xbb\xbffeedid,manual_tag_list\n100,\xff\n")
    columns = read_columns(Source(source), "feed_info.csv", ["feedid", "manual_tag_list"], text=["manual_tag_list"])
    assert columns["feedid"].tolist() == [100] and columns["manual_tag_list"] == ["\ufffd"]


def test_text_in_gbk_and_thousands_of_spaces_change_nothing(source, encode):
    wanted = load(encode(source, out="a")).meta["stamp"]
    text = FEED_INFO.replace("1 2,", "一二 三," + " " * 5000 + "x")
    (source / "feed_info.csv").write_bytes(text.encode("gbk"))
    assert load(encode(source, out="b")).meta["stamp"] == wanted


def test_one_feed_with_an_embedding_is_as_none(source, encode):
    (source / "feed_embeddings.csv").write_text("\n".join(EMBEDDINGS.splitlines()[:2]) + "\n")
    assert load(encode(source)).tables["feed"]["feed_embedding"].shape[1] == 0


# ---- as a user runs it


def test_ten_times_the_users_are_ten_times_the_rows_of_each(source, encode, tmp_path):
    (tmp_path / "tenfold").mkdir()
    assert benchmark.tenfold(source, tmp_path / "tenfold") == 80
    once, ten = (load(encode(place, "--min-count", 1, out=place.name + "_out")) for place in (source, tmp_path / "tenfold"))
    assert ten.meta["name"] == "rows of WeChat Big Data Challenge 2021 ten times" and ten.meta["synthetic"]
    raw = [data.tables["user"]["key"][data.train["user"]].tolist() for data in (once, ten)]
    assert raw[1] == [user + 13 * copy for copy in range(10) for user in raw[0]]  # 12 is the largest
    for name in ("feed", "day", "device", *ACTIONS):
        assert ten.train[name].tolist() == 10 * once.train[name].tolist()


def test_bars_in_a_terminal_none_in_a_pipe_and_silence_if_quiet(tiny, tmp_path):
    code, out, shown = in_terminal("get_data.py", tiny, "--out", "shown", cwd=tmp_path)
    assert code == 0 and "done in" in out
    for stage in ("reading user_action.csv", "reading feed_embeddings.csv", "parsing manual_tag_list", "encoding", "history by day"):
        assert re.search(rf"\r  {stage}: +\d+%\|.*<", shown), stage
    piped = script("get_data.py", tiny, "--out", "piped", cwd=tmp_path)
    assert piped.stderr == "" and "\r" not in piped.stdout and "done in" in piped.stdout
    assert in_terminal("get_data.py", tiny, "--out", "quiet", "--quiet", cwd=tmp_path) == (0, "", "")
    assert load(tmp_path / "quiet").meta["stamp"] == load(tmp_path / "shown").meta["stamp"]


def test_ctrl_c_is_one_sentence_and_leaves_what_was_there(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "meta.pkl").write_text("precious")
    code, _, shown = in_terminal("get_data.py", tiny, "--out", "out", cwd=tmp_path, interrupt=True)
    assert code == 130 and "\r\x1b[Kget_data.py: interrupted: what was in out before is untouched.\r\n" in shown
    assert shown.count("\n") == 1 and [path.name for path in (tmp_path / "out").iterdir()] == ["meta.pkl"]
    assert (tmp_path / "out" / "meta.pkl").read_text() == "precious"


def test_with_nothing_in_data_it_makes_the_stand_in_and_says_so(tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: {
        name for name in names if name.startswith(".") or (os.path.basename(folder) == "data" and not name.endswith((".py", ".md")))
    })
    run = subprocess.run([sys.executable, "get_data.py"], cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "SYNTHETIC stand-in" in run.stdout.splitlines()[0] and (copy / "data" / "sample" / "source.json").exists()
    data = load(copy / "user_data")
    assert data.meta["synthetic"] and 600_000 < len(data.train["user"]) < 700_000


def test_help_is_quick_and_get_data_never_loads_tensorflow(tiny, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import get_data; "
        f"assert get_data.main([{str(tiny)!r}]) == 0; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert "SOURCE" in script("get_data.py", "--help", cwd=tmp_path).stdout


def test_stand_in_keeps_the_true_probabilities_of_the_validation_day(tiny, tiny_pickles):
    data, log = load(tiny_pickles), pd.read_csv(tiny / "user_action.csv")
    truth = np.load(tiny / "true_probability.npy")[log.date_ == 14]
    for column, action in enumerate(ACTIONS):
        np.testing.assert_array_equal(data.valid[f"true_{action}"], truth[:, column])
