"""get_data.py on data whose answer is known, and what a user sees of it."""

import re
import shutil

import get_data
from common.columns import ACTIONS
from common.command import InputError
from common.contract import load
from common.csvs import MISSING
from common.pickles import FIRST, OTHER, PADDING, read

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_one_sentence, in_terminal, script
from contest_files import FILES


def encode(source, *flags, log=None):
    """The Data that get_data.py makes of a source, of this log if given, in `out` beside it."""
    if log is not None:
        log.to_csv(source / "user_action.csv", index=False)
    out = source.parent / "out"
    get_data.main([str(source), "--out", str(out), *map(str, flags)])
    return load(out)


def decoded(codes, known):
    """The raw ids of codes, None for PADDING and "other" for OTHER."""
    return [[None, "other", *known.tolist()][code] for code in codes.tolist()]


def test_rows_days_and_labels_stay_as_they_are_in_the_csv(source):
    data = encode(source, "--min-count", 1)
    log = pd.read_csv(source / "user_action.csv")
    test = pd.read_csv(source / "test_a.csv").assign(date_=4)
    parts = [(data.train, log[log.date_ < 3]), (data.valid, log[log.date_ == 3])]
    for rows, csv in [*parts, (data.unlabelled["test_a"], test)]:
        assert data.tables["user"]["key"][rows["user"]].tolist() == csv.userid.tolist()
        assert data.tables["feed"]["key"][rows["feed"]].tolist() == csv.feedid.tolist()
        assert rows["day"].tolist() == csv.date_.tolist()
        assert decoded(rows["device"], data.vocabularies["device"]) == csv.device.tolist()
        actions = [action for action in ACTIONS if action in csv]
        assert set(rows) == {"user", "feed", "day", "device", *actions}
        assert all(rows[action].tolist() == csv[action].tolist() for action in actions)
    assert data.meta["tasks"] == {"read_comment": 4, "like": 3, "click_avatar": 2, "forward": 1}
    assert data.meta["more_tasks"] == {"favorite": 1, "comment": 1, "follow": 1}
    assert data.tables["user"]["userid"][-1] == OTHER and "test_b" not in data.unlabelled


def test_meta_describes_every_feature_in_order(source):
    data = encode(source)
    described = data.meta["features"]
    optional = ["machine_tag_list", "machine_keyword_list", "videoplayseconds", "feed_embedding"]
    names = ["userid", "device", "feedid", "authorid", "bgm_song_id", "bgm_singer_id"]
    names += ["manual_tag_list", optional[0], "manual_keyword_list", *optional[1:]]
    names += [f"{name}_history" for name in ("user", "feed", "author")]
    names += [f"{name}_watch_time" for name in ("user", "feed", "author")]
    assert [*described] == [*names, "user_taste"]
    assert {n for n in described if described[n].get("default") is False} == set(optional)
    taste = {"kind": "dot", "table": "user", "daily": True, "with": "feed_embedding"}
    assert described["user_taste"] == {**taste, "columns": [*ACTIONS, "watch_time", "views"]}


def test_every_feature_of_a_feed_is_encoded(source):
    data = encode(source, "--min-count", 1)
    feed = data.tables["feed"]
    assert feed["key"].tolist() == [MISSING, 100, 101, 102, 103, 999]
    expected = {  # 103 comes on the validation day alone, and shares with others what they share
        "feedid": ["other", 100, 101, 102, "other", "other"],
        "authorid": [None, 7, 8, 7, 7, None],
        "bgm_song_id": [None, 5, None, 4, 5, None],
        "bgm_singer_id": [None, 6, None, 6, None, None],
    }
    for name, ids in expected.items():
        assert decoded(feed[name], data.vocabularies[name]) == ids, name
    expected = {  # tag 3 is in no training row, and an item of no weight is left out
        ("manual_tag_list", "tag"): [[], [1, 2, 1], [], [2, 9], ["other"], []],
        ("machine_tag_list", "tag"): [[], [1], [], [2, 9], ["other"], []],
        ("manual_keyword_list", "keyword"): [[], [40, 41], [41], [], [], []],
        ("machine_keyword_list", "keyword"): [[], [40], [], [], [], []],
    }
    for (name, vocabulary), lists in expected.items():
        items = np.split(feed[name]["values"], feed[name]["offsets"][1:-1])
        assert [decoded(codes, data.vocabularies[vocabulary]) for codes in items] == lists, name
    logs = np.log1p([20, 60.5])  # of the feeds seen in training that have a length
    expected = (np.log1p([20, 60.5, 20]) - logs.mean()) / logs.std()
    seconds = feed["videoplayseconds"][:, 0]
    np.testing.assert_allclose(seconds[[1, 3, 4]], expected, rtol=1e-5)  # 20000 is milliseconds
    assert not seconds[[0, 2, 5]].any()
    reduced = feed["feed_embedding"]  # fitted on the feeds of training, which have mean 0
    np.testing.assert_allclose(reduced[1:4].mean(axis=0), 0, atol=1e-5)
    assert reduced[1:4, 0].std(ddof=1) == pytest.approx(1, rel=1e-4)
    assert reduced[4].any() and not reduced[[0, 5]].any()


def test_rare_ids_share_the_other_row(source):
    data = encode(source, "--min-count", 2)
    assert data.vocabularies["userid"].tolist() == [5, 9]
    assert data.vocabularies["tag"].tolist() == [1, 2, 9]  # 9 by both lists
    assert decoded(data.train["device"], data.vocabularies["device"]) == [1, 1, "other", 1, 1]


def test_the_regime_exposures_has_its_name_and_the_days_own_views(source):
    with open(source / "test_a.csv", "a") as file:
        file.write("12,999,1\n")
    daily = encode(source)
    data = encode(source, "--regime", "exposures")
    assert data.meta["name"] == daily.meta["name"] + ", regime exposures"
    more = ["user_exposures", "feed_exposures", "author_exposures"]
    assert list(data.meta["features"]) == list(daily.meta["features"]) + more
    views = data.tables["feed"]["feed_exposures"][:, :, 0].astype(float)
    feeds = list(data.tables["feed"]["key"])
    for day, feed, others in ((2, 100, 1), (2, 102, 0), (3, 103, 0), (4, 999, 1), (4, 100, 0)):
        expected = np.log1p(others * 10_000 / 3) / 3  # on day 4 the rows of the test are known
        assert views[day, feeds.index(feed)] == pytest.approx(expected, abs=2e-3)
    final = encode(source, "--regime", "exposures", "--final")  # as the contest's last step
    np.testing.assert_array_equal(final.tables["feed"]["feed_exposures"][:, :, 0], views)
    early = encode(source, "--regime", "exposures", "--valid-day", 2)  # day 3 is not there then
    last = early.tables["feed"]["feed_exposures"][-2:]
    np.testing.assert_array_equal(last[0], last[1])
    with pytest.raises(InputError, match="--regime"):
        encode(source, "--regime", "weekly")


def test_valid_day_splits_and_leaves_later_days_out(source):
    data = encode(source, "--valid-day", 2)
    assert data.train["day"].tolist() == [1, 1] and data.valid["day"].tolist() == [2, 2, 2]
    assert data.meta["valid_day"] == 2 and "test_a" not in data.unlabelled
    assert encode(source).unlabelled["test_a"]["day"].tolist() == [4, 4]
    assert data.tables["user"]["user_history"].shape[0] == 4  # days 0..3
    log = pd.read_csv(source / "user_action.csv")
    log.loc[log.date_ == 3, "play"] += 5
    log.loc[log.date_ == 3, "device"] = 7
    log.loc[log.date_ == 3, ACTIONS] = 1 - log[list(ACTIONS)]
    assert encode(source, "--valid-day", 2, log=log).meta["stamp"] == data.meta["stamp"]


@pytest.mark.parametrize("seed", range(4))
def test_days_may_have_any_numbers_that_rise(source, seed):
    rng = np.random.default_rng(seed)
    highest = (9, 999, 20210630, 2**31 - 1)[seed]
    dates = np.sort(rng.choice(highest, 3, replace=False)) + 1
    usual = encode(source)
    early = encode(source, "--valid-day", 2)
    log = pd.read_csv(source / "user_action.csv")
    log["date_"] = dates[log["date_"] - 1]
    data = encode(source, log=log)
    assert data.meta["stamp"] == usual.meta["stamp"]  # the hash of all tables and rows
    assert data.meta["valid_day"] == dates[2] and data.valid["day"].tolist() == [3] * 3
    middle = encode(source, "--valid-day", dates[1], log=log)
    assert middle.meta["stamp"] == early.meta["stamp"]


def test_more_days_than_a_table_can_hold_are_refused(source):
    log = pd.read_csv(source / "user_action.csv")
    log = pd.concat([log.assign(date_=day) for day in range(1, 1001)])
    with pytest.raises(InputError, match=r"user_action\.csv, column date_: it has 1,000 different"):
        encode(source, log=log)


@pytest.mark.parametrize("day", [1, 2, 3])
@pytest.mark.parametrize("regime", ["daily", "exposures"])
@pytest.mark.parametrize("embeddings", [True, False])
def test_labels_and_play_of_a_day_change_no_feature_of_that_day_or_before(
    source, embeddings, regime, day
):
    if not embeddings:
        (source / "feed_embeddings.csv").unlink()
    log = pd.read_csv(source / "user_action.csv")
    other = log.copy()
    other.loc[log.date_ == day, [*ACTIONS]] = 1 - log[[*ACTIONS]]
    other.loc[log.date_ == day, "play"] = 5000 + 3 * log.play
    before, after = (encode(source, "--regime", regime, log=rows) for rows in (log, other))
    assert embeddings == ("feed_embedding" in before.meta["features"])
    assert embeddings or {"user_cooccurrence", "feed_cooccurrence"} <= set(before.features)
    moved = {}
    for key, table in before.tables.items():
        for name, column in table.items():
            again = after.tables[key][name]
            if name.endswith(("_history", "_watch_time", "_taste")):
                changed = (column != again).reshape(len(column), -1).any(axis=1)
                assert not changed[: day + 1].any(), name
                moved[name] = changed[day + 1 :].any()
            elif not isinstance(column, dict):
                np.testing.assert_array_equal(column, again)
    assert len(moved) == 6 + embeddings and all(moved.values()), moved


@pytest.mark.parametrize("day", [1, 9])
def test_a_validation_day_without_rows_on_it_or_before_is_one_sentence(source, day):
    stamp = encode(source).meta["stamp"]
    words = (source, "--out", "out", "--valid-day", day)
    run = script("get_data.py", *words, cwd=source.parent, check=False)
    assert_one_sentence(run, "user_action.csv: ", "another --valid-day")
    assert load(source.parent / "out").meta["stamp"] == stamp
    with pytest.raises(InputError, match="--min-count takes"):
        encode(source, "--min-count", -1)


def test_same_data_same_stamp_other_data_other_stamp(source):
    stamps = {encode(source).meta["stamp"], encode(source).meta["stamp"]}
    stamps |= {read(path)["stamp"] for path in (source.parent / "out").iterdir()}
    assert len(stamps) == 1
    for name, old, new in (
        ("user_action.csv", "9,100,3,2,1", "9,100,3,2,0"),
        ("feed_info.csv", "1;2;1", "1;2;2"),
        ("test_a.csv", "9,100", "77,100"),
    ):
        (source / name).write_text(FILES[name].replace(old, new))
        stamps.add(encode(source).meta["stamp"])
    assert len(stamps) == 4


def test_tests_play_and_some_actions_may_be_absent(source):
    (source / "test_a.csv").unlink()
    log = pd.read_csv(source / "user_action.csv").drop(columns=["favorite", "forward", "play"])
    data = encode(source, log=log)
    assert "test_a" not in data.unlabelled and not any("watch_time" in n for n in data.features)
    actions = [*data.meta["tasks"], *data.meta["more_tasks"]]
    assert actions == ["read_comment", "like", "click_avatar", "comment", "follow"]
    assert data.meta["features"]["user_taste"]["columns"] == [*actions, "views"]
    assert data.tables["user"]["user_taste"].shape[2] == 6


def test_a_log_needs_a_task_and_embeddings_feeds_that_were_seen(source):
    log = pd.read_csv(source / "user_action.csv")
    text = (source / "feed_embeddings.csv").read_text()
    (source / "feed_embeddings.csv").write_text(re.sub(r"\n1(\d\d),", r"\n5\1,", text))
    data = encode(source, log=log)
    assert "feed_embedding" not in data.features and "user_cooccurrence" in data.features
    assert all(column.size for column in data.tables["user"].values() if hasattr(column, "size"))
    with pytest.raises(InputError, match="no column of read_comment, like, click_avatar, forward"):
        encode(source, log=log.drop(columns=["read_comment", "like", "click_avatar", "forward"]))


def test_it_prints_what_it_read_and_made_and_keeps_a_feed_that_feed_info_lacks(source, capsys):
    (source / "feed_info.csv").write_text(re.sub("\n101,.*", "", FILES["feed_info.csv"]))
    feed = encode(source, "--min-count", 1).tables["feed"]
    assert feed["key"][2] == 101 and feed["feedid"][2] >= FIRST
    assert feed["authorid"][2] == PADDING and feed["feed_embedding"][2].any()
    printed = capsys.readouterr().out
    parts = ["8 rows, days 1..3", "3 feeds", "2 rows", "4 feeds, 8 numbers each", "userid 2"]
    parts += ["4 users, 5 feeds", "5, days 1..2", "3, day 3", "tag 3", "read_comment 40.000%"]
    parts += ["1 rows of feeds that feed_info.csv lacks"]
    assert not [part for part in parts if part not in printed]


def test_bars_in_a_terminal_none_in_a_pipe_and_silence_if_quiet(tiny, tmp_path):
    code, out, shown = in_terminal("get_data.py", tiny, "--out", "shown", cwd=tmp_path)
    assert code == 0 and "done in" in out
    stages = [f"reading {name}.csv" for name in ("user_action", "feed_info", "feed_embeddings")]
    for stage in (*stages, "parsing manual_tag_list", "making features"):
        assert re.search(rf"\r  {stage}: +\d+%\|", shown), stage
    piped = script("get_data.py", tiny, "--out", "piped", cwd=tmp_path)
    assert piped.stderr == "" and "%|" not in piped.stdout and "done in" in piped.stdout
    assert in_terminal("get_data.py", tiny, "--quiet", cwd=tmp_path) == (0, "", "")
    assert load(tmp_path / "user_data").meta["stamp"] == load(tmp_path / "shown").meta["stamp"]


def test_with_nothing_in_data_it_makes_the_stand_in_and_says_so(tmp_path):
    shutil.copytree(ROOT / "common", tmp_path / "common")
    (tmp_path / "data").mkdir()
    for path in (ROOT / "get_data.py", *(ROOT / "data").glob("*.py")):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    printed = script(tmp_path / "get_data.py", cwd=tmp_path).stdout
    assert "SYNTHETIC stand-in" in printed.splitlines()[0]
    assert (tmp_path / "data" / "sample" / "source.json").exists()
    data = load(tmp_path / "user_data")
    assert data.meta["synthetic"] and 600_000 < len(data.train["user"]) < 700_000


def test_help_loads_no_library_that_is_slow_and_get_data_never_loads_tensorflow(tiny, tmp_path):
    code = f"import atexit, sys; sys.path.insert(0, {str(ROOT)!r}); import get_data; "
    code += "atexit.register(lambda: print(*sys.modules)); get_data.main()"
    (tmp_path / "probe.py").write_text(code)
    help_text = script(tmp_path / "probe.py", "--help", cwd=tmp_path).stdout
    printed = script(tmp_path / "probe.py", tiny, cwd=tmp_path).stdout
    assert "--valid-day" in help_text and "scipy" in printed.split()
    learning = {"tensorflow", "keras", "matplotlib"}
    assert not learning & set(printed.split())
    assert not {*learning, "pandas", "sklearn", "scipy"} & set(help_text.split())


def test_the_stand_in_keeps_the_true_probabilities_of_the_validation_day(tiny, tiny_made):
    data = load(tiny_made)
    log = pd.read_csv(tiny / "user_action.csv")
    truth = np.load(tiny / "true_probability.npy")[log.date_ == 14]
    for column, action in enumerate(ACTIONS):
        np.testing.assert_array_equal(data.valid[f"true_{action}"], truth[:, column])
