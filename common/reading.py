"""The contest's CSVs, in a folder or in a zip, and their columns: checked, of one type, and refused in one sentence."""
import csv
import io
import json
import re
import reprlib
import zipfile
import zlib
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from common.columns import FEED_IDS
from common.pickles import InputError
from common.progress import bar

LARGEST_ID = 2**31 - 1
MISSING = -1  # an id that the CSV leaves empty
DENSEST = 200  # a member of a zip that unpacks to more times its size is no table but a bomb
CHUNK = 1 << 18  # rows read at a time
NO_SEPARATORS = bytes(set(range(256)) - set(b',\n"'))
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # by which zipfile refuses a member


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
            self.members = {}
            for member in self.zip.infolist():
                name = Path(member.filename).name
                if member.is_dir():
                    continue
                if name in self.members:
                    raise InputError(f"{path} holds two files {name}: leave one of them in it.")
                if member.file_size > DENSEST * max(member.compress_size, 1000):
                    raise InputError(f"{path}: {name} would unpack to {member.file_size:,} bytes, which no table does: download it again.")
                self.members[name] = member
        elif not path.is_dir():
            raise InputError(f"{path} does not exist: give the folder or the zip that holds user_action.csv.")

    def has(self, name):
        return name in self.members if self.zip else (self.path / name).exists()

    def open(self, name):
        if not self.has(name):
            raise InputError(f"{self.path / name} is missing: put the contest's file there, or give its folder as SOURCE.")
        if not self.zip:
            return open(self.path / name, "rb")
        try:
            return self.zip.open(self.members[name])
        except DAMAGED as error:
            raise InputError(f"{self.path}: {name} cannot be unpacked ({str(error).strip()}): download the zip again.") from None

    def size(self, name):
        """Bytes of the file, unpacked."""
        return self.members[name].file_size if self.zip else (self.path / name).stat().st_size

    def line(self, name, row):
        """"FILE, line N" of a row of a CSV, counted from 0 and without the header: blank lines are lines, but no rows."""
        with self.open(name) as file:
            lines = csv.reader(io.TextIOWrapper(file, "utf-8-sig", "replace", newline=""))
            try:
                filled = (lines.line_num for fields in lines if len(fields) > 1 or any(map(str.strip, fields)))
                number = next(islice(filled, row + 1, None), row + 2)
            except csv.Error:  # a field of 128 KiB, say
                number = row + 2
        return f"{self.path / name}, line {number}"

    def note(self):
        """What the maker of a converted or synthetic data set left beside it."""
        if not self.has("source.json"):
            return {"name": "WeChat Big Data Challenge 2021"}
        with self.open("source.json") as file:
            try:
                note = json.load(file)
            except (ValueError, *DAMAGED):
                note = None
        if not isinstance(note, dict) or not isinstance(note.get("name"), str):
            raise InputError(f"{self.path / 'source.json'} is damaged: make the data again, or remove it.")
        return note


def read_columns(source, name, columns, optional=(), text=(), real=(), within=None):
    """{column: array} of a CSV: int64, float64 for the columns in `real`, strings for those in `text`.

    An empty id of FEED_IDS is MISSING, an empty real NaN, an empty string "". Columns in `optional` may be absent.
    within: {column: (low, high)} for whole numbers that have bounds; they are uint8 or int32, whichever holds them.

    Raises InputError naming the file, and the row and column where there is one. A row of more fields than the header is
    refused too: pandas would drop the last ones and read the others in their neighbours' columns.
    """
    import pandas as pd

    place, within = source.path / name, within or {}
    try:
        with source.open(name) as file:
            header = read_header(file, place)
    except DAMAGED as error:
        raise InputError(f"{place} cannot be unpacked ({str(error).strip()}): download the zip again.") from None
    lost = [column for column in columns if column not in header and column not in optional]
    if lost:
        raise InputError(f"{place}: column {lost[0]} is missing from the header: restore it.")
    columns = [column for column in columns if column in header]
    options = dict(header=0, names=header, usecols=columns, index_col=False, encoding="utf-8-sig", encoding_errors="replace")
    may_be_empty = (*real, *(column for column in FEED_IDS if column in within))
    kinds = {column: str if column in text else np.float64 if column in may_be_empty else np.int64 for column in columns}

    def collect(file, kinds, numbers):
        """{column: array}, read a chunk at a time: no more than a chunk is ever wider than it has to be."""
        found = {column: [] for column in columns}
        with pd.read_csv(file, dtype=kinds, chunksize=CHUNK, **options) as chunks:
            for chunk in chunks:
                for column, parts in found.items():
                    if column in text:
                        parts.append(chunk[column].fillna("").to_numpy(object))
                    else:
                        parts.append(_narrowed(numbers(chunk[column], column), within.get(column)))
        return {column: np.concatenate(found.pop(column)) for column in columns}

    try:
        with source.open(name) as file, bar(f"reading {name}", size=source.size(name)) as done, np.errstate(invalid="ignore"):
            file = _Watched(file, done, len(header))
            found = collect(file, kinds, lambda values, column: values.fillna(MISSING) if column in FEED_IDS else values)
        if file.suspect:
            _refuse_long_rows(source, name, len(header))
    except (pd.errors.EmptyDataError, pd.errors.ParserError, *DAMAGED) as error:
        if "Calling read" in str(error):  # what pandas may make of a Ctrl-C that comes while it reads
            raise KeyboardInterrupt from None
        raise InputError(f"{place} cannot be parsed ({str(error).strip()}): get the file again.") from None
    except (ValueError, OverflowError):  # a value somewhere that is not what its column holds: read again, and look for it
        _refuse_long_rows(source, name, len(header))
        with source.open(name) as file:
            line = partial(source.line, name)
            found = collect(file, str, lambda strings, column: _numbers(strings, line, column, column in real, within.get(column)))
    if not len(found[columns[0]]):
        raise InputError(f"{place} has no rows: get the file again.")
    return {column: values.tolist() if column in text else values for column, values in found.items()}


def read_header(file, place):
    """The names in the first line of a CSV, spaces and quotes around them removed. Raises InputError."""
    line = re.split("[\r\n]", file.readline().decode("utf-8-sig", "replace"))[0]
    header = [name.strip() for name in next(csv.reader([line], skipinitialspace=True), [])]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in line:
            raise InputError(f"{place} has {name} between its columns: save it with commas.")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise InputError(f"{place}: column {twice[0]} stands twice in the header: remove one.")
    return [name or f"column {number} without a name" for number, name in enumerate(header, start=1)]


class _Watched:
    """A binary file whose reads move a bar; `suspect` if not every line has `width` fields without a quote.

    It has no read1, which pandas would prefer to read and which would pass the bar by.
    """

    def __init__(self, file, done, width):
        self.file, self.done, self.suspect = file, done, False
        self.line, self.begun = b"," * (width - 1) + b"\n", b""  # separators of a line, and of the line that is not read to its end

    def read(self, size=-1):
        block = self.file.read(size)
        self.done.update(len(block))
        separators = self.begun + block.translate(None, NO_SEPARATORS)
        lines = len(separators) // len(self.line)
        self.suspect = self.suspect or not (self.line * (lines + 1)).startswith(separators)
        self.begun = separators[lines * len(self.line) :]
        return block

    def __iter__(self):  # pandas asks for it, and does not use it
        return iter(self.file)


def _refuse_long_rows(source, name, width):
    """Look at a CSV row by row: raise InputError where one has more than `width` fields and what is too much is not empty."""
    with source.open(name) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "replace", newline="")
        try:
            for row in (rows := csv.reader(text)):
                if len(row) > width and any(row[width:]):
                    raise InputError(f"{source.path / name}, line {rows.line_num}: it has {len(row)} fields and the header {width}: mend or remove the line.")
        except csv.Error as error:
            raise InputError(f"{source.path / name}, line {rows.line_num} cannot be parsed ({error}): get the file again.") from None


def _narrowed(values, bounds):
    """A column as an array, uint8 or int32 if it has bounds. Raises ValueError for infinity, a fraction within bounds, and what is outside."""
    values = values.to_numpy()
    if bounds is None:
        wrong = np.isinf(values)
    else:
        low, high = bounds
        wide, values = values, values.astype(np.uint8 if high < 256 else np.int32)
        wrong = (values != wide) | (values < low) | (values > high)
    if wrong.any():
        raise ValueError
    return values


def _numbers(strings, line, column, real, bounds):
    """The numbers of a column of strings such as 5, 5.0 or, where that is allowed, nothing: NaN, or MISSING for an id.

    Raises InputError for the first that is none or not within bounds; line(row) names the place of a row.
    """
    import pandas as pd

    numbers, empty = pd.to_numeric(strings, errors="coerce").astype(np.float64), strings.isna()
    wrong = ~np.isfinite(numbers) & ~(empty & (real or column in FEED_IDS))
    if not real:
        wrong |= ~empty & (numbers != np.floor(numbers))
    if wrong.any():
        row = wrong.idxmax()
        given = "nothing" if empty[row] else reprlib.repr(strings[row])
        raise InputError(f"{line(row)}, column {column}: {given} is not a {'whole ' * (not real)}number: mend or remove the line.")
    if real:
        return numbers
    numbers = numbers.mask(empty, MISSING).clip(-(2.0**62), 2.0**62).astype(np.int64)
    low, high = bounds or (-(2**62), 2**62)
    wrong = (numbers < low) | (numbers > high)
    if wrong.any():
        row = wrong.idxmax()
        raise InputError(f"{line(row)}, column {column}: {numbers[row]} is not in {low}..{high}: mend or remove the line.")
    return numbers
