"""KuaiRand, real impressions of the short-video app Kuaishou, rewritten in the WeChat layout.

    python data/kuairand.py KUAIRAND_PURE/data OUT [--first-date D] [--last-date D] [--quiet]

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos",
CIKM 2022, doi 10.1145/3511808.3557624; Zenodo record 10439422; licence CC BY-SA 4.0, which holds
for the rewritten files too. KuaiRand-Pure, -1K and -27K are read, whichever the folder holds.

`user_action.csv` comes from the standard logs, those that are there, in parts or whole:

    userid, feedid                   user_id, video_id
    date_                            `date` in days, the first of the logs read being 1
    device                           tab, the page of the app that showed the video, 0..14
    read_comment                     comment_stay_time > 0
    click_avatar                     is_profile_enter
    like, forward, comment, follow   is_like, is_forward, is_comment, is_follow; no favorite
    click, long_view                 is_click, long_view: further tasks
    play                             play_time_ms
    stay                             the larger of play_time_ms and comment_stay_time, ms

No column logs the time on the page. The sum of the two would count twice, for a video plays on, in
a loop, under its open comments: of 540 impressions with a longer stay in the comments than the
video lasts, 93 % played at least as long as that stay. The author's profile is another page, so its
time is left out. Rows are ordered by user and time_ms; of rows of one user, video and time_ms the
first is kept; rows of videos that the video file lacks are kept. `test.csv` is the random log in
the same columns, where it is there, from the first to the last day of the others: what users do with
videos that nobody chose for them.

`feed_info.csv` comes from the video file; its other columns are empty.

    feedid, authorid                 video_id, author_id
    videoplayseconds                 video_duration / 1000; 0 becomes empty
    bgm_song_id                      music_id, over 31 bits, renumbered in its order; 0: empty
    manual_tag_list                  tag, with ; for ,
"""

import json
import os
import sys
import tempfile
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.columns import ACTIONS, FEED_INFO, OTHER_ACTIONS, USER_ACTION
from common.command import InputError, Parser, user_errors
from common.csvs import LARGEST_ID, read_chunks
from common.pickles import beside, remove_left_behind
from common.source import Source

NAMES = {"pure": "KuaiRand-Pure", "1k": "KuaiRand-1K", "27k": "KuaiRand-27K"}
LOGS = ("log_standard_4_08_to_4_21_{}.csv", "log_standard_4_22_to_5_08_{}.csv")
RANDOM_LOG = "log_random_4_22_to_5_08_{}.csv"
VIDEOS = "video_features_basic_{}.csv"
OUTPUTS = ("user_action.csv", "feed_info.csv", "source.json")
OTHERS = ("test.csv", "feed_embeddings.csv", "test_a.csv", "test_b.csv")
NOTE = '{"name": "KuaiRand'
FIRST_DATE = 19000101
LAST_DATE = 29991231
LOG_COLUMNS = {  # those that only change their name
    "user_id": "userid",
    "video_id": "feedid",
    "tab": "device",
    "is_profile_enter": "click_avatar",
    "is_like": "like",
    "is_forward": "forward",
    "is_comment": "comment",
    "is_follow": "follow",
    "is_click": "click",
    "long_view": "long_view",
    "play_time_ms": "play",
}
KEPT = {name: np.uint8 if name.startswith(("is_", "long")) else np.int32 for name in LOG_COLUMNS}
KEPT |= {"date": np.int32, "time_ms": np.int64, "comment_stay_time": np.int32}
RUN = 4_000_000  # rows that are sorted, and written, at a time


class Log:
    """The rows of logs of any size, in runs of RUN rows that are each sorted by user and time.

    All runs but one lie in a folder of files, which ends with the context.
    """

    def __init__(self, source, names, first, last, out):
        """first, last: dates such as 20220425 that bound the rows taken. Raises InputError."""
        self.runs = []
        self.dates = set()
        self.all_dates = set()  # those of rows that are not taken too
        self.shown = {name: [0, 0] for name in names}  # rows, of them repeated
        self.out = out
        self.files = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(self.files)
            waiting = []
            for number, name in enumerate(names):
                for rows in chunks_of_log(source, name, number):
                    self.all_dates |= set(rows["date"].unique().tolist())
                    waiting.append(rows[rows["date"].between(first, last)])
                    self.shown[name][0] += len(waiting[-1])
                    self.dates |= set(waiting[-1]["date"].unique().tolist())
                    if sum(map(len, waiting)) >= RUN:
                        self.runs.append(self.kept(merged(waiting)))
                        waiting = []
            if sum(map(len, waiting)):
                self.runs.append(merged(waiting))
            self.files = stack.pop_all()

    def kept(self, run):
        """The file of a run."""
        if not self.runs:
            self.out.mkdir(parents=True, exist_ok=True)
            remove_left_behind(self.out)
            prefix = f".writing-{os.getpid()}-"
            folder = tempfile.TemporaryDirectory(prefix=prefix, dir=self.out)
            self.folder = Path(self.files.enter_context(folder))
        path = self.folder / f"{len(self.runs)}.npy"
        np.save(path, run)
        return path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.files.close()

    def __iter__(self):
        """All rows by user and time, without the repeated ones: DataFrames of whole users."""
        of_run = [pd.Series(opened(run)["user_id"]).value_counts() for run in self.runs]
        counts = pd.concat(of_run).groupby(level=0).sum().sort_index()  # by user
        borders = counts.index[np.flatnonzero(np.diff(counts.cumsum() // RUN))]
        starts = [0 for _ in self.runs]
        for last_user in [*borders, LARGEST_ID]:
            ends = [int(n[n.index <= last_user].sum()) for n in of_run]
            slices = zip(self.runs, starts, ends, strict=True)
            rows = pd.concat([pd.DataFrame(np.array(opened(run)[a:b])) for run, a, b in slices])
            starts = ends
            rows = rows.sort_values(["user_id", "time_ms"], kind="stable", ignore_index=True)
            again = rows.duplicated(["user_id", "video_id", "time_ms"])
            for number, count in rows.loc[again, "file"].value_counts().items():
                self.shown[list(self.shown)[number]][1] += count
            yield rows[~again]


def opened(run):
    """The rows of a run, those of a file where they are asked for."""
    return np.load(run, mmap_mode="r") if isinstance(run, Path) else run


def merged(tables):
    """The rows of DataFrames by user and time, a structured array."""
    rows = pd.concat(tables).sort_values(["user_id", "time_ms"], kind="stable")
    return np.asarray(rows.to_records(index=False))


def chunks_of_log(source, name, number):
    """A log as DataFrames, `file` being its number. Raises InputError."""
    within = dict.fromkeys(KEPT, (0, LARGEST_ID))
    within |= {column: (0, 1) for column, kind in KEPT.items() if kind is np.uint8}
    within |= {"date": (19000101, 29991231), "time_ms": (0, 2**53)}
    n_rows = 0
    for chunk in read_chunks(source, name, list(KEPT), within=within):
        rows = pd.DataFrame(chunk).astype(KEPT)
        wrong = days_of(rows["date"]).isna()
        refuse(wrong, rows["date"], source, name, "a date such as 20220425", n_rows)
        n_rows += len(rows)
        yield rows.assign(file=np.uint8(number))


def refuse(wrong, values, source, name, expected, n_before=0):
    """Raise InputError for the first of `values` that is `wrong`; n_before: rows before them."""
    if wrong.any():
        row = int(np.argmax(wrong))
        given = f"column {values.name}: {values.tolist()[row]!r:.40}"
        line = source.line(name, n_before + row)
        raise InputError(f"{line}, {given} is not {expected}: mend the line.")


def days_of(numbers):
    """The days of numbers such as 20220425, NaT for those that are no date."""
    numbers = pd.Series(numbers)
    known = numbers.drop_duplicates()  # a log has few, and texts are slow
    days = pd.to_datetime(known.astype(str), format="%Y%m%d", errors="coerce")
    return days.set_axis(known).reindex(numbers).set_axis(numbers.index)


def read_videos(source, name):
    """The video file as a table, with NaN for no duration and no music. Raises InputError."""
    within = dict.fromkeys(("video_id", "author_id"), (0, LARGEST_ID))
    real = ("video_duration", "music_id")
    options = {"text": ("tag",), "real": real, "within": within}
    tags = {}  # each text once
    parts = []
    n_rows = 0
    for chunk in read_chunks(source, name, [*within, *real, "tag"], **options):
        videos = pd.DataFrame(chunk)
        for column, high in zip(real, (LARGEST_ID, 2**53), strict=True):
            values = videos[column]
            right = values.between(0, high) & (values % 1 == 0) | values.isna()
            refuse(~right, values, source, name, f"a whole number in 0..{high}", n_rows)
        wrong = ~videos["tag"].str.fullmatch(r"(\d{1,9}(,\d{1,9})*)?")
        refuse(wrong, videos["tag"], source, name, "a list such as 12,65", n_rows)
        videos["tag"] = [tags.setdefault(tag, tag) for tag in videos["tag"]]
        n_rows += len(videos)
        parts.append(videos)
    videos = pd.concat(parts, ignore_index=True)
    refuse(videos["video_id"].duplicated(), videos["video_id"], source, name, "listed once")
    print(f"{source.path / name}: {len(videos):,} videos")
    return videos


def user_action(rows, first_day):
    """Rows of a log in the WeChat layout."""
    actions = rows.rename(columns=LOG_COLUMNS)
    actions["date_"] = (days_of(rows["date"]) - first_day).dt.days + 1
    actions["read_comment"] = (rows["comment_stay_time"] > 0).astype(int)
    actions["stay"] = actions[["play", "comment_stay_time"]].max(axis=1)
    return actions[[name for name in (*USER_ACTION, *OTHER_ACTIONS) if name in actions]]


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


def write_log(log, place, name, first_day, videos):
    """Write a Log to the path `place`, and print what it holds under this name."""
    sums = 0
    n_rows = n_users = n_unknown = 0
    seen = set()
    with open(place, "w", newline="") as file:
        for rows in log:
            actions = user_action(rows, first_day)
            actions.to_csv(file, index=False, header=n_rows == 0, lineterminator="\n")
            sums = sums + actions.sum()
            n_rows += len(actions)
            n_users += actions["userid"].nunique()
            n_unknown += int((~actions["feedid"].isin(videos)).sum())
            seen |= set(actions["feedid"].unique().tolist())
    for part, (n_read, n_repeated) in log.shown.items():
        print(f"{part}: {n_read:,} rows, {n_repeated:,} repeated impressions dropped")
    n_strange = len(seen.difference(videos.tolist()))
    print(f"{n_unknown:,} rows of {n_strange:,} videos that the video file lacks: kept")
    print(f"{name}: {n_rows:,} rows, {n_users:,} users, {len(seen):,} feeds")
    rates = [f"{action} {sums[action] / n_rows:.3%}" for action in ACTIONS if action in sums]
    print("positive rates: " + ", ".join(rates))


def version_of(source):
    """Which of NAMES a folder holds. Raises InputError."""
    found = [name for name in NAMES if source.has(VIDEOS.format(name))]
    if not found:
        raise InputError(f"{source.path / VIDEOS.format('pure')} is missing: give its folder.")
    if len(found) > 1:
        files = " and ".join(VIDEOS.format(name) for name in found)
        raise InputError(f"{source.path} holds {files}: give a folder of one data set.")
    return found[0]


def parts_of(source, pattern, version):
    """The names of a log's files: of the whole, or of part 1, 2, ..."""
    whole = pattern.format(version)
    parts = (pattern.format(f"{version}_part{number}") for number in range(1, 100))
    return [whole] if source.has(whole) else [name for name in parts if source.has(name)]


def convert(source, out, first=FIRST_DATE, last=LAST_DATE):
    """Rewrite the files of folder `source` in folder `out`. Raises InputError."""
    note = out / "source.json"
    taken = [out / name for name in (*OUTPUTS, *OTHERS) if (out / name).exists()]
    if taken and not (note.exists() and note.read_text().startswith(NOTE)):
        raise InputError(f"{taken[0]} belongs to another data set: give another folder as OUT.")
    source = Source(source)
    version = version_of(source)
    names = [name for pattern in LOGS for name in parts_of(source, pattern, version)]
    if not names:
        wanted = " nor ".join(pattern.format(version) for pattern in LOGS)
        raise InputError(f"{source.path} holds neither {wanted}: give their folder.")
    videos = read_videos(source, VIDEOS.format(version))
    with Log(source, names, first, last, out) as log:
        if not log.runs:
            had = f"its logs have {min(log.all_dates)} to {max(log.all_dates)}"
            raise InputError(f"{source.path}: no row of these dates, {had}: choose others.")
        names = parts_of(source, RANDOM_LOG, version)
        with Log(source, names, min(log.dates), max(log.dates), out) as chosen:
            write(log, chosen, videos, out, NAMES[version])


def write(log, chosen, videos, out, name):
    """Write all files to folder `out`: none of them, if one fails."""
    days = days_of(sorted(log.dates))
    about = f"{name}, {days.iloc[0]:%Y-%m-%d} to {days.iloc[-1]:%Y-%m-%d}"
    ids = videos["video_id"]
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        place = {file: stack.enter_context(beside(out / file)) for file in OUTPUTS}
        write_log(log, place["user_action.csv"], out / "user_action.csv", days.iloc[0], ids)
        feed_info(videos).to_csv(place["feed_info.csv"], index=False, lineterminator="\n")
        place["source.json"].write_text(json.dumps({"name": about}) + "\n")
        if chosen.runs:
            test = stack.enter_context(beside(out / "test.csv"))
            write_log(chosen, test, out / "test.csv", days.iloc[0], ids)
    if not chosen.runs:
        (out / "test.csv").unlink(missing_ok=True)
    print(f"{out}: {about}, day 1 being the first")


def date(word):
    """20220425 of 2022-04-25 or 20220425. Raises InputError."""
    digits = word.replace("-", "")
    if not (digits.isdecimal() and days_of([digits]).notna().all()):
        raise InputError(f"--first-date and --last-date take 2022-04-25, say, and not {word!r}.")
    return int(digits)


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder KuaiRand-Pure/data")
    out = "folder for the CSVs in the WeChat layout"
    parser.add_argument("out", type=Path, metavar="OUT", help=out)
    first = "first day that is taken, as 2022-04-25 (default: that of the logs)"
    parser.add_argument("--first-date", type=date, default=FIRST_DATE, help=first)
    last = "last day that is taken (default: that of the logs)"
    parser.add_argument("--last-date", type=date, default=LAST_DATE, help=last)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    if args.first_date > args.last_date:
        raise InputError("--first-date lies behind --last-date: exchange them.")
    with redirect_stdout(None if args.quiet else sys.stdout):
        convert(args.source, args.out, args.first_date, args.last_date)


if __name__ == "__main__":
    with user_errors():
        main()
