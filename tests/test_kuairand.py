"""data/kuairand.py on a hand-made KuaiRand-Pure, on wrong input, and on the real one where it is at hand.

The real one is the folder that the environment variable KUAIRAND names, or else `data/KuaiRand-Pure/data`.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from data import kuairand

PLACE = Path(os.environ.get("KUAIRAND") or ROOT / "data" / "KuaiRand-Pure" / "data")
REAL = [PLACE] if PLACE.is_dir() else []

EARLY, LATE = "log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
FILES = {
    EARLY: LOG_HEADER
    + "7,0,20220429,900,1651194000000,1,1,0,0,0,0,1,9000,5000,0,0,0,0,1\n"  # user 7 before user 2: rows get sorted
    + "2,1,20220429,800,1651190400000,0,0,0,0,0,1,0,0,0,0,0,0,0,0\n",  # tab 0
    LATE: LOG_HEADER
    + "2,99,20220502,900,1651453200000,1,0,1,0,0,0,1,4000,8000,7000,0,1,0,6\n"  # unknown video; later than the next line
    + "2,0,20220502,800,1651449600000,1,0,0,1,1,0,0,3000,5000,0,6500,0,0,14\n"  # longer in the comments than playing
    + "2,0,20220502,800,1651449600000,1,0,0,1,1,0,0,3000,5000,0,6500,0,0,14\n"  # the same again: dropped
    + "7,1,20220502,900,1651453200001,0,0,0,0,0,0,0,20000,0,0,1,0,0,1\n"
    + "7,1,20220502,1000,1651453200001,0,0,0,0,0,0,0,20000,0,0,1,0,0,1\n",  # another hourmin, the same impression: dropped too
    VIDEOS: "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    "music_id,music_type,tag\n"
    + '0,500,NORMAL,2022-04-10,Web,0.0,5001.0,720.0,1280.0,9155697141,9.0,"20,43"\n'
    + "1,8733983,NORMAL,2022-04-10,Web,0.0,,720.0,1280.0,0,,39\n"
    + "2,500,AD,2022-04-10,Web,0.0,0,720.0,1280.0,,,\n"
    + '3,0,NORMAL,2022-04-10,Web,0.0,60000.0,720.0,1280.0,412,4.0,"7,1,3"\n'
    + "4,0,NORMAL,2022-04-10,Web,0.0,999.0,720.0,1280.0,9155697141,9.0,5\n",
}
USER_ACTION = "userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow\n"
FEED_INFO = (
    "feedid,authorid,videoplayseconds,description,ocr,asr,bgm_song_id,bgm_singer_id,manual_keyword_list,"
    "machine_keyword_list,manual_tag_list,machine_tag_list,description_char,ocr_char,asr_char\n"
    "0,500,5.001,,,,1,,,,20;43,,,,\n"
    "1,8733983,,,,,,,,,39,,,,\n"
    "2,500,,,,,,,,,,,,,\n"
    "3,0,60.0,,,,0,,,,7;1;3,,,,\n"
    "4,0,0.999,,,,1,,,,5,,,,\n"
)


@pytest.fixture
def convert(capsys):
    """Runs the script's main on source and out: exit code, stdout, stderr."""

    def run(source, out):
        code = kuairand.main([str(source), str(out)])
        return subprocess.CompletedProcess([], code, *capsys.readouterr())

    return run


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "KuaiRand-Pure" / "data"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def test_both_logs_by_command(source, tmp_path):
    command = [sys.executable, ROOT / "data" / "kuairand.py", source, tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0 and run.stderr == ""
    assert contents(tmp_path / "out") == {
        "user_action.csv": USER_ACTION
        + "2,1,1,0,0,0,0,0,0,0,0,0\n"
        + "2,0,4,14,1,1,0,3000,6500,0,1,0\n"
        + "2,99,4,6,0,0,0,4000,4000,1,0,1\n"
        + "7,0,1,1,0,0,1,9000,9000,0,0,0\n"
        + "7,1,4,1,1,0,0,20000,20000,0,0,0\n",
        "feed_info.csv": FEED_INFO,
        "source.json": '{"name": "KuaiRand-Pure"}\n',
    }
    lines = run.stdout.splitlines()
    assert len(lines) == 8
    assert f"{LATE}: 5 rows, 2 repeated impressions dropped" in run.stdout
    assert f"1 rows of 1 videos that {VIDEOS} lacks" in run.stdout
    assert "user_action.csv: 5 rows, 2 users, 3 feeds, days 1..4 from 2022-04-29" in run.stdout
    assert "feed_info.csv: 5 feeds, 3 authors, 2 songs, 4 feeds with tags" in run.stdout
    assert lines[-1] == (
        "positive rates: read_comment 40.000%, like 20.000%, click_avatar 20.000%, forward 20.000%, comment 20.000%, "
        "follow 20.000%"
    )


@pytest.mark.parametrize("missing, days", [(EARLY, [1, 1, 1]), (LATE, [1, 1])])
def test_one_log_alone(convert, source, tmp_path, missing, days):
    (source / missing).unlink()
    run = convert(source, tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert pd.read_csv(tmp_path / "out" / "user_action.csv")["date_"].tolist() == days
    assert (tmp_path / "out" / "feed_info.csv").read_text() == FEED_INFO


def test_again_into_the_same_folder(convert, source, tmp_path):
    out = tmp_path / "out"
    convert(source, out)
    first = contents(out)
    (source / EARLY).unlink()
    assert convert(source, out).returncode == 0
    assert contents(out)["user_action.csv"] != first["user_action.csv"] and contents(out).keys() == first.keys()


def edit(name, old, new):
    def change(source):
        text = (source / name).read_text()
        assert old in text
        (source / name).write_text(text.replace(old, new, 1))
    return change


WRONG = {  # what is wrong with the source: the change that makes it so, and what the sentence must name
    "no logs": (lambda source: [(source / name).unlink() for name in (EARLY, LATE)], [EARLY, LATE, "SOURCE"]),
    "no video file": (lambda source: (source / VIDEOS).unlink(), [VIDEOS, "SOURCE"]),
    "no column of the log": (edit(LATE, "comment_stay_time", "stay"), [LATE, "column comment_stay_time"]),
    "no column of the video file": (edit(VIDEOS, "tag\n", "tags\n"), [VIDEOS, "column tag"]),
    "a word for a number": (edit(LATE, ",0,14\n", ",0,home\n"), [LATE, "column tab, line 3", "'home'"]),
    "an empty number": (edit(EARLY, "7,0,", "7,,"), [EARLY, "column video_id, line 2", "nothing"]),
    "a negative tab": (edit(EARLY, ",0,0\n", ",0,-1\n"), [EARLY, "column tab, line 3", "'-1'"]),
    "a fraction": (edit(EARLY, ",9000,", ",9000.5,"), [EARLY, "column play_time_ms, line 2", "'9000.5'"]),
    "a time that get_data.py refuses": (edit(EARLY, ",9000,", ",2147483648,"), [EARLY, "column play_time_ms, line 2", "'2147483648'", "0..2147483647"]),
    "a label of 2": (edit(EARLY, ",1,1,0,", ",1,2,0,"), [EARLY, "column is_like, line 2", "0..1"]),
    "no such date": (edit(EARLY, "20220429", "20220431"), [EARLY, "column date, line 2", "'20220431'"]),
    "a word for a duration": (edit(VIDEOS, "5001.0", "long"), [VIDEOS, "column video_duration, line 2", "'long'"]),
    "a word among the tags": (edit(VIDEOS, "20,43", "20,cats"), [VIDEOS, "column tag, line 2", "'20,cats'"]),
    "a log without rows": (lambda source: (source / LATE).write_text(LOG_HEADER), [LATE, "no rows"]),
    "an empty file": (lambda source: (source / LATE).write_text(""), [LATE, "cannot be parsed"]),
    "not text": (lambda source: (source / VIDEOS).write_bytes(b"\x1f\x8b\xff\xfe\n" * 9), [VIDEOS, "cannot be parsed"]),
}


def check_refusal(run, names):
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("kuairand.py: ") and run.stderr.endswith(".\n")
    assert "Traceback" not in run.stderr
    for name in names:
        assert name in run.stderr


@pytest.mark.parametrize("change, names", WRONG.values(), ids=WRONG)
def test_wrong_source(convert, source, tmp_path, change, names):
    out = tmp_path / "out"
    convert(source, out)
    before = contents(out)
    change(source)
    check_refusal(convert(source, out), names)
    assert contents(out) == before
    check_refusal(convert(source, tmp_path / "new"), names)
    assert not (tmp_path / "new").exists()


def test_wrong_source_by_command(tmp_path):
    command = [sys.executable, ROOT / "data" / "kuairand.py", "nowhere", "out"]
    check_refusal(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path), ["nowhere"])


def test_no_source(convert, tmp_path):
    check_refusal(convert(tmp_path / "nowhere", tmp_path / "out"), ["nowhere", "SOURCE"])
    assert not (tmp_path / "out").exists()


def test_another_data_set_in_out_is_not_overwritten(convert, source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "user_action.csv").write_text("precious\n")
    check_refusal(convert(source, out), ["user_action.csv", "another data set", "OUT"])
    assert contents(out) == {"user_action.csv": "precious\n"}


def test_quiet_prints_nothing(source, tmp_path, capsys):
    assert kuairand.main([str(source), str(tmp_path / "out"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "") and (tmp_path / "out" / "user_action.csv").exists()


@pytest.mark.parametrize("stage", ["read_log", "feed_info", "write"])
def test_ctrl_c_is_one_sentence_and_leaves_what_was_there(convert, source, tmp_path, monkeypatch, stage):
    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    convert(source, out)
    before = contents(out)
    monkeypatch.setattr(kuairand, stage, stop)
    run = convert(source, out)
    assert (run.returncode, run.stderr) == (130, f"kuairand.py: interrupted: what was in {out} before is untouched.\n")
    assert contents(out) == before


def test_out_that_is_a_file(convert, source, tmp_path):
    (tmp_path / "out").write_text("precious\n")
    check_refusal(convert(source, tmp_path / "out"), [str(tmp_path / "out")])
    assert (tmp_path / "out").read_text() == "precious\n"


@pytest.mark.parametrize("folder", REAL)
def test_real_data(convert, folder, tmp_path):
    out = tmp_path / "out"
    run = convert(folder, out)
    assert run.returncode == 0, run.stderr
    log, feeds = pd.read_csv(out / "user_action.csv"), pd.read_csv(out / "feed_info.csv")
    assert json.loads((out / "source.json").read_text()) == {"name": "KuaiRand-Pure"}

    original = pd.concat([pd.read_csv(folder / name) for name in (EARLY, LATE) if (folder / name).exists()])
    unique = original.drop_duplicates(["user_id", "video_id", "time_ms"])
    assert len(log) == len(unique) < len(original)
    assert set(log["date_"]) <= set(range(1, log["date_"].max() + 1)) and log["date_"].min() == 1
    assert log.groupby("date_").size().tolist() == unique.groupby("date").size().tolist()
    assert log["userid"].is_monotonic_increasing and log.min().min() >= 0 and (log["stay"] >= log["play"]).all()

    assert len(feeds) == 7583 and feeds["feedid"].is_unique
    assert feeds["videoplayseconds"].min() > 0 and (feeds["videoplayseconds"].isna()).sum() == 239
    assert feeds["bgm_song_id"].min() == 0 and feeds["bgm_song_id"].max() == feeds["bgm_song_id"].nunique() - 1
    assert feeds[["authorid", "bgm_song_id"]].max().max() < 2**31
    assert feeds["manual_tag_list"].dropna().str.fullmatch(r"\d+(;\d+)*").all()

    if len(original) == 212_582:  # the 13 days from 25 April to 7 May 2022, whose rates are known
        assert "212,582 rows, 5,608 repeated impressions dropped" in run.stdout and log["date_"].max() == 13
        known = {"read_comment": .044, "click_avatar": .019, "like": .017, "comment": .0025, "follow": .0013,
                 "forward": .00085}
        for action, rate in known.items():
            assert log[action].mean() == pytest.approx(rate, rel=.05), action
