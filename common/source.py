"""A folder or a zip of CSVs: which files it has, and what is wrong with it, in one sentence."""

import csv
import errno
import io
import json
import zipfile
import zlib
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without it
    LZMAError = EOFError

from common.columns import TESTS
from common.command import InputError

DENSEST = 200  # a member of a zip that unpacks to more times its size is no table but a bomb
MEMBERS = (".csv", ".json", ".npy")  # what a zip may hold for us; a Mac adds other files
DAMAGED = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError)
DAMAGED += (RuntimeError, UnicodeDecodeError)  # a password, a member's name


@contextmanager
def unpacking(place):
    """Refuse, in one sentence, what zipfile cannot unpack."""
    try:
        yield
    except DAMAGED as error:
        reason = str(error).strip()
        raise InputError(f"{place} cannot be unpacked ({reason}): download it again.") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of a place before the file's first byte
            raise
        raise InputError(f"{place} cannot be unpacked ({error}): download it again.") from None


class Source:
    """The CSVs of a folder or of a zip, by name. Raises InputError where there is neither."""

    def __init__(self, path):
        self.path = Path(path)
        self.zip = None
        self.members = {}  # of a zip: {file name: member} of its tables
        if self.path.is_file():
            if self.path.suffix.lower() == ".csv":
                raise InputError(f"{path} is one CSV: give the folder that holds it.")
            with open(path, "rb") as file:
                if file.read(2) != b"PK":
                    remedy = "download it again, or unpack it and give its folder"
                    raise InputError(f"{path} is no zip: {remedy}.")
            with unpacking(path):
                self.zip = zipfile.ZipFile(path)
        elif not self.path.is_dir():
            raise InputError(f"{path} does not exist: check the path.")
        for member in self.zip.infolist() if self.zip else ():
            name = Path(member.filename).name
            if not name.endswith(MEMBERS) or name.startswith("."):
                continue
            if name in self.members:
                raise InputError(f"{path} holds two files {name}: leave one of them in it.")
            if member.file_size > DENSEST * max(member.compress_size, 1000):
                size = f"{member.file_size:,} bytes"
                raise InputError(f"{path}: {name} would unpack to {size}: download it again.")
            self.members[name] = member

    @classmethod
    def of_contest(cls, path):
        """The contest's files in a folder, in `wechat_algo_data*/` there, in a zip there or at it.

        A zip may have any name, as "wechat_algo_data1 (1).zip". Raises InputError.
        """
        path = Path(path)
        source = cls(path)
        if source.zip is not None or source.has("user_action.csv"):
            return source
        places = [place for place in sorted(path.iterdir()) if place.name[0] != "."]  # a Mac's
        found = [place for place in places if holds_a_log(place)]
        if len(found) > 1:
            names = " and ".join(map(str, found))
            raise InputError(f"{names} hold a user_action.csv each: say which to take.")
        lost = [path / f"{test}.csv" for test in TESTS if source.has(f"{test}.csv")]
        if found and lost:
            where = f"{lost[0]} lies beside {found[0]} and would not be read"
            raise InputError(f"{where}: put it beside an unpacked user_action.csv.")
        return cls(found[0]) if found else source

    def has(self, name):
        return name in self.members if self.zip else (self.path / name).exists()

    def open(self, name):
        if not self.has(name):
            raise InputError(f"{self.path / name} is missing: put it there, or give its folder.")
        if not self.zip:
            return open(self.path / name, "rb")
        with unpacking(f"{self.path}: {name}"):
            return self.zip.open(self.members[name])

    def size(self, name):
        """Bytes of the file, unpacked."""
        return self.members[name].file_size if self.zip else (self.path / name).stat().st_size

    def line(self, name, row):
        """ "FILE, line N" of a row counted from 0: a blank line is a line, but no row."""
        with self.open(name) as file:
            lines = csv.reader(io.TextIOWrapper(file, "utf-8-sig", "replace", newline=""))
            filled = (
                lines.line_num for fields in lines if len(fields) > 1 or any(map(str.strip, fields))
            )
            try:
                number = next(islice(filled, row + 1, None), row + 2)
            except csv.Error:  # a field of 128 KiB, say
                number = row + 2
        return f"{self.path / name}, line {number}"

    def note(self):
        """What the maker of a converted or synthetic data set left beside it."""
        if not self.has("source.json"):
            return {"name": "WeChat Big Data Challenge 2021"}
        place = self.path / "source.json"
        with self.open("source.json") as file, unpacking(place):
            try:
                note = json.load(file)
            except ValueError:
                note = None
        if not isinstance(note, dict) or not isinstance(note.get("name"), str):
            raise InputError(f"{place} is damaged: make the data again, or remove it.")
        return note


def holds_a_log(place):
    """Whether it is `wechat_algo_data*/` or a zip, with a user_action.csv. Raises InputError."""
    if place.suffix.lower() == ".zip" and place.is_file():
        with unpacking(place), zipfile.ZipFile(place) as file:
            return any(Path(name).name == "user_action.csv" for name in file.namelist())
    return place.name.startswith("wechat_algo_data") and (place / "user_action.csv").exists()


def file_of(path):
    """The Source and the name of one CSV that a user names. Raises InputError."""
    path = Path(path)
    if path.suffix.lower() == ".zip":
        raise InputError(f"{path} is a zip: unpack it, and give the CSV.")
    return Source(path.parent), path.name
