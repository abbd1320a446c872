"""The contest's CSVs, in a folder or in a zip, and their columns: checked, of one type, and refused in one sentence."""
import json
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.columns import FEED_IDS
from common.pickles import InputError
from common.progress import bar

LARGEST_ID = 2**31 - 1
MISSING = -1  # an id that the CSV leaves empty


class Source:
    """The CSVs of a folder or of a zip, by name."""

    def __init__(self, path):
        path = Path(path)
        if path.is_dir() and not (path / "user_action.csv").exists():
            inside = [path / "wechat_algo_data1", path / "wechat_algo_data1.zip"]
            path = next((place for place in inside if place.exists()), path)
        self.path, self.zip = path, None
        if path.is_file():
            try:
                self.zip = zipfile.ZipFile(path)
            except zipfile.BadZipFile:
                raise InputError(f"{path} is not a zip that can be read: download it again.") from None
            self.members = {Path(name).name: name for name in self.zip.namelist()}
        elif not path.is_dir():
            raise InputError(f"{path} does not exist: give the folder or the zip that holds user_action.csv.")

    def has(self, name):
        return name in self.members if self.zip else (self.path / name).exists()

    def open(self, name):
        if not self.has(name):
            raise InputError(f"{self.path / name} is missing: put the contest's file there, or give its folder as SOURCE.")
        return self.zip.open(self.members[name]) if self.zip else open(self.path / name, "rb")

    def size(self, name):
        """Bytes of the file, unpacked."""
        return self.zip.getinfo(self.members[name]).file_size if self.zip else (self.path / name).stat().st_size

    def note(self):
        """What the maker of a converted or synthetic data set left beside it."""
        if not self.has("source.json"):
            return {"name": "WeChat Big Data Challenge 2021"}
        with self.open("source.json") as file:
            return json.load(file)


def read_columns(source, name, columns, optional=(), text=(), real=()):
    """{column: array} of a CSV: int64, float64 for the columns in `real`, strings for those in `text`.

    An empty id of FEED_IDS is MISSING, an empty real NaN, an empty string "". Columns in `optional` may be absent.

    Raises InputError naming the file, and the row and column where there is one.
    """
    import pandas as pd

    place = source.path / name
    with source.open(name) as file:
        header = file.readline().decode("utf-8-sig", "replace").strip().split(",")
    lost = [column for column in columns if column not in header and column not in optional]
    if lost:
        raise InputError(f"{place}: column {lost[0]} is missing from the header: restore it.")
    columns = [column for column in columns if column in header]
    options = dict(usecols=columns, encoding="utf-8-sig", encoding_errors="replace")
    kinds = {column: str if column in text else np.float64 if column in real else np.int64 for column in columns}
    try:
        with _watched(source, name) as file, np.errstate(invalid="ignore"):  # an empty id is found below, by its ValueError
            table = pd.read_csv(file, dtype=kinds, **options)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if "Calling read" in str(error):  # what pandas may make of a Ctrl-C that comes while it reads
            raise KeyboardInterrupt from None
        raise InputError(f"{place} cannot be parsed ({str(error).strip()}): get the file again.") from None
    except (ValueError, OverflowError):  # an empty, fractional or non-numeric value somewhere: read again, and look for it
        with _watched(source, name) as file:
            table = pd.read_csv(file, dtype=str, **options)
        for column in columns:
            if column not in text:
                table[column] = _numbers(table[column], place, column)
    if not len(table):
        raise InputError(f"{place} has no rows: get the file again.")
    return {column: table[column].fillna("").tolist() if column in text else table[column].to_numpy(kinds[column]) for column in columns}


class _Watched:
    """A binary file whose reads move a bar. It has no read1, which pandas would prefer to read and which would pass the bar by."""

    def __init__(self, file, done):
        self.file, self.done = file, done

    def read(self, size=-1):
        block = self.file.read(size)
        self.done.update(len(block))
        return block

    def __iter__(self):  # pandas asks for it, and does not use it
        return iter(self.file)


@contextmanager
def _watched(source, name):
    with source.open(name) as file, bar(f"reading {name}", size=source.size(name)) as done:
        yield _Watched(file, done)


def _numbers(strings, place, column):
    """The numbers of a column of strings such as 5, 5.0 or, where that is allowed, nothing: NaN, or MISSING for an id."""
    import pandas as pd

    numbers = pd.to_numeric(strings, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    empty, whole = strings.isna().to_numpy(), column != "videoplayseconds"
    wrong = np.isnan(numbers) & ~(empty & (column in (*FEED_IDS, "videoplayseconds")))
    if whole:
        wrong |= ~empty & (numbers != np.floor(numbers))
    if wrong.any():
        row = int(np.argmax(wrong))
        given = "nothing" if empty[row] else repr(strings.iloc[row])
        raise InputError(f"{place}, line {row + 2}, column {column}: {given} is not a {'whole ' * whole}number: mend or remove the line.")
    return np.where(empty, MISSING, np.where(np.isfinite(numbers), numbers, 0)).astype(np.int64) if whole else numbers


def check_range(values, low, high, place, column):
    """Raise InputError where a value of the column lies outside low..high."""
    wrong = (values < low) | (values > high)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place}, line {row + 2}, column {column}: {values[row]} is not in {low}..{high}: mend or remove the line.")
