"""data/kuairand.py on a hand-made KuaiRand-Pure, on wrong input, and on the real one where it is.

The real one is the folder that the environment variable KUAIRAND names.
"""

import re

import get_data
from common import blocks
from common.command import InputError
from common.contract import load
from data import kuairand

import numpy as np
import pandas as pd
import pytest
from conftest import KUAIRAND, assert_one_sentence, script

EARLY, LATE = "log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,"
    "is_comment,is_forward,is_hate,"
    "long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
FILES = {
    EARLY: LOG_HEADER
    + "7,0,20220429,900,1651194000000,1,1,0,0,1,0,1,9000,5000,0,0,0,0,1\n"  # rows get sorted
    + "2,1,20220429,800,1651190400000,0,0,0,0,0,1,0,0,0,0,0,0,0,0\n",
    LATE: LOG_HEADER
    + "2,99,20220502,900,1651453200000,1,0,1,0,0,0,1,4000,8000,7000,0,1,0,6\n"  # unknown video
    + "2,0,20220502,800,1651449600000,1,0,0,1,0,0,0,3000,5000,0,6500,0,0,14\n"
    + "2,0,20220502,800,1651449600000,1,0,0,1,0,0,0,3000,5000,0,6500,0,0,14\n"  # dropped
    + "7,1,20220502,900,1651453200001,0,0,0,0,0,0,0,20000,0,0,1,0,0,1\n"
    + "7,1,20220502,1000,1651453200001,0,0,0,0,0,0,0,20000,0,0,1,0,0,1\n",  # dropped too
    VIDEOS: "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,"
    "music_id,music_type,tag\n"
    + '0,500,NORMAL,2022-04-10,Web,0.0,5001.0,720.0,1280.0,9155697141,9.0,"20,43"\n'
    + "1,8733983,NORMAL,2022-04-10,Web,0.0,,720.0,1280.0,0,,39\n"
    + "2,500,AD,2022-04-10,Web,0.0,0,720.0,1280.0,,,\n"
    + '3,0,NORMAL,2022-04-10,Web,0.0,60000.0,720.0,1280.0,412,4.0,"7,1,3"\n'
    + "4,0,NORMAL,2022-04-10,Web,0.0,999.0,720.0,1280.0,9155697141,9.0,5\n",
}
USER_ACTION = (
    "userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,"
    "click,long_view\n"
)
FEED_INFO = (
    "feedid,authorid,videoplayseconds,description,ocr,asr,bgm_song_id,"
    "bgm_singer_id,manual_keyword_list,"
    "machine_keyword_list,manual_tag_list,machine_tag_list,description_char,ocr_char,asr_char\n"
    "0,500,5.001,,,,1,,,,20;43,,,,\n"
    "1,8733983,,,,,,,,,39,,,,\n"
    "2,500,,,,,,,,,,,,,\n"
    "3,0,60.0,,,,0,,,,7;1;3,,,,\n"
    "4,0,0.999,,,,1,,,,5,,,,\n"
)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "KuaiRand-Pure" / "data"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def convert(source, out):
    kuairand.main([str(source), str(out)])
    return contents(out)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_both_logs_by_command(source, tmp_path):
    run = script("data/kuairand.py", source, "out", cwd=tmp_path)
    assert run.stderr == ""
    assert contents(tmp_path / "out") == {
        "user_action.csv": USER_ACTION
        + "2,1,1,0,0,0,0,0,0,0,0,0,0,0\n"
        + "2,0,4,14,1,1,0,3000,6500,0,0,0,1,0\n"
        + "2,99,4,6,0,0,0,4000,4000,1,0,1,1,1\n"
        + "7,0,1,1,0,0,1,9000,9000,0,1,0,1,1\n"
        + "7,1,4,1,1,0,0,20000,20000,0,0,0,0,0\n",
        "feed_info.csv": FEED_INFO,
        "source.json": '{"name": "KuaiRand-Pure, 2022-04-29 to 2022-05-02"}\n',
    }
    for told in (
        f"{LATE}: 5 rows, 2 repeated impressions dropped\n",
        "1 rows of 1 videos that the video file lacks: kept\n",
        "user_action.csv: 5 rows, 2 users, 3 feeds\n",
        f"{VIDEOS}: 5 videos\n",
        "positive rates: read_comment 40.000%, like 20.000%, click_avatar 20.000%, "
        "forward 20.000%, comment 20.000%, follow 20.000%\n",
    ):
        assert told in run.stdout
    assert script("data/kuairand.py", source, "quiet", "--quiet", cwd=tmp_path).stdout == ""
    assert contents(tmp_path / "quiet") == contents(tmp_path / "out")
    assert_one_sentence(script("data/kuairand.py", "no", "out", cwd=tmp_path, check=False), "no")


WRONG = [  # a file, what is changed in it, and what the sentence must name
    (LATE, "comment_stay_time", "stay", "column comment_stay_time"),
    (VIDEOS, "tag\n", "tags\n", "column 'tags' of the header is nearly tag"),
    (LATE, ",0,14\n", ",0,home\n", "line 3, column tab: 'home'"),
    (EARLY, "7,0,", "7,,", "line 2, column video_id: nothing"),
    (EARLY, ",0,0\n", ",0,-1\n", "line 3, column tab: '-1'"),
    (EARLY, ",9000,", ",9000.5,", "line 2, column play_time_ms: '9000.5'"),
    (EARLY, ",9000,", ",2147483648,", "line 2, column play_time_ms: '2147483648' is not a whole"),
    (EARLY, ",1,1,0,", ",1,2,0,", "line 2, column is_like: '2' is not a whole number in 0..1"),
    (EARLY, "20220429", "20220431", "line 2, column date: 20220431 is not a date"),
    (EARLY, "1651194000000", "9" * 17, "line 2, column time_ms: '99999999999999999'"),
    (VIDEOS, "5001.0", "long", "line 2, column video_duration: 'long'"),
    (VIDEOS, "5001.0", "-1", "line 2, column video_duration: "),
    (VIDEOS, "9155697141", "0.5", "line 2, column music_id: "),
    (VIDEOS, "20,43", "20,cats", "line 2, column tag: '20,cats'"),
    (VIDEOS, "\n1,", "\n0,", "line 3, column video_id: "),
    (LATE, "(?s)\n.*", "", "has no rows"),
    (LATE, "(?s).*", "", "column user_id"),
    (VIDEOS, "(?s).*", "\x1f\ufffd\n", "column video_id"),
]


def assert_refused(source, out, *parts):
    with pytest.raises(InputError) as refused:
        kuairand.main([str(source), str(out)])
    sentence = str(refused.value)
    assert "\n" not in sentence and sentence.endswith(".")
    for part in parts:
        assert part in sentence, sentence


@pytest.mark.parametrize("name, old, new, part", WRONG)
def test_a_wrong_source_is_refused_and_what_was_there_stays(source, tmp_path, name, old, new, part):
    before = convert(source, tmp_path / "out")
    text = FILES[name]
    assert re.search(old, text)
    (source / name).write_text(re.sub(old, new, text, count=1))
    assert_refused(source, tmp_path / "out", name, part)
    assert contents(tmp_path / "out") == before
    assert_refused(source, tmp_path / "new", name, part)
    assert not (tmp_path / "new").exists()


def test_what_is_missing_or_would_be_lost_is_named(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in (*kuairand.OUTPUTS, *kuairand.OTHERS):
        (out / name).write_text("precious\n")
        assert_refused(source, out, name, "another data set", "OUT")
        assert contents(out) == {name: "precious\n"}
        (out / name).unlink()
    assert_refused(tmp_path / "nowhere", tmp_path / "new", "nowhere")
    (source / VIDEOS).unlink()
    assert_refused(source, tmp_path / "new", VIDEOS)
    for name in (VIDEOS, "video_features_basic_1k.csv"):
        (source / name).write_text(FILES[VIDEOS])
    assert_refused(source, tmp_path / "new", "video_features_basic_1k.csv", "one data set")
    for name in (EARLY, LATE, "video_features_basic_1k.csv"):
        (source / name).unlink()
    assert_refused(source, tmp_path / "new", EARLY, LATE)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "missing, flags, days, name",
    [
        (EARLY, "", [1, 1, 1], "2022-05-02 to 2022-05-02"),
        (LATE, "", [1, 1], "2022-04-29 to 2022-04-29"),
        ("", "--first-date 2022-04-30", [1, 1, 1], "2022-05-02 to 2022-05-02"),
        ("", "--last-date 20220501", [1, 1], "2022-04-29 to 2022-04-29"),
        ("", "--first-date=20220429 --last-date=2022-05-02", [1, 4, 4, 1, 4], "04-29 to 2022-05"),
    ],
)
def test_dates_cut_the_logs_and_stand_in_the_name(source, tmp_path, missing, flags, days, name):
    out = tmp_path / "out"
    both = convert(source, out)
    if missing:
        (source / missing).unlink()
    kuairand.main([str(source), str(out), *flags.split()])
    made = contents(out)
    assert made.keys() == both.keys() and made["feed_info.csv"] == FEED_INFO
    assert pd.read_csv(out / "user_action.csv")["date_"].tolist() == days
    assert name in made["source.json"]


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--first-date", "2022-04-31"], "not '2022-04-31'"),
        (["--last-date", "yesterday"], "not 'yesterday'"),
        (["--last-date", "１２"], "not '１２'"),
        (["--first-date", "20220502", "--last-date", "20220429"], "exchange them"),
        (["--first-date", "20220503"], "no row of these dates, its logs have 20220429 to 20220502"),
        (["--first-date", "20220430", "--last-date", "20220501"], "choose others"),
    ],
)
def test_wrong_dates_are_refused_and_nothing_is_written(source, tmp_path, flags, part):
    with pytest.raises(InputError, match=part):
        kuairand.main([str(source), str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


RANDOM = "log_random_4_22_to_5_08_pure.csv"


def test_the_random_log_becomes_the_test_split(source, tmp_path):
    rows = "2,3,20220502,900,1651453200009,1,1,0,0,0,0,0,50,9,0,70,0,1,2\n"
    others = [rows.replace("20220502", f"2022{day}") for day in ("0422", "0428", "0503", "0508")]
    (source / RANDOM).write_text(LOG_HEADER + "".join([*others, rows]))  # days the log lacks
    out = tmp_path / "out"
    assert convert(source, out)["test.csv"] == USER_ACTION + "2,3,4,2,1,0,1,50,70,0,0,0,1,0\n"
    get_data.main([str(out), "--out", str(tmp_path / "pickles"), "--min-count", "1", "--quiet"])
    data = load(tmp_path / "pickles")
    assert data.test["day"].tolist() == [2] and data.test["like"].tolist() == [1]
    assert data.tables["feed"]["key"][data.test["feed"]].tolist() == [3]
    assert data.tasks.keys() == {"read_comment", "like", "click_avatar", "forward"}
    assert {"click", "long_view"} <= data.meta["more_tasks"].keys()
    (source / RANDOM).unlink()
    assert "test.csv" not in convert(source, out)  # what a run before wrote of it
    get_data.main([str(out), "--out", str(tmp_path / "pickles"), "--min-count", "1", "--quiet"])
    assert load(tmp_path / "pickles").test == {}


def generated(seed):
    """2,000 random rows of a log, some of them repeated, in no order: a DataFrame."""
    rng = np.random.default_rng(seed)
    ends = {"user_id": 60, "video_id": 9, "date": 5, "time_ms": 40}
    names = LOG_HEADER.strip().split(",")
    log = pd.DataFrame({name: rng.integers(0, ends.get(name, 2), 2000) for name in names})
    # what was played tells the first of equal rows from the others
    return log.assign(date=20220420 + log["date"], play_time_ms=np.arange(2000))


@pytest.mark.parametrize("version, n_parts", [("1k", 1), ("27k", 2), ("27k", 3)])
def test_logs_in_parts_and_runs_come_out_as_one_sorted_table_would(
    version, n_parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(kuairand, "RUN", 700)  # rows
    monkeypatch.setattr(blocks, "BLOCK", 9000)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / VIDEOS.replace("pure", version)).write_text(FILES[VIDEOS])
    parts = [f"{version}_part{n}" for n in range(1, n_parts + 1)] if n_parts > 1 else [version]
    names = [log.replace("pure", part) for log in (EARLY, LATE) for part in parts]
    logs = [generated(seed) for seed in range(len(names))]
    for name, log in zip(names, logs, strict=True):
        log.to_csv(folder / name, index=False)
    kuairand.main([str(folder), str(tmp_path / "out")])
    made = pd.read_csv(tmp_path / "out" / "user_action.csv")
    whole = pd.concat(logs).drop_duplicates(["user_id", "video_id", "time_ms"])
    whole = whole.sort_values(["user_id", "time_ms"], kind="stable")
    whole["date"] -= 20220419
    wanted = whole[["user_id", "play_time_ms", "long_view", "date"]]
    np.testing.assert_array_equal(made[["userid", "play", "long_view", "date_"]], wanted)
    assert f"KuaiRand-{version.upper()}, " in (tmp_path / "out" / "source.json").read_text()
    assert not list((tmp_path / "out").glob(".*"))
    for name in names[-2:]:
        text = (folder / name).read_text()
        lines = text.splitlines()
        lines[1500] = lines[1500].replace(",2022042", ",2022049", 1)
        (folder / name).write_text("\n".join(lines))
        assert_refused(folder, tmp_path / "out", f"{name}, line 1501, column date")
        (folder / name).write_text(text)


@pytest.mark.parametrize("stage", ["chunks_of_log", "write_log", "feed_info", "beside"])
def test_ctrl_c_leaves_what_was_there(source, tmp_path, monkeypatch, stage):
    def stop(*_):
        raise KeyboardInterrupt

    before = convert(source, tmp_path / "out")
    monkeypatch.setattr(kuairand, stage, stop)
    with pytest.raises(KeyboardInterrupt):
        kuairand.main([str(source), str(tmp_path / "out")])
    assert contents(tmp_path / "out") == before


@pytest.mark.skipif(not KUAIRAND.is_dir(), reason="KUAIRAND names no folder")
def test_real_data(tmp_path, capsys):
    assert '"KuaiRand-Pure, 2022-' in convert(KUAIRAND, tmp_path)["source.json"]
    log = pd.read_csv(tmp_path / "user_action.csv")
    feeds = pd.read_csv(tmp_path / "feed_info.csv")

    paths = [KUAIRAND / name for name in (EARLY, LATE) if (KUAIRAND / name).exists()]
    every = pd.concat([pd.read_csv(path) for path in paths])
    rows = every.drop_duplicates(["user_id", "video_id", "time_ms"])
    rows = rows.sort_values(["user_id", "time_ms"], kind="stable")
    assert len(rows) < len(every)
    days = pd.to_datetime(rows["date"].astype(str), format="%Y%m%d")
    rows = rows.assign(date_=(days - days.min()).dt.days + 1)
    rows["read_comment"] = (rows["comment_stay_time"] > 0).astype(int)
    rows["stay"] = rows[["play_time_ms", "comment_stay_time"]].max(axis=1)
    names = {"user_id": "userid", "video_id": "feedid", "tab": "device", "play_time_ms": "play"}
    names |= {"is_profile_enter": "click_avatar", "is_click": "click"}
    names |= {f"is_{name}": name for name in ("like", "forward", "comment", "follow")}
    np.testing.assert_array_equal(log, rows.rename(columns=names)[[*log]])

    assert len(feeds) == 7583 and feeds["feedid"].is_unique
    assert feeds["videoplayseconds"].min() > 0 and feeds["videoplayseconds"].isna().sum() == 239
    songs = feeds["bgm_song_id"]
    assert songs.min() == 0 and songs.max() == songs.nunique() - 1
    assert feeds["manual_tag_list"].dropna().str.fullmatch(r"\d+(;\d+)*").all()
    if len(every) == 212_582:  # the 13 days from 25 April to 7 May 2022, whose rates are known
        assert "212,582 rows, 5,608 repeated impressions dropped" in capsys.readouterr().out
        rates = {"read_comment": 0.044, "click_avatar": 0.019, "like": 0.017}
        rates |= {"comment": 0.0025, "follow": 0.0013, "forward": 0.00085}
        for action, rate in rates.items():
            assert log[action].mean() == pytest.approx(rate, rel=0.05), action
