"""Census-Income (KDD), a table that has nothing of videos, as pickles by the contract.

    python data/census.py TRAIN [TEST] [--out user_data/census] [--valid-share 0.1] [--seed 0]
    python mmoe.py --user-data user_data/census

TRAIN and TEST are UCI's census-income.data and census-income.test (doi 10.24432/C5N30T, licence
CC BY 4.0), as they are or with .gz: a person a row, 42 columns without a header. The tasks are
those of the MMOE paper: `income`, over 50,000 a year, and `single`, never married. A random share
of TRAIN validates; TEST becomes test.pkl. This is the example of how a table of your own becomes
pickles: texts become ids, numbers become dense values and, in quantiles, ids too.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.command import InputError, Parser, user_errors
from common.pickles import FIRST, OTHER, VERSION, stamp_of, write_all

NAMES = """
age class_of_worker industry occupation education wage_per_hour enrolled marital major_industry
major_occupation race hispanic_origin sex union_member reason_unemployed employment capital_gains
capital_losses dividends tax_filer previous_region previous_state household_detail
household_summary weight migration_msa migration_region migration_within same_house sunbelt
persons_worked_for parents father_country mother_country birth_country citizenship own_business
veterans_form veterans_benefits weeks_worked year income
""".split()  # of the 42 columns, in order
NUMBERS = {  # all other columns hold texts or codes, which become ids
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends",
    "persons_worked_for",
    "own_business",
    "veterans_benefits",
    "weeks_worked",
    "year",
}
LEFT_OUT = {"marital", "income", "weight"}  # both tasks, and the person's weight in the survey
N_BINS = 30  # quantiles of a number
MIN_COUNT = 5  # rows that a text needs for a code of its own
INCOMES = ("- 50000.", "50000+.")


def read(path):
    """The rows of a file, a DataFrame of texts (rows, 42). Raises InputError."""
    import pandas as pd

    options = {"header": None, "dtype": str, "skipinitialspace": True, "na_filter": False}
    try:
        widest = pd.read_csv(path, nrows=1, **options).shape[1]
        if widest != len(NAMES):
            what = f"{widest} columns and not {len(NAMES)}"
            raise InputError(f"{path} has {what} in its first line: give UCI's file.")
        table = pd.read_csv(path, names=NAMES, index_col=False, **options)
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be parsed ({reason}): download it again.") from None
    refuse(~table["income"].isin(INCOMES), table["income"], path, " or ".join(INCOMES))
    for column in NUMBERS:
        wrong = ~table[column].str.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?")
        refuse(wrong, table[column], path, "a number")
    print(f"{path}: {len(table):,} rows")
    return table


def refuse(wrong, values, path, expected):
    """Raise InputError for the first of `values` that is `wrong`."""
    if wrong.any():
        row = int(np.argmax(wrong))
        given = f"column {values.name}: {values[row]!r:.40}"
        raise InputError(f"{path}, line {row + 1}, {given} is not {expected}: mend the line.")


def fit(table):
    """What is learned from the training rows: {column: its texts, sorted, or (borders, mean, std)}.

    Borders are the quantiles of a number; mean and std are of its log(1 + x).
    """
    known = {}
    for column in (name for name in NAMES if name not in LEFT_OUT):
        if column in NUMBERS:
            x = table[column].to_numpy(np.float64)
            borders = np.unique(np.quantile(x, np.linspace(0, 1, N_BINS + 1)[1:-1]))
            known[column] = borders, np.log1p(x).mean(), np.log1p(x).std() or 1.0
        else:
            counts = table[column].value_counts()
            known[column] = np.sort(counts.index[counts >= MIN_COUNT].to_numpy(str))
    return known


def encode(table, known):
    """{column of interactions: array (rows,)} of a table of texts."""
    columns = {
        "income": (table["income"] == INCOMES[1]).to_numpy(np.uint8),
        "single": (table["marital"] == "Never married").to_numpy(np.uint8),
    }
    for name, of_column in known.items():
        if name in NUMBERS:
            borders, mean, std = of_column
            x = table[name].to_numpy(np.float64)
            values = np.clip((np.log1p(x) - mean) / std, -3, 3)
            columns[name] = values.astype(np.float32)
            codes = np.searchsorted(borders, x, side="right") + FIRST
            columns[f"{name}_bin"] = codes.astype(np.int32)
        else:
            texts = table[name].to_numpy(str)
            place = np.searchsorted(of_column, texts).clip(max=len(of_column) - 1)
            codes = np.where(of_column[place] == texts, place + FIRST, OTHER)
            columns[name] = codes.astype(np.int32)
    return columns


def describe(known, stamp):
    """The content of meta.pkl."""
    sizes = {}
    for name, of_column in known.items():
        if name in NUMBERS:
            sizes[f"{name}_bin"] = FIRST + len(of_column[0]) + 1
        else:
            sizes[name] = FIRST + len(of_column)
    ids = {name: {"kind": "id", "table": None, "vocabulary": name} for name in sizes}
    dense = {"kind": "dense", "table": None, "daily": False}
    return {
        "version": VERSION,
        "stamp": stamp,
        "name": "Census-Income (KDD)",
        "synthetic": False,
        "tasks": {"income": 1, "single": 1},
        "group": None,
        "tables": [],
        "valid_day": 0,
        "vocabularies": sizes,
        "features": ids | {name: dict(dense) for name in sorted(NUMBERS)},
    }


def convert(train, test, out, valid_share, seed):
    """Write the pickles of the files to folder `out`. Raises InputError."""
    table = read(train)
    rows = np.random.default_rng(seed).permutation(len(table))
    n_valid = round(valid_share * len(table)) if 0 < valid_share < 1 else 0
    if not 0 < n_valid < len(table):
        what = f"--valid-share {valid_share} leaves no row to train or to validate"
        raise InputError(f"{what}: give 0.1, say.")
    parts = {"valid": table.iloc[np.sort(rows[:n_valid])], "train": table.iloc[rows[n_valid:]]}
    if test:
        parts["test"] = read(test)
    known = fit(parts["train"])
    files = {f"{name}.pkl": encode(part, known) for name, part in parts.items()}
    stamp = stamp_of(files)
    for content in files.values():
        content["stamp"] = stamp
    write_all(out, files | {"meta.pkl": describe(known, stamp)})
    for name in {"test.pkl", "test_a.pkl", "test_b.pkl", "vocabularies.pkl"}.difference(files):
        (out / name).unlink(missing_ok=True)  # of a run before, which no loader would take
    counts = ", ".join(f"{len(part):,} rows in {name}.pkl" for name, part in parts.items())
    print(f"{out}: {counts}")


def main(argv=None):
    """Read, encode, write; argv: a list of words, None for the process's own. Raises InputError."""
    parser = Parser(__doc__)
    parser.add_argument("train", metavar="TRAIN", help="UCI's census-income.data")
    parser.add_argument("test", metavar="TEST", nargs="?", help="UCI's census-income.test")
    parser.add_argument("--out", type=Path, default=Path("user_data/census"), help="folder")
    share = "share of TRAIN that validates (0.1)"
    parser.add_argument("--valid-share", type=float, default=0.1, help=share)
    parser.add_argument("--seed", type=int, default=0, help="seed of that share (0)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise InputError(f"--seed takes a whole number, at least 0, and {args.seed} is none.")
    with redirect_stdout(None if args.quiet else sys.stdout):
        convert(args.train, args.test, args.out, args.valid_share, args.seed)


if __name__ == "__main__":
    with user_errors():
        main()
