"""The one reader of CSVs: columns by name, checked, of one type, or one sentence."""

import csv
import io
import re
import reprlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import islice

from common.blocks import blocks_of, in_two_threads
from common.columns import FEED_IDS
from common.command import InputError, bar
from common.source import Source, unpacking

import numpy as np

LARGEST_ID = 2**31 - 1
MISSING = -1  # an id that the CSV leaves empty
NO_SEPARATORS = bytes(set(range(256)) - set(b',\n"'))


def read_columns(source, name, columns, optional=(), text=(), real=(), within=None):
    """{column: array} of a CSV: int64, float64 for the columns in `real`, strings for `text`.

    An empty id of FEED_IDS is MISSING, an empty real NaN, an empty string "". Columns in `optional`
    may be absent. within: {column: (low, high)} for whole numbers that have bounds; they are uint8,
    int32 or int64, whichever holds them. Raises InputError naming file, row and column.
    """
    found = {}
    for chunk in read_chunks(source, name, columns, optional, text, real, within):
        for column, values in chunk.items():
            if column not in found:
                found[column] = values.tolist() if column in text else values.copy()
            elif column in text:
                found[column] += values.tolist()
            else:  # where it lies, so that there is never a column twice
                n = len(found[column])
                found[column].resize(n + len(values), refcheck=False)
                found[column][n:] = values
    return found


def read_chunks(source, name, columns, optional=(), text=(), real=(), within=None):
    """What `read_columns` gives, some rows at a time; an error may come after some of them."""
    import pandas as pd

    place = source.path / name
    with source.open(name) as file, unpacking(place):
        header = read_header(file, place)
    columns = present(columns, header, optional, place)
    reader = Reader(source, name, header, columns, text, real, within or {})
    n_rows = 0
    n_chunks = 0
    try:
        for chunk in reader.chunks():
            n_chunks += 1
            n_rows += len(chunk[columns[0]])
            yield chunk
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reader.refuse_bad_rows()
        reason = str(error).strip()
        raise InputError(f"{place} cannot be parsed ({reason}): get the file again.") from None
    except (ValueError, OverflowError):  # a value that is not what its column holds: look for it
        reader.refuse_bad_rows()
        for chunk in islice(reader.chunks(strictly=True), n_chunks, None):
            n_rows += len(chunk[columns[0]])
            yield chunk
    if reader.suspect:
        reader.refuse_bad_rows()
    if not n_rows:
        raise InputError(f"{place} has no rows: get the file again.")


def present(columns, header, optional, place):
    """Those of the columns that the header has. Raises InputError for lost and misspelt ones."""
    absent = [column for column in columns if column not in header]
    extra = {name.lower(): name for name in header if name not in columns}
    for column in absent:
        near = get_close_matches(column, extra, n=1, cutoff=0.8)
        if near:
            name = reprlib.repr(extra[near[0]])
            raise InputError(f"{place}: column {name} of the header is nearly {column}: rename it.")
        if column not in optional:
            raise InputError(f"{place}: column {column} is missing from the header: restore it.")
    return [column for column in columns if column in header]


def read_header(file, place):
    """The names in the first line of a CSV, without blanks and quotes. Raises InputError."""
    line = re.split("[\r\n]", file.readline(1 << 20).decode("utf-8-sig", "replace"))[0]
    try:
        fields = next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error as error:  # a field of 128 KiB, say
        raise InputError(f"{place}: the header cannot be parsed ({error}): mend it.") from None
    names = [name.strip(' "\t') for name in fields]
    # a name that is not in UTF-8 is none of ours, and may look like another that is not
    numbered = enumerate(names, 1)
    header = [n if n and "\ufffd" not in n else f"column {i} without a name" for i, n in numbered]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in line:
            raise InputError(f"{place} has {name} between its columns: save it with commas.")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(f"{place}: column {reprlib.repr(twice[0])} stands twice: remove one.")
    return header


@dataclass
class Reader:
    """A reading of a CSV by pandas, a block at a time, so that little is wider than it must be."""

    source: Source
    name: str
    header: list
    columns: list
    text: tuple
    real: tuple
    within: dict
    suspect: bool = False  # whether rows may be bad
    last: str = ""  # the line that was noted last

    def chunks(self, strictly=False):
        """{column: array} of a block at a time. Raises ValueError, strictly InputError."""
        may_be_empty = (*self.real, *(c for c in FEED_IDS if c in self.within))
        kinds = {c: np.float64 if c in may_be_empty else np.int64 for c in self.columns}
        kinds |= {column: str for column in self.columns if strictly or column in self.text}
        n_rows = 0
        with (
            self.source.open(self.name) as file,
            bar(f"reading {self.name}", size=self.source.size(self.name)) as done,
        ):
            blocks = blocks_of(file, self.source.path / self.name, done)
            for rows in in_two_threads(partial(self.parsed, kinds), blocks):
                rows.index += n_rows
                n_rows += len(rows)
                yield {c: self.checked(rows[c], c, strictly) for c in self.columns}

    def parsed(self, kinds, first, block):
        """The columns of a block of lines; first: the line of the header."""
        import pandas as pd

        line = b"," * (len(self.header) - 1) + b"\n"
        separators = block.translate(None, NO_SEPARATORS)
        separators += b"" if block.endswith(b"\n") or not block else b"\n"
        if separators != line * (len(separators) // len(line)):
            self.suspect = True  # a line has more or fewer fields, or a quote
        options = {"header": 0, "names": self.header, "usecols": self.columns, "index_col": False}
        options |= {"encoding": "utf-8-sig", "encoding_errors": "replace", "dtype": kinds}
        options["na_filter"] = {*kinds.values()} != {np.int64}  # whose words are never missing
        with np.errstate(invalid="ignore"):  # inf is no whole number, and a sentence says so
            return pd.read_csv(io.BytesIO(first + block), **options)

    def checked(self, values, column, strictly):
        """A chunk's column as an array. ValueError for a wrong value, strictly InputError."""
        if column in self.text:
            return values.fillna("").to_numpy(object)
        if strictly:
            values = self.numbers(values, column)
        elif column in FEED_IDS:
            values = values.fillna(MISSING)
        return narrowed(values.to_numpy(), self.within.get(column))

    def numbers(self, words, column):
        """The numbers of a column of words such as 5, 5.0 or, where that is allowed, nothing.

        Raises InputError for the first that is none or not within its bounds.
        """
        import pandas as pd

        real = column in self.real
        numbers = pd.to_numeric(words, errors="coerce").astype(np.float64)
        empty = words.isna()
        low, high = self.within.get(column, (-(2.0**62), 2.0**62))
        right = np.isfinite(numbers)
        if not real:
            right &= (numbers == np.floor(numbers)) & numbers.between(low, high)
        if real or column in FEED_IDS:
            right |= empty
        if not right.all():
            row = right.idxmin()
            given = "nothing" if empty[row] else reprlib.repr(words[row])
            expected = "a number" if real else "a whole number"
            if column in self.within:
                expected += f" in {low}..{high}"
            line = self.source.line(self.name, row)
            raise InputError(f"{line}, column {column}: {given} is not {expected}: mend the line.")
        return numbers if real else numbers.fillna(MISSING).astype(np.int64)

    def noted(self, lines):
        """The lines, of which `last` is the one that was given last."""
        for self.last in lines:
            yield self.last

    def refuse_bad_rows(self):
        """Raise InputError for a row that is too long, or whose field goes on over the next line.

        pandas drops the last fields of a long row, and takes rows into a field whose quote is not
        closed. It also fills up the last row, which is short where a download ended.
        """
        place = self.source.path / self.name
        width = len(self.header)
        with self.source.open(self.name) as file, unpacking(place):
            lines = io.TextIOWrapper(file, "utf-8-sig", "replace", newline="")
            rows = csv.reader(self.noted(lines))
            try:
                for row in rows:
                    line = f"{place}, line {rows.line_num}"
                    if any("\n" in field for field in row):
                        raise InputError(f"{line}: a quote is not closed before it: mend the line.")
                    if len(row) > width and any(row[width:]):
                        length = f"it has {len(row)} fields and the header {width}"
                        raise InputError(f"{line}: {length}: mend or remove the line.")
                if self.last[-1:] not in "\r\n" and len(row) < width and any(map(str.strip, row)):
                    length = f"it has {len(row)} fields and the header {width}"
                    raise InputError(f"{line}: {length}: get the file again, or mend the line.")
            except csv.Error as error:
                line = f"{place}, line {rows.line_num}"
                raise InputError(f"{line} cannot be parsed ({error}): mend the line.") from None


def narrowed(values, bounds):
    """A column in the narrowest of three types for its bounds. ValueError for what is outside."""
    if bounds is None:
        if np.isinf(values).any():
            raise ValueError
        return values
    low, high = bounds
    if not (low <= values.min(initial=low) and values.max(initial=low) <= high):  # or a NaN
        raise ValueError
    narrow = values.astype(np.uint8 if high < 256 else np.int32 if high <= LARGEST_ID else np.int64)
    if values.dtype.kind == "f" and (values != narrow).any():
        raise ValueError
    return narrow
