"""get_data.py on data whose answer is known: splits, codes, what depends on which day, and what a
user sees of it.
"""

import os
import re
import shutil
import subprocess
import sys

import get_data
from common.columns import ACTIONS, FEED_INFO
from common.command import InputError
from common.contract import load
from common.csvs import MISSING
from common.pickles import FIRST, OTHER, PADDING, read

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_one_sentence, in_terminal, script

USER_ACTION = """userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,favorite
5,100,1,1,1,0,0,12000,13000,0,0,0,0
5,101,1,1,0,0,1,3000,20,0,0,0,0
5,100,2,2,0,0,0,500,20,0,0,0,0
9,100,2,1,1,0,0,60000,90000,0,0,0,0
9,102,2,1,0,0,0,0,20,1,0,0,0
5,102,3,1,0,0,0,25000,25000,0,1,0,0
9,100,3,2,1,0,0,800,900,0,0,0,0
12,103,3,1,0,0,1,10,20,0,0,0,0
"""  # noqa: E501
FEEDS = f"""{",".join(FEED_INFO)}
103,7,20000,1 2,,,5.0,,,,3,3 0.9;8 0.00000011,,,
100,7,20,,,,5.0,6.0,40;41,40,1;2;1,1 0.8,,,
101,8,,,,,,,41,,,,,,
102,7,60,,,,4.0,6.0,,,2;9,2 0.5;9 0.4,,,
"""
VECTORS = np.cos(np.outer([100, 101, 102, 103], np.arange(8)))
EMBEDDINGS = "feedid,feed_embedding\n" + "".join(
    f"{feed},{' '.join(f'{v:.8f}' for v in vector)} \n"
    for feed, vector in enumerate(VECTORS, start=100)
)
FILES = {
    "user_action.csv": USER_ACTION,
    "feed_info.csv": FEEDS,
    "feed_embeddings.csv": EMBEDDINGS,
    "test_a.csv": "userid,feedid,device\n9,100,1\n77,999,2\n",
}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "csv"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def encode(source, *flags):
    """The Data that get_data.py makes of a source, in the folder `out` beside it."""
    out = source.parent / "out"
    get_data.main([str(source), "--out", str(out), *map(str, flags)])
    return load(out)


def change_log(source, change):
    """Rewrite user_action.csv as `change` leaves the DataFrame that it is given."""
    log = pd.read_csv(source / "user_action.csv")
    change(log)
    log.to_csv(source / "user_action.csv", index=False)


def row_numbers(table):
    """{raw id: row} of a table."""
    return {raw: row for row, raw in enumerate(table["key"].tolist())}


def decoded(codes, known):
    """The raw ids of codes, None for PADDING and "other" for OTHER."""
    return [[None, "other", *known.tolist()][code] for code in codes.tolist()]


# ---- rows and codes


def test_rows_days_and_labels_stay_as_they_are_in_the_csv(source):
    data = encode(source, "--min-count", 1)
    log = pd.read_csv(source / "user_action.csv")
    for rows, csv in ((data.train, log[log.date_ < 3]), (data.valid, log[log.date_ == 3])):
        assert data.tables["user"]["key"][rows["user"]].tolist() == csv.userid.tolist()
        assert data.tables["feed"]["key"][rows["feed"]].tolist() == csv.feedid.tolist()
        assert rows["day"].tolist() == csv.date_.tolist()
        assert decoded(rows["device"], data.vocabulary("device")) == csv.device.tolist()
        for action in ACTIONS:
            assert rows[action].tolist() == csv[action].tolist()
        assert set(rows) == {"user", "feed", "day", "device", *ACTIONS}
    assert data.meta["tasks"] == {"read_comment": 4, "like": 3, "click_avatar": 2, "forward": 1}
    assert data.meta["more_tasks"] == {"favorite": 1, "comment": 1, "follow": 1}


def test_meta_describes_every_feature_in_order(source):
    data = encode(source)
    described = data.meta["features"]
    lists = ["manual_tag_list", "machine_tag_list", "manual_keyword_list", "machine_keyword_list"]
    names = ["userid", "device", "feedid", "authorid", "bgm_song_id", "bgm_singer_id", *lists]
    names += ["videoplayseconds", "feed_embedding"]
    names += ["user_history", "feed_history", "author_history"]
    names += ["user_watch_time", "feed_watch_time", "author_watch_time", "user_taste"]
    assert [*described] == names
    optional = {"machine_tag_list", "machine_keyword_list", "videoplayseconds", "feed_embedding"}
    assert set(names) - set(data.features) == optional
    assert described["device"] == {"kind": "id", "table": None, "vocabulary": "device"}
    assert described["machine_tag_list"] == {
        "kind": "list",
        "table": "feed",
        "vocabulary": "tag",
        "default": False,
    }
    assert described["user_taste"] == {
        "kind": "dot",
        "table": "user",
        "daily": True,
        "with": "feed_embedding",
        "columns": [*ACTIONS, "watch_time", "views"],
    }


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
        assert decoded(feed[name], data.vocabulary(name)) == ids, name
    expected = {  # tag 3 is in no training row, and an item of no weight is left out
        ("manual_tag_list", "tag"): [[], [1, 2, 1], [], [2, 9], ["other"], []],
        ("machine_tag_list", "tag"): [[], [1], [], [2, 9], ["other"], []],
        ("manual_keyword_list", "keyword"): [[], [40, 41], [41], [], [], []],
        ("machine_keyword_list", "keyword"): [[], [40], [], [], [], []],
    }
    for (name, vocabulary), lists in expected.items():
        items = np.split(feed[name]["values"], feed[name]["offsets"][1:-1])
        assert [decoded(codes, data.vocabulary(vocabulary)) for codes in items] == lists, name
    logs = np.log1p([20, 60])  # of the feeds seen in training that have a length
    expected = (np.log1p([20, 60, 20]) - logs.mean()) / logs.std()
    seconds = feed["videoplayseconds"][:, 0]
    np.testing.assert_allclose(seconds[[1, 3, 4]], expected, rtol=1e-5)  # 20000 is milliseconds
    assert not seconds[[0, 2, 5]].any()


def test_rare_ids_share_the_other_row(source):
    data = encode(source, "--min-count", 2)
    assert data.vocabulary("userid").tolist() == [5, 9]
    assert data.vocabulary("feedid").tolist() == [100]
    assert data.vocabulary("tag").tolist() == [1, 2, 9]  # 9 by both lists
    assert data.meta["vocabularies"]["tag"] == 3 + FIRST
    assert decoded(data.train["device"], data.vocabulary("device")) == [1, 1, "other", 1, 1]


def test_pca_keeps_the_distances_of_training_feeds_and_projects_the_others(source):
    reduced = encode(source).tables["feed"]["feed_embedding"]

    def ratio(vectors):
        first, second, third = vectors
        return np.linalg.norm(first - second) / np.linalg.norm(first - third)

    assert ratio(reduced[1:4]) == pytest.approx(ratio(VECTORS[:3]), rel=1e-4)
    np.testing.assert_allclose(reduced[1:4].mean(axis=0), 0, atol=1e-5)
    assert reduced[1:4, 0].std(ddof=1) == pytest.approx(1, rel=1e-4)
    assert reduced[4].any() and not reduced[[0, 5]].any()  # 103 is there, 999 has no embedding


def test_test_rows_keep_their_order_and_unknown_ids_have_rows(source):
    data = encode(source)
    rows = data.test("test_a")
    assert data.tables["user"]["key"][rows["user"]].tolist() == [9, 77]
    assert data.tables["feed"]["key"][rows["feed"]].tolist() == [100, 999]
    assert rows["day"].tolist() == [4, 4]
    assert data.tables["user"]["userid"][rows["user"][1]] == OTHER
    assert data.test("test_b") is None


# ---- days


def test_valid_day_splits_and_leaves_later_days_out(source):
    data = encode(source, "--valid-day", 2)
    assert data.train["day"].tolist() == [1, 1] and data.valid["day"].tolist() == [2, 2, 2]
    assert data.meta["valid_day"] == 2 and data.test("test_a")["day"].tolist() == [3, 3]
    assert data.tables["user"]["user_history"].shape[0] == 4  # days 0..3, the last of the test

    def change(log):
        late = log.date_ == 3
        log.loc[late, [*ACTIONS, "play"]] = 1 - log.loc[late, [*ACTIONS, "play"]].clip(upper=1)

    change_log(source, change)
    assert encode(source, "--valid-day", 2).meta["stamp"] == data.meta["stamp"]
    assert encode(source).meta["stamp"] != data.meta["stamp"]


@pytest.mark.parametrize("day", [1, 2, 3])
def test_labels_and_play_of_a_day_change_no_feature_of_that_day_or_before(source, day):
    def change(log):
        today = log.date_ == day
        log.loc[today, list(ACTIONS)] = 1 - log.loc[today, list(ACTIONS)]
        log.loc[today, "play"] = 5000 + 3 * log.loc[today, "play"]

    before = encode(source).tables
    change_log(source, change)
    after = encode(source).tables
    moved = {}
    for key, table in before.items():
        for name, column in table.items():
            if name.endswith(("_history", "_watch_time", "_taste")):
                other = after[key][name]
                np.testing.assert_array_equal(column[: day + 1], other[: day + 1])
                moved[name] = bool((column[day + 1 :] != other[day + 1 :]).any())
            elif not isinstance(column, dict):
                np.testing.assert_array_equal(column, after[key][name])
    assert len(moved) == 7 and all(moved.values()), moved


@pytest.mark.parametrize("day, lines", [(9, None), (1, None), (None, 3)])
def test_a_validation_day_without_rows_on_it_or_before_is_refused(source, day, lines):
    encode(source)
    out = source.parent / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (source / "user_action.csv").write_text("\n".join(USER_ACTION.splitlines()[:lines]))
    flags = [] if day is None else ["--valid-day", day]
    with pytest.raises(InputError, match=r"user_action.csv: .* choose another --valid-day"):
        encode(source, *flags)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# ---- what may be absent


def test_same_data_same_stamp_other_data_other_stamp(source):
    first = encode(source).meta["stamp"]
    assert encode(source).meta["stamp"] == first
    stamps = {read(path)["stamp"] for path in (source.parent / "out").iterdir()}
    assert stamps == {first}
    for name, old, new in [
        ("user_action.csv", "9,100,3,2,1", "9,100,3,2,0"),
        ("feed_info.csv", "7,60", "7,61"),
        ("test_a.csv", "77,999,2", "77,999,1"),
    ]:
        (source / name).write_text(FILES[name].replace(old, new))
        stamps.add(encode(source).meta["stamp"])
    assert len(stamps) == 4


def test_without_embeddings_there_is_cooccurrence_and_no_taste(source):
    (source / "feed_embeddings.csv").unlink()
    data = encode(source)
    names = set(data.features)
    assert {"user_cooccurrence", "feed_cooccurrence"} <= names
    assert not {"user_taste", "feed_embedding"} & set(data.meta["features"])
    users = data.tables["user"]["user_cooccurrence"]
    feeds = data.tables["feed"]["feed_cooccurrence"]
    user = row_numbers(data.tables["user"])
    feed = row_numbers(data.tables["feed"])
    assert users[user[5]].any() and not users[user[12]].any()  # 12 comes on the validation day
    assert feeds[feed[102]].any() and not feeds[feed[103]].any()


def test_tests_play_and_some_actions_may_be_absent(source):
    (source / "test_a.csv").unlink()
    change_log(source, lambda log: log.drop(columns=["favorite", "forward", "play"], inplace=True))
    data = encode(source)
    assert data.test("test_a") is None
    assert [*data.meta["tasks"]] == ["read_comment", "like", "click_avatar"]
    assert [*data.meta["more_tasks"]] == ["comment", "follow"]
    assert not any("watch_time" in name for name in data.meta["features"])
    columns = data.meta["features"]["user_taste"]["columns"]
    assert columns == ["read_comment", "like", "click_avatar", "comment", "follow", "views"]
    assert data.tables["user"]["user_taste"].shape[2] == 6


def test_a_feed_that_feed_info_lacks_is_kept_and_counted(source, capsys):
    (source / "feed_info.csv").write_text(re.sub("\n101,.*", "", FEEDS))
    data = encode(source, "--min-count", 1)
    assert "1 rows of feeds that feed_info.csv lacks" in capsys.readouterr().out
    feed = data.tables["feed"]
    row = row_numbers(feed)[101]
    assert feed["authorid"][row] == PADDING and feed["feedid"][row] >= FIRST
    assert feed["feed_embedding"][row].any()


# ---- as a user runs it


def test_it_prints_what_it_read_and_made(source, capsys):
    encode(source, "--min-count", 1)
    printed = capsys.readouterr().out
    for words in ("8 rows, days 1..3", "4 feeds", "2 rows", "4 feeds, 8 numbers each"):
        assert words in printed, words
    for words in ("4 users, 5 feeds", "5, days 1..2", "3, day 3", "userid 2", "tag 3"):
        assert words in printed, words
    assert "read_comment 40.000%" in printed
    encode(source, "--quiet")
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_one_sentence(source, tmp_path):
    run = script("get_data.py", source, "--valid-day", 9, cwd=tmp_path, check=False)
    assert_one_sentence(run, "user_action.csv", "another --valid-day")
    assert not (tmp_path / "user_data").exists()
    with pytest.raises(InputError, match="--min-count takes"):
        encode(source, "--min-count", -1)
    with pytest.raises(InputError, match=r"--valid-dya .* --valid-day"):
        encode(source, "--valid-dya", 2)


def test_bars_in_a_terminal_none_in_a_pipe_and_silence_if_quiet(tiny, tmp_path):
    code, out, shown = in_terminal("get_data.py", tiny, "--out", "shown", cwd=tmp_path)
    assert code == 0 and "done in" in out
    stages = [f"reading {name}.csv" for name in ("user_action", "feed_info", "feed_embeddings")]
    for stage in (*stages, "parsing manual_tag_list", "history by day", "tastes by day"):
        assert re.search(rf"\r  {stage}: +\d+%\|", shown), stage
    piped = script("get_data.py", tiny, "--out", "piped", cwd=tmp_path)
    assert piped.stderr == "" and "\r" not in piped.stdout and "done in" in piped.stdout
    quiet = in_terminal("get_data.py", tiny, "--out", "quiet", "--quiet", cwd=tmp_path)
    assert quiet == (0, "", "")
    stamps = {load(tmp_path / name).meta["stamp"] for name in ("shown", "piped", "quiet")}
    assert len(stamps) == 1


def test_ctrl_c_is_one_sentence_and_leaves_what_was_there(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "meta.pkl").write_text("precious")
    words = (tiny, "--out", "out")
    code, _, shown = in_terminal("get_data.py", *words, cwd=tmp_path, interrupt=True)
    assert code == 130 and shown.count("\n") == 1
    assert shown.endswith("\r\x1b[Kinterrupted: what was there before is untouched.\r\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["meta.pkl"]
    assert (tmp_path / "out" / "meta.pkl").read_text() == "precious"


def test_with_nothing_in_data_it_makes_the_stand_in_and_says_so(tmp_path):
    project = tmp_path / "project"
    shutil.copytree(ROOT / "common", project / "common")
    (project / "data").mkdir()
    for name in ("get_data.py", *(f"data/{p.name}" for p in (ROOT / "data").glob("*.py"))):
        shutil.copy(ROOT / name, project / name)
    words = [sys.executable, "get_data.py"]
    run = subprocess.run(words, cwd=project, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "SYNTHETIC stand-in" in run.stdout.splitlines()[0]
    assert (project / "data" / "sample" / "source.json").exists()
    data = load(project / "user_data")
    assert data.meta["synthetic"] and 600_000 < len(data.train["user"]) < 700_000


def test_help_loads_no_library_that_is_slow_and_get_data_never_loads_tensorflow(tiny, tmp_path):
    loaded = "print(*sys.modules, file=sys.stderr)"
    for flags, unwanted in (
        (["--help"], {"pandas", "sklearn", "scipy", "tensorflow", "keras", "matplotlib"}),
        ([str(tiny)], {"tensorflow", "keras", "matplotlib"}),
    ):
        code = f"import atexit, sys; atexit.register(lambda: {loaded}); import get_data; "
        words = [sys.executable, "-c", f"{code}get_data.main({flags!r})"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0 and not unwanted & set(run.stderr.split()), run.stderr
    assert "SOURCE" in script("get_data.py", "--help", cwd=tmp_path).stdout


def test_the_stand_in_keeps_the_true_probabilities_of_the_validation_day(tiny, tiny_made):
    data = load(tiny_made)
    log = pd.read_csv(tiny / "user_action.csv")
    truth = np.load(tiny / "true_probability.npy")[log.date_ == 14]
    for column, action in enumerate(ACTIONS):
        np.testing.assert_array_equal(data.valid[f"true_{action}"], truth[:, column])
