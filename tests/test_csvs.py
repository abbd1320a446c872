"""Reading of the contest's files: what is right is read as it stands, all else is refused."""

import csv
import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from common import blocks, lines
from common.columns import ACTIONS, FEED_IDS, KEYWORD_LISTS, TAG_LISTS
from common.command import InputError
from common.contest import MIN_WEIGHT, parse_list
from common.csvs import LARGEST_ID, MISSING, read_columns
from common.lines import write_columns
from common.source import Source

import numpy as np
import pandas as pd
import pytest
from contest_files import EMBEDDINGS, FILES, FUZZ, LOG, TABLES, contents, refusal
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("error")  # a warning in a terminal is no sentence


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


def text_of(rows, **options):
    file = io.StringIO()
    csv.writer(file, **{"lineterminator": "\n"} | options).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("n_rows", [0, 1, 3, 20])
def test_what_is_written_is_what_pandas_writes(n_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", 3)
    rng = np.random.default_rng(n_rows)
    reals = rng.choice([0.0, -0.0, 1.0, np.nan, np.inf, 1e-9, -2.5, 0.1234565, 3e7], (n_rows, 4))
    columns = {"id": rng.integers(-(2**62), 2**62, n_rows), 'a "real", so': reals[:, 0]}
    columns |= {"few": rng.integers(0, 2, n_rows, np.uint8), "single": reals[:, 1].astype("f4")}
    columns |= {"half": np.minimum(reals[:, 2], 9).astype("f2"), "any": reals[:, 3]}
    columns["large"] = rng.integers(2**63, 2**64 - 1, n_rows, np.uint64)
    any_kind = {name: values.astype(object) for name, values in columns.items() if name == "any"}
    write_columns(tmp_path / "out.csv", columns | any_kind)
    wanted = pd.DataFrame(columns).to_csv(index=False, float_format="%.6f", lineterminator="\n")
    assert (tmp_path / "out.csv").read_bytes() == wanted.encode()
    with pytest.raises(ValueError):
        write_columns(tmp_path / "out.csv", columns | {"longer": np.zeros(n_rows + 1)})
    assert (tmp_path / "out.csv").read_bytes() == wanted.encode()


def shuffled(text, names, values, rng):
    """The text with further columns of these values, its columns in random order."""
    rows = [[*row, *more] for row, more in zip(rows_of(text), [names, *values], strict=False)]
    order = rng.permutation(len(rows[0]))
    return text_of([[row[i] for i in order] for row in rows])


def dressed_header(text, rng):
    header, _, rest = text.partition("\n")
    dresses = ["{}", " {}", "{} ", '"{}"', ' "{}"', '" {} "', "\t{}"]
    return ",".join(str(rng.choice(dresses)).format(n) for n in header.split(",")) + " \n" + rest


ENDS = ["\n", "\r\n", "\r"]
BLANK = ["\n", "\n\n", "\n  \n", "\n\n \n"]
FLOATS = [r"\1.0,+\2,", r"0\1,\2.000,", r" \1, \2 ,", r"\1e0,\2.,"]
CHINESE = ["描述", "歌手", "作者"], [["一二", "", "五"]] * 8
SAME = {
    "dressed header": dressed_header,
    "mark of UTF-8": lambda text, rng: "\ufeff" + dressed_header(text, rng),
    "columns in GBK": lambda text, rng: shuffled(text, *CHINESE, rng).encode("gbk"),
    "long texts": lambda text, rng: shuffled(text, ["x"], [["x" * 5000], [" " * 5000]] * 4, rng),
    "Windows": lambda text, rng: text.replace("\n", "\r\n"),
    "Windows twice": lambda text, rng: text.replace("\n", "\r\r\n"),
    "an old Mac": lambda text, rng: text.replace("\n", "\r"),
    "several systems": lambda text, rng: re.sub("\n", lambda _: str(rng.choice(ENDS)), text),
    "no line break at the end": lambda text, rng: text[:-1],
    "quotes": lambda text, rng: text_of(rows_of(text), quoting=csv.QUOTE_ALL),
    "commas after rows": lambda text, rng: re.sub(r"(?<=\n)(.+)", r"\1,,,", text),
    "commas after all lines": lambda text, rng: text.replace("\n", ",,\n"),
    "blank lines": lambda text, rng: re.sub("\n", lambda _: str(rng.choice(BLANK)), text),
    "floats": lambda text, rng: re.sub(r"(?m)^(\d+),(\d+),", str(rng.choice(FLOATS)), text),
}


@pytest.mark.parametrize("block", [1, 40, blocks.BLOCK])
@pytest.mark.parametrize("kind", SAME)
def test_what_says_the_same_in_another_way_is_read_the_same(source, monkeypatch, kind, block):
    expected = contents(source)
    monkeypatch.setattr(blocks, "BLOCK", block)
    for seed, (name, text) in enumerate(TABLES.items()):
        content = SAME[kind](text, np.random.default_rng(seed))
        assert content != text
        (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        assert contents(source) == expected


WORDS = {  # words that stand for no value of these columns
    ("user_action.csv", ("userid", "feedid", "date_", "device", "play")): [
        *("nine", "9.5", "-9", "4294967296", "9" * 20, "inf", "1e400", "1e19", "nan", "NULL", ""),
        *("5 6", "0x10", "1_0", "\x009", "9\x009", "一", "\ufffd", "1e-3", "1,5"),
    ],
    ("user_action.csv", ACTIONS): ["2", "255", "256", "-1", "yes", "0.5", ""],
    ("user_action.csv", ("date_",)): ["0", "2147483648"],
    ("feed_info.csv", (*FEED_IDS, "feedid")): ["-7", "4.5", "9" * 20, "inf", "seven"],
    ("feed_info.csv", ("videoplayseconds",)): ["inf", "-inf", "1e400", "long"],
    ("feed_info.csv", TAG_LISTS + KEYWORD_LISTS): [
        *("two", "1_0", "9" * 20, "1;-1;2", "1.5;", "3;1 x", "²", "1 0,5", "7 1 1")
    ],
    ("test_a.csv", ("userid", "feedid", "device")): ["", "x", "2147483648"],
}


def wrong_words(name, columns, rng):
    """(file, its text, part of the sentence) for each word that is no value of these columns."""
    for word in WORDS[name, columns]:
        rows = rows_of(FILES[name])
        line = int(rng.integers(2, len(rows) + 1))
        column = str(rng.choice(columns))
        rows[line - 1][rows[0].index(column)] = word
        n_blank = int(rng.integers(3))
        text = text_of(rows).replace("\n", "\n" + "  \n" * n_blank, 1)
        yield name, text, f"line {line + n_blank}, column {column}: "


def damaged_lines(rng):
    """(file, its text, part of the sentence) for each way in which a line can be damaged."""
    name = str(rng.choice([*TABLES]))
    lines = FILES[name].splitlines()
    first, second = np.sort(rng.permutation(np.arange(1, len(lines)))[:2]).tolist()
    n = lines[0].count(",") + 1
    longer = [line + ",1" * (row == second) for row, line in enumerate(lines)]
    told = f"line {second + 1}: it has {n + 1} fields and the header {n}"
    for end in ENDS:
        yield name, end.join(longer), told
        yield name, longer[0] + end + "\r".join(longer[1:]), told
    longer[first] = longer[first].rpartition(",")[0]  # pandas tells a long line by its commas
    yield name, "\n".join(longer), told
    for rows in ([first], [first, second], [second]):
        quoted = lines.copy()
        for row in rows:
            place = rng.choice([m.end() for m in re.finditer("^|,", lines[row])])
            quoted[row] = lines[row][:place] + '"' + lines[row][place:]
        end = second + 1 if len(rows) == 2 else len(lines)
        yield name, "\n".join(quoted) + "\n", f"line {end}: a quote is not closed before it"
    cut = int(rng.integers(LOG.index("\n12,") + 4, LOG.rindex(",") + 1))
    yield "user_action.csv", LOG[:cut], "line 9: it has "
    for name in ("feed_info.csv", "feed_embeddings.csv"):
        lines = FILES[name].splitlines()
        feed = lines[first].split(",")[0]
        text = "\n".join([*lines, lines[first]])
        yield name, text, f"line {len(lines) + 1}: feed {feed} is listed twice"
    vectors = EMBEDDINGS.splitlines()
    feed, _, numbers = vectors[second].partition(",")
    wrong = [f"{feed}.5,{numbers}", f"-1,{numbers}", f'{feed},"{numbers}"', f"{9**20},{numbers}"]
    words = ["1e300", "-1e39", "nan", "inf", "x", "0x1", "1 2", ""]
    for line in wrong + [re.sub(r"\S+ $", word, f"{feed},{numbers}") for word in words]:
        changed = "\n".join([*vectors[:second], line, *vectors[second + 1 :]])
        yield "feed_embeddings.csv", changed, f"line {second + 1}: not an id and 8 finite numbers"


MISSPELT = """read_comment readcomment Read_Comment read-comment; like Like likes; play Play;
click_avatar click_avater; favorite favourite; userid user_id UserID; date_ date"""
NEEDED = {
    "user_action.csv": ["userid", "feedid", "date_", "device"],
    "feed_info.csv": ["feedid", *FEED_IDS, *TAG_LISTS, *KEYWORD_LISTS, "videoplayseconds"],
    "test_a.csv": ["userid", "feedid", "device"],
}
NO_TEXT = b"", b"\n\n", bytes(99), b"x" * 200_000, b"\x89PNG\r"
NO_NOTE = b"[]", b"{", b'{"name": 5}', b"null", b"", b"[" * 10**5, b"\xff", b"9" * 5000
DAMAGE = {  # kind: (file, its content, part of the sentence)
    "separators": [
        (name, text.replace(",", separator), f"{name} has {told} between its columns")
        for name, text in FILES.items()
        for separator, told in ((";", "semicolons"), ("\t", "tabs"))
    ],
    "no rows": [(n, text.splitlines()[0], f"{n} has no rows") for n, text in FILES.items()],
    "no text": [
        (name, content, name)
        for name, text in FILES.items()
        for content in (*NO_TEXT, text.encode("utf-16"))
    ],
    "misspelt columns": [
        ("user_action.csv", LOG.replace(right, wrong, 1), f"'{wrong}' of the header is nearly")
        for right, *words in map(str.split, MISSPELT.split(";"))
        for wrong in words
    ],
    "lost columns": [
        (name, re.sub(rf"\b{column}\b", "x", FILES[name], count=1), f"column {column} is missing")
        for name, columns in NEEDED.items()
        for column in columns
    ],
    "lost actions": [
        ("user_action.csv", re.sub("|".join(ACTIONS), "", LOG), "has no column of read_comment")
    ],
    "a column twice": [("user_action.csv", LOG.replace("stay", " play", 1), "'play' stands twice")],
    "no note": [("source.json", content, "source.json") for content in NO_NOTE],
    "no numbers of a feed": [
        ("feed_embeddings.csv", "feedid,feed_embedding\n100,\n101,\n", "line 2: not an id and"),
        ("feed_embeddings.csv", "feedid,feed_embedding\n\n\n", "line 2: not an id and"),
    ],
}
RNG = np.random.default_rng
DAMAGE |= {f"words of {key}": [*wrong_words(*key, RNG(0))] for key in WORDS}
DAMAGE |= {f"lines {seed}": [*damaged_lines(RNG(seed))] for seed in range(4)}


@pytest.mark.parametrize("block", [1, 60, blocks.BLOCK])
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_refused_and_its_place_is_named(source, monkeypatch, kind, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    for name, content, told in DAMAGE[kind]:
        told = f"{name}, {told}" if told.startswith("line ") else told
        assert told in refusal(source, **{name: content})


IDS = st.integers(0, LARGEST_ID)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
ROWS = st.tuples(IDS, st.none() | IDS, st.none() | st.floats(0, 1e6), TEXTS)
PIECES = ["", "", "\n", ",", '"', ";", " ", "\r", "\0", "0", "1", "-", ".", "e", "9" * 20, "nan"]
PIECES += ["inf", "true", "一", "\ud7ff", "\ufeff", ";;", '"5"', "1 0.5", "\r\n", "0x10", "1_0"]
SPLICES = st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(PIECES))


@FUZZ
@given(st.lists(ROWS, min_size=1), st.permutations(range(4)), st.booleans(), st.booleans())
def test_a_csv_that_is_written_is_read_again(rows, order, quoted, windows):
    names = ["userid", "authorid", "seconds", "text"]
    options = {"quoting": csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL}
    options |= {"lineterminator": "\r\n" if windows else "\n"}
    text = text_of([[row[i] for i in order] for row in [names, *rows]], **options)
    with TemporaryDirectory() as folder:
        Path(folder, "a.csv").write_bytes(text.encode())
        kinds = {"text": ["text"], "real": ["seconds"]}
        kinds["within"] = {"userid": (0, LARGEST_ID), "authorid": (MISSING, LARGEST_ID)}
        columns = read_columns(Source(folder), "a.csv", names, **kinds)
    users, authors, seconds, texts = zip(*rows, strict=True)
    assert columns["userid"].tolist() == [*users]
    assert columns["authorid"].tolist() == [MISSING if i is None else i for i in authors]
    np.testing.assert_array_equal(columns["seconds"], np.array(seconds, float))
    blank = {"", *"NA NaN nan null NULL None n/a N/A #N/A <NA> #NA -nan -NaN".split()}
    assert columns["text"] == ["" if text in blank else text for text in texts]


@FUZZ
@given(st.lists(st.lists(st.tuples(IDS, st.none() | st.floats(0, 1)))), st.sampled_from(["", "  "]))
def test_a_list_that_is_written_is_read_again(lists, blank):
    def item(value, weight):
        return f"{blank}{value}" + ("" if weight is None else f" {weight}") + blank

    strings = [";".join(item(*pair) for pair in pairs) + blank for pairs in lists]
    values, lengths = parse_list(strings, "line {}".format, "tags")
    kept = [[v for v, weight in row if weight is None or weight >= MIN_WEIGHT] for row in lists]
    assert lengths.tolist() == [len(row) for row in kept]
    assert values.tolist() == [value for row in kept for value in row]


def slowly_read(path, columns):
    """The rows of whole numbers of a file, by Python's csv."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        header, *rows = csv.reader(file)
    places = [[name.strip(' "\t') for name in header].index(column) for column in columns]
    truths = {"true": 1, "false": 0}
    return [
        [float(truths.get(row[i].strip().lower(), row[i])) for i in places]
        for row in rows
        if len(row) > 1 or any(field.strip() for field in row)
    ]


@FUZZ
@given(st.sampled_from([*FILES]), st.lists(SPLICES, min_size=1, max_size=3), st.integers(1, 200))
def test_a_file_damaged_at_random_is_read_as_it_stands_or_refused(source, name, splices, block):
    text = FILES[name]
    for where, n_lost, piece in splices:
        start = int(where * len(text))
        text = text[:start] + piece + text[start + n_lost :]
    path = source / name
    path.write_bytes(text.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        try:
            raw = contents(source)
            if table := {"user_action": raw["log"], **raw["tests"]}.get(path.stem):
                rows = [*map(list, zip(*table.values(), strict=True))]
                assert rows == slowly_read(path, table)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        finally:
            path.write_text(FILES[name])
