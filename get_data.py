"""The contest's CSVs in, encoded pickles out.

python get_data.py [SOURCE] [--out user_data] [--valid-day D | --valid-days K | --final]
    [--regime daily] [--min-count 5] [--quiet]

SOURCE is a folder that holds the CSVs, or `wechat_algo_data*/` with them, or the zip as the contest
hands it out. With nothing in `data/`, the synthetic stand-in is made in `data/sample/` and used.
Interactions, feeds and users stay separate tables; `user_data/README.md` says what they hold.
"""

import reprlib
import sys
import time
from collections import ChainMap
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

from common import features
from common.columns import EVERY_ACTION
from common.command import InputError, Parser, Report, bar, user_errors
from common.contest import read_source
from common.encoding import describe, interactions, labelled_rows, replace_ids, tables_of, test_rows
from common.features.ids import rows_of
from common.features.past import Past
from common.pickles import FIRST, VERSION, read, write_all
from common.source import Source

import numpy as np

HERE = Path(__file__).resolve().parent


def known_past(raw, log, train, tests, args):
    """The Past of a log whose columns hold rows of tables; train: bool (rows,)."""
    users, feeds = raw["users"], raw["feed_ids"]
    later = None
    if args.regime == "exposures" and tests:
        ids = {
            name: np.concatenate([rows[name] for rows in tests.values()])
            for name in ("userid", "feedid")
        }
        later = rows_of(ids["userid"], users), rows_of(ids["feedid"], feeds)
    return Past(
        **{name: log[name] for name in ("day", "user", "feed", "device")},
        labels={name: log[name] for name in EVERY_ACTION if name in log},
        play=log.get("play"),
        train=train,
        user_ids=users,
        feed_ids=feeds,
        info=raw["feeds"],
        embeddings=raw.get("embeddings"),
        min_count=args.min_count,
        regime=args.regime,
        later=later,
    )


def make_features(past, report):
    """{name: Feature} of all groups, a line of the report each.

    Two are made at a time: first those that others build on, then, as soon as these are made, the
    others that build on them, and in between and at last the rest.
    """
    groups = {name: import_module(f"common.features.{name}") for name in features.GROUPS}
    needs = {name: set(getattr(group, "BUILDS_ON", ())) for name, group in groups.items()}
    needed = set().union(*needs.values())
    left = sorted(groups, key=lambda name: (name not in needed, not needs[name]))
    making = {}  # {future: group}
    made = {}  # {group: {name: Feature}}
    pool = ThreadPoolExecutor(2)
    try:
        with bar("making features", total=len(groups)) as done:
            while left or making:
                ready = [name for name in left if needs[name] <= made.keys()]
                for name in ready[: 2 - len(making)]:
                    before = dict(ChainMap(*(made[other] for other in needs[name])))
                    making[pool.submit(groups[name].features, past, before)] = name
                    left.remove(name)
                if not making:
                    raise ValueError(f"{left} build on a group that is none, or on each other")
                for future in wait(making, return_when=FIRST_COMPLETED).done:
                    name = making.pop(future)
                    made[name] = future.result()
                    done.update()
                    if made[name]:
                        report(name, groups[name].ABOUT)
        return {name: feature for group in groups for name, feature in made[group].items()}
    finally:
        past.is_wanted = False  # so that after an error or Ctrl-C they end soon
        pool.shutdown(cancel_futures=True)


def encode_source(raw, last_day, args, report):
    """{file name: content} of every pickle, up to a day of what `replace_ids` left. InputError."""
    log = raw["log"]
    users, feeds, dates = raw["users"], raw["feed_ids"], raw["dates"]
    today = int(np.searchsorted(dates, last_day)) + 1
    listed = np.isin(feeds, raw["feeds"]["feedid"])
    n_unknown = int((~np.insert(listed, 0, False))[log["feed"]].sum())
    use = log["day"] <= today
    tests = raw["tests"] if use.all() else {}  # or they would not see the rows that are left out
    truth = raw["truth"]
    if not use.all():
        log, truth = ({name: c[use] for name, c in columns.items()} for columns in (log, truth))
    train = log["day"] < today + args.final
    made = make_features(known_past(raw, log, train, tests, args), report)

    files = tables_of(made, users, feeds)
    known = {f.vocabulary: f.known for f in made.values() if f.vocabulary is not None}
    files["vocabularies.pkl"] = known
    files |= interactions(log, train, made, truth)
    for name, rows in tests.items():
        files[f"{name}.pkl"] = test_rows(rows, made, users, feeds, today + 1)
    labelled = raw.get("labelled")
    if labelled and not args.final and (labelled["date_"] == last_day).any():
        of_day = labelled["date_"] == last_day
        labelled = {name: column[of_day] for name, column in labelled.items()}
        place = raw["place"] / "test.csv"
        files["test.pkl"] = labelled_rows(labelled, log, made, users, feeds, today, place)
    note = raw["note"]
    if args.regime != "daily":  # its results are no others' equals
        note = note | {"name": f"{note['name']}, regime {args.regime}"}
    files["meta.pkl"] = describe(files, note, made, None if args.final else last_day)
    tell(report, files, dates, int((~use).sum()), n_unknown, args.min_count)
    return files


def tell(report, files, dates, n_late, n_unknown, min_count):
    """The last lines of the report: what came out."""
    train = files["train.pkl"]
    n_users = len(files["user.pkl"]["key"]) - 1
    n_feeds = len(files["feed.pkl"]["key"]) - 1
    days = f"days {dates[train['day'].min() - 1]}..{dates[train['day'].max() - 1]}"
    report("tables", f"{n_users:,} users, {n_feeds:,} feeds")
    report("training rows", f"{len(train['day']):,}, {days}")
    valid_day = files["meta.pkl"]["valid_day"]
    if valid_day is None:
        report("validation rows", "none: every labelled day is trained on")
    else:
        late = f"; {n_late:,} rows of later days and the test files left out" if n_late else ""
        n_valid = len(files["valid.pkl"]["day"])
        report("validation rows", f"{n_valid:,}, day {valid_day}{late}")
    if "test.pkl" in files:
        n_test = len(files["test.pkl"]["day"])
        report("test rows", f"{n_test:,} of test.csv, day {valid_day}, to be scored at the end")
    report("unknown feeds", f"{n_unknown:,} rows of feeds that feed_info.csv lacks, kept")
    sizes = files["meta.pkl"]["vocabularies"].items()
    known = ", ".join(f"{name} {size - FIRST:,}" for name, size in sizes)
    report("vocabularies", f"{known}; ids of fewer than {min_count} training rows share one row")
    rates = [f"{name} {train[name].mean():.3%}" for name in EVERY_ACTION if name in train]
    report("positive rates", ", ".join(rates))


def find_source(path):
    """The Source at `path`; without one `data/`, or the stand-in if nothing is there."""
    if path is not None:
        return Source.of_contest(path)
    source = Source.of_contest(HERE / "data")
    if source.zip is not None or source.has("user_action.csv"):
        return source
    stand_in = HERE / "data" / "sample"
    print(f"nothing in {HERE / 'data'}: using the SYNTHETIC stand-in in {stand_in}")
    if not (stand_in / "source.json").exists():
        from data import sample

        sample.generate(stand_in)
    return Source(stand_in)


def main(argv=None):
    """Read, encode, write; argv: a list of words, None for the process's own. Raises InputError."""
    parser = Parser(__doc__)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder or zip (default: data)")
    out = "folder to write (default: user_data, with --final user_data/final)"
    parser.add_argument("--out", help=out)
    days = parser.add_mutually_exclusive_group()
    days.add_argument("--valid-day", type=int, help="day that validates (default: the last one)")
    each = "validate each of the last K days, in folders OUT/day-D of their own"
    days.add_argument("--valid-days", type=int, metavar="K", help=each)
    final = "train on every labelled day, for the test files: none validates"
    days.add_argument("--final", action="store_true", help=final)
    regime = "exposures: use what is shown on a day on that day, but no labels (default: daily)"
    parser.add_argument("--regime", choices=["daily", "exposures"], default="daily", help=regime)
    rare = "ids of fewer training rows share a row (default: 5)"
    parser.add_argument("--min-count", type=int, default=5, help=rare)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    if args.min_count < 0:
        raise InputError(f"--min-count takes a number of rows, and {args.min_count} is none.")
    if args.valid_days is not None and args.valid_days < 1:
        raise InputError(f"--valid-days takes a number of days, and {args.valid_days} is none.")
    out = args.out or ("user_data/final" if args.final else "user_data")
    with redirect_stdout(None if args.quiet else sys.stdout):
        run(args, Path(out))


def refuse_another_table(folder):
    """Raise InputError if a folder holds pickles that a user made of a table of his own."""
    try:
        meta = read(folder / "meta.pkl")
        ours = meta["version"] != VERSION or (meta["tables"] == ["user", "feed"] and "raw" in meta)
        name = reprlib.repr(meta["name"])
    except (InputError, TypeError, KeyError):  # missing, damaged, or of another version
        return
    if not ours:
        raise InputError(f"{folder} holds another table, {name}: give another folder by --out.")


def run(args, out):
    """Encode the CSVs at `args.source` into pickles in folder `out`. Raises InputError."""
    started = time.perf_counter()
    source = find_source(args.source)
    report = Report()
    raw = read_source(source, report)
    replace_ids(raw)
    dates = raw["dates"].tolist()
    last_day = dates[-1] if args.valid_day is None else args.valid_day
    if not args.final and last_day not in dates[1:]:
        raise InputError(
            f"{source.path / 'user_action.csv'}: validating day {last_day} needs rows on that day "
            "and on a day before: choose another --valid-day or get the file again."
        )
    folders = {out: last_day}
    if args.valid_days:
        days = dates[1:][-args.valid_days :]
        if len(days) < args.valid_days:
            raise InputError(
                f"--valid-days {args.valid_days}: only {len(days)} days follow others."
            )
        folders = {out / f"day-{day}": day for day in days}
    for folder in folders:
        refuse_another_table(folder)
    for folder, day in folders.items():
        files = encode_source(raw, day, args, report)
        write_all(folder, files)
        for name in {"valid.pkl", "test.pkl", "test_a.pkl", "test_b.pkl"}.difference(files):
            (folder / name).unlink(missing_ok=True)  # of a run before, which no loader would take
        report("written", f"{', '.join(files)} to {folder}")
    print(f"done in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    with user_errors():
        main()
