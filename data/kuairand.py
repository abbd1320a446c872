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

import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.columns import ACTIONS, FEED_INFO, USER_ACTION
from common.command import InputError, Parser, user_errors
from common.csvs import LARGEST_ID, Source, read_columns
from common.pickles import beside

LOGS = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
VIDEOS = "video_features_basic_pure.csv"
LOG_COLUMNS = {  # those that only change their name
    "user_id": "userid",
    "video_id": "feedid",
    "tab": "device",
    "is_profile_enter": "click_avatar",
    "is_like": "like",
    "is_forward": "forward",
    "is_comment": "comment",
    "is_follow": "follow",
    "play_time_ms": "play",
}
SOURCE_NOTE = '{"name": "KuaiRand-Pure"}\n'
IMPRESSION = [
    "user_id",
    "video_id",
    "time_ms",
]  # the log repeats some, now and then with another hourmin


def read_log(source, name):
    """A standard log as a table, repeated impressions dropped. Raises InputError."""
    within = dict.fromkeys((*LOG_COLUMNS, "comment_stay_time"), (0, LARGEST_ID))
    within |= {column: (0, 1) for column in LOG_COLUMNS if column.startswith("is_")}
    within |= {"date": (19000101, 29991231), "time_ms": (0, 2**53)}
    log = pd.DataFrame(read_columns(source, name, list(within), within=within))
    log["day"] = pd.to_datetime(log["date"].astype(str), format="%Y%m%d", errors="coerce")
    refuse(log["day"].isna(), log["date"], source, name, "a date such as 20220425")
    unique = log.drop_duplicates(IMPRESSION)
    n_repeated = len(log) - len(unique)
    print(f"{source.path / name}: {len(log):,} rows, {n_repeated:,} repeated impressions dropped")
    return unique


def read_videos(source):
    """The video file as a table, with NaN for no duration and no music. Raises InputError."""
    within = dict.fromkeys(("video_id", "author_id"), (0, LARGEST_ID))
    real = ("video_duration", "music_id")
    columns = [*within, *real, "tag"]
    videos = pd.DataFrame(
        read_columns(source, VIDEOS, columns, text=("tag",), real=real, within=within)
    )
    for column, high in zip(real, (LARGEST_ID, 2**53), strict=True):
        wrong = ~(
            videos[column].between(0, high) & (videos[column] % 1 == 0) | videos[column].isna()
        )
        refuse(wrong, videos[column], source, VIDEOS, f"a whole number in 0..{high}")
    wrong = ~videos["tag"].str.fullmatch(r"(\d{1,9}(,\d{1,9})*)?")
    refuse(wrong, videos["tag"], source, VIDEOS, "a list such as 12,65")
    refuse(videos["video_id"].duplicated(), videos["video_id"], source, VIDEOS, "listed once")
    print(f"{source.path / VIDEOS}: {len(videos):,} videos")
    return videos


def refuse(wrong, values, source, name, expected):
    """Raise InputError for the first of `values` that is `wrong`."""
    if wrong.any():
        row = int(np.argmax(wrong))
        given = f"column {values.name}: {values.tolist()[row]!r:.40}"
        raise InputError(f"{source.line(name, row)}, {given} is not {expected}: mend the line.")


def user_action(log):
    log = log.sort_values(["user_id", "time_ms"], kind="stable").rename(columns=LOG_COLUMNS)
    log["date_"] = (log["day"] - log["day"].min()).dt.days + 1
    log["read_comment"] = (log["comment_stay_time"] > 0).astype(int)
    log["stay"] = log[["play", "comment_stay_time"]].max(axis=1)
    return log[[column for column in USER_ACTION if column in log]]


def feed_info(videos):
    music = videos["music_id"].replace(0, np.nan)
    return pd.DataFrame(
        {
            "feedid": videos["video_id"],
            "authorid": videos["author_id"],
            "videoplayseconds": videos["video_duration"].replace(0, np.nan) / 1000,
            "bgm_song_id": (music.rank(method="dense") - 1).astype("Int64"),
            "manual_tag_list": videos["tag"].str.replace(",", ";"),
        },
        columns=FEED_INFO,
    )


def convert(source, out):
    """Rewrite the files of folder `source` in folder `out`. Raises InputError."""
    note, taken = (
        out / "source.json",
        [out / name for name in ("user_action.csv", "feed_info.csv") if (out / name).exists()],
    )
    if taken and not (note.exists() and note.read_bytes() == SOURCE_NOTE.encode()):
        raise InputError(f"{taken[0]} belongs to another data set: give another folder as OUT.")
    source = Source(source)
    logs = [name for name in LOGS if source.has(name)]
    if not logs:
        raise InputError(f"{source.path} holds neither {LOGS[0]} nor {LOGS[1]}: give their folder.")
    videos = read_videos(source)
    log = pd.concat([read_log(source, name) for name in logs])
    actions, feeds = user_action(log), feed_info(videos)
    unknown = actions["feedid"][~actions["feedid"].isin(feeds["feedid"])]
    print(f"{len(unknown):,} rows of {unknown.nunique():,} videos that {VIDEOS} lacks: kept")

    out.mkdir(parents=True, exist_ok=True)
    with (
        beside(out / "source.json") as note,
        beside(out / "user_action.csv") as action_file,
        beside(out / "feed_info.csv") as feed_file,
    ):
        actions.to_csv(action_file, index=False)
        feeds.to_csv(feed_file, index=False)
        note.write_text(SOURCE_NOTE)
    print(f"{out}/source.json: {SOURCE_NOTE.strip()}")
    print(
        f"{out}/user_action.csv: {len(actions):,} rows, {actions['userid'].nunique():,} users, "
        f"{actions['feedid'].nunique():,} feeds, days 1..{actions['date_'].max()} from {log['day'].min():%Y-%m-%d}"
    )
    print(
        f"{out}/feed_info.csv: {len(feeds):,} feeds, {feeds['authorid'].nunique():,} authors, "
        f"{feeds['bgm_song_id'].nunique():,} songs, {(feeds['manual_tag_list'] != '').sum():,} feeds with tags"
    )
    rates = actions[[action for action in ACTIONS if action in actions]].mean()
    print("positive rates: " + ", ".join(f"{action} {rate:.3%}" for action, rate in rates.items()))


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder KuaiRand-Pure/data")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder for the CSVs in the WeChat layout"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    with redirect_stdout(None if args.quiet else sys.stdout):
        convert(args.source, args.out)


if __name__ == "__main__":
    with user_errors():
        main()
