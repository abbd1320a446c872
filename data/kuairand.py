"""KuaiRand-Pure, real impressions of the short-video app Kuaishou, rewritten in the WeChat layout.

    python data/kuairand.py KUAIRAND_PURE/data OUT [--quiet]

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022,
doi 10.1145/3511808.3557624; Zenodo record 10439422; licence CC BY-SA 4.0, which holds for the rewritten files too.

`user_action.csv` comes from the standard logs, one or both, whichever are there; the random log is not used.

    userid, feedid                   user_id, video_id
    date_                            `date` in days, the first of the logs read being 1; a day without rows stays a gap
    device                           tab, the page of the app that showed the video, 0..14
    read_comment                     comment_stay_time > 0
    click_avatar                     is_profile_enter
    like, forward, comment, follow   is_like, is_forward, is_comment, is_follow; there is no favorite
    play                             play_time_ms
    stay                             the larger of play_time_ms and comment_stay_time, ms

No column logs the time on the page. The sum of the two would count twice, for a video plays on, in a loop, under its open
comments: of 540 impressions with a longer stay in the comments than the video lasts, 93 % played at least as long as that
stay. The author's profile is another page, so its time is left out. Rows are ordered by user and time_ms; of rows equal in
every column one is kept; rows of videos that the video file lacks are kept.

`feed_info.csv` comes from the video file; its other columns are empty.

    feedid, authorid                 video_id, author_id
    videoplayseconds                 video_duration / 1000; 0 becomes empty
    bgm_song_id                      music_id, which exceeds 31 bits, renumbered 0, 1, 2, ... in its order; 0 becomes empty
    manual_tag_list                  tag, with ; for ,
"""
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.columns import ACTIONS, FEED_INFO, USER_ACTION
from common.command import Parser, guarded
from common.pickles import InputError
from common.reading import LARGEST_ID

LOGS = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
VIDEOS = "video_features_basic_pure.csv"
LOG_COLUMNS = {  # those that only change their name
    "user_id": "userid", "video_id": "feedid", "tab": "device", "is_profile_enter": "click_avatar", "is_like": "like",
    "is_forward": "forward", "is_comment": "comment", "is_follow": "follow", "play_time_ms": "play",
}
RENUMBERED = ("time_ms", "music_id")  # only their order is used; beyond 2^53 float64 skips whole numbers
SOURCE_NOTE = '{"name": "KuaiRand-Pure"}\n'
IMPRESSION = ["user_id", "video_id", "time_ms"]  # the log repeats some, now and then with another hourmin


def refuse(wrong, values, path, expected):
    """Raise InputError for the first of `values` that is `wrong`."""
    if wrong.any():
        row = int(np.argmax(wrong))
        given = "nothing" if pd.isna(values.iloc[row]) else f"'{values.iloc[row]}'"
        raise InputError(f"{path}, column {values.name}, line {row + 2}: {given} is not {expected}: mend the line.")


def read(path, columns, may_be_empty=(), texts=()):
    """The CSV, whole, with `columns` checked to be whole numbers: int64, or Int64 where they may be empty."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), index_col=False, encoding="utf-8-sig", low_memory=False)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the folder KuaiRand-Pure/data as SOURCE.") from None
    except ValueError as error:  # not a CSV, or not UTF-8
        if "Calling read" in str(error):  # what pandas may make of a Ctrl-C that comes while it reads
            raise KeyboardInterrupt from None
        raise InputError(f"{path} cannot be parsed ({' '.join(str(error).split())}): download it again.") from None
    for column in (*columns, *may_be_empty, *texts):
        if column not in table:
            raise InputError(f"{path}: column {column} is missing from the header: download the file again.")
    if not len(table):
        raise InputError(f"{path} has no rows: download it again.")
    for column in (*columns, *may_be_empty):
        numbers = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
        high = 1 if column.startswith("is_") else 2**53 if column in RENUMBERED else LARGEST_ID
        empty = table[column].isna() & (column in may_be_empty)
        refuse(~(numbers.between(0, high) & (numbers % 1 == 0) | empty), table[column], path, f"a whole number in 0..{high}")
        table[column] = numbers.astype("Int64" if column in may_be_empty else np.int64)
    return table


def read_log(path):
    log = read(path, (*LOG_COLUMNS, "comment_stay_time", "date", "time_ms"))
    log["day"] = pd.to_datetime(log["date"].astype(str), format="%Y%m%d", errors="coerce")
    refuse(log["day"].isna(), log["date"], path, "a date such as 20220425")
    unique = log.drop_duplicates(IMPRESSION)
    print(f"{path}: {len(log):,} rows, {len(log) - len(unique):,} repeated impressions dropped")
    return unique


def user_action(log):
    log = log.sort_values(["user_id", "time_ms"], kind="stable").rename(columns=LOG_COLUMNS)
    log["date_"] = (log["day"] - log["day"].min()).dt.days + 1
    log["read_comment"] = (log["comment_stay_time"] > 0).astype(int)
    log["stay"] = log[["play", "comment_stay_time"]].max(axis=1)
    return log[[column for column in USER_ACTION if column in log]]


def feed_info(videos):
    music = videos["music_id"].replace(0, pd.NA)
    return pd.DataFrame({
        "feedid": videos["video_id"],
        "authorid": videos["author_id"],
        "videoplayseconds": videos["video_duration"].replace(0, pd.NA) / 1000,
        "bgm_song_id": (music.rank(method="dense") - 1).astype("Int64"),
        "manual_tag_list": videos["tag"].str.replace(",", ";"),
    }, columns=FEED_INFO)


def write(out, files):
    """Write {file name: text} to folder `out`: every file beside its place first, then all are renamed."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as beside:
        for name, text in files.items():
            Path(beside, name).write_text(text)
        for name in files:
            os.replace(Path(beside, name), out / name)


def convert(source, out):
    """Rewrite the files of folder `source` in folder `out`. Raises InputError."""
    note, taken = out / "source.json", [out / name for name in ("user_action.csv", "feed_info.csv") if (out / name).exists()]
    if taken and not (note.exists() and note.read_bytes() == SOURCE_NOTE.encode()):
        raise InputError(f"{taken[0]} belongs to another data set: give another folder as OUT.")
    logs = [source / name for name in LOGS if (source / name).exists()]
    if not logs:
        raise InputError(f"{source} holds neither {LOGS[0]} nor {LOGS[1]}: give the folder KuaiRand-Pure/data as SOURCE.")
    videos = read(source / VIDEOS, ("video_id", "author_id"), may_be_empty=("video_duration", "music_id"), texts=("tag",))
    refuse(~videos["tag"].fillna("").str.fullmatch(r"(\d+(,\d+)*)?"), videos["tag"], source / VIDEOS, "a list such as 12,65")
    print(f"{source / VIDEOS}: {len(videos):,} videos")
    log = pd.concat([read_log(path) for path in logs])
    actions, feeds = user_action(log), feed_info(videos)
    unknown = actions["feedid"][~actions["feedid"].isin(feeds["feedid"])]
    print(f"{len(unknown):,} rows of {unknown.nunique():,} videos that {VIDEOS} lacks: kept")

    csv = {"user_action.csv": actions.to_csv(index=False), "feed_info.csv": feeds.to_csv(index=False)}
    write(out, {"source.json": SOURCE_NOTE, **csv})
    print(f"{out}/source.json: {SOURCE_NOTE.strip()}")
    print(f"{out}/user_action.csv: {len(actions):,} rows, {actions['userid'].nunique():,} users, "
          f"{actions['feedid'].nunique():,} feeds, days 1..{actions['date_'].max()} from {log['day'].min():%Y-%m-%d}")
    print(f"{out}/feed_info.csv: {len(feeds):,} feeds, {feeds['authorid'].nunique():,} authors, "
          f"{feeds['bgm_song_id'].nunique():,} songs, {feeds['manual_tag_list'].count():,} feeds with tags")
    rates = actions[[action for action in ACTIONS if action in actions]].mean()
    print("positive rates: " + ", ".join(f"{action} {rate:.3%}" for action, rate in rates.items()))


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder KuaiRand-Pure/data")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the CSVs in the WeChat layout")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    with redirect_stdout(None if args.quiet else sys.stdout):
        return guarded("kuairand.py", lambda: convert(args.source, args.out), args.out)


if __name__ == "__main__":
    sys.exit(main())
