"""Damaged and odd inputs by the hundred: get_data.py reads what is there, or refuses in one sentence, and nothing else.

A longer search: FUZZ_CASES=10000 python -m pytest -q tests/test_fuzz.py
"""
import csv
import io
import os
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import KUAIRAND, script
from hypothesis import given, settings, strategies as st

import get_data
from common.columns import ACTIONS
from common.pickles import FIRST, OTHER, PADDING, InputError, load, read
from common.reading import LARGEST_ID, MISSING, Source, read_columns

CASES = int(os.environ.get("FUZZ_CASES", 300))
ROWS = 120  # of the log that is damaged
FIELDS = (
    "", " ", "nan", "NULL", "inf", "-1", "0", "1", "2", "0.5", "1.0", "1e3", "007", "+3", " 4 ", "0x10", "1_0", "true", "-0.0", "2147483648",
    "99999999999999999999", "1e400", "一", "\u0663", '"', '""', '"5"', "'", "1,2", ",", ";", ";;1", "1;2;", "1 0.5;2", "1  0.5", "1 nan",
    "a;b", "\x00", "\r", "\n", "\r\n", "\ufeff", "\ud7ff", "5 " * 500, " " * 3000, "=1+1", "2021-07-01", "1 2 3",
)


# ---- properties


ids = st.integers(0, LARGEST_ID)


@given(st.lists(st.tuples(ids | st.just(MISSING), st.integers(0, 9)), min_size=1), st.integers(1, 12))
def test_every_id_decodes_to_itself_or_is_rare_or_missing(rows, min_count):
    raw, counts = (np.array(column, np.int64) for column in zip(*rows))
    known = get_data.vocabulary(raw, counts, min_count)
    codes = get_data.encode(raw, known)
    total = {one: counts[raw == one].sum() for one in raw.tolist()}
    for one, code, back in zip(raw.tolist(), codes.tolist(), get_data.decode(codes, known).tolist()):
        if one == MISSING:
            assert code == PADDING and back == MISSING
        elif total[one] >= min_count:
            assert code >= FIRST and back == one
        else:
            assert code == OTHER and back == MISSING
    assert codes.max() < FIRST + len(known)


@given(st.lists(st.integers(0, 50) | ids), st.lists(st.integers(MISSING, 50) | ids), st.integers(1, 60))
def test_rows_and_distinct_ids_are_the_same_whichever_way_they_are_found(keys, wanted, times):
    keys, wanted = np.unique(np.array(keys, np.int32)), np.array(wanted * times, np.int32)  # many ids are looked up in a table, few are searched
    place = {key: row for row, key in enumerate(keys.tolist(), start=1)}
    assert get_data.rows_of(wanted, keys).tolist() == [place.get(one, 0) for one in wanted.tolist()]
    there = wanted[wanted >= 0]
    assert get_data.distinct(there).tolist() == sorted(set(there.tolist())) and get_data.distinct(there).dtype == np.int64


@given(st.lists(st.lists(st.tuples(ids, st.none() | st.floats(0, 1, width=32)))), st.sampled_from(["", " ", "  "]), st.booleans())
def test_a_list_that_is_written_is_read_again(lists, space, trailing):
    def item(value, weight):
        return space + str(value) + ("" if weight is None else f" {weight}") + space

    strings = [";".join(item(*one) for one in row) + ";" * trailing for row in lists]
    values, lengths = get_data.parse_list(strings, lambda row: f"feed_info.csv, line {row + 2}", "tags")
    kept = [[value for value, weight in row if weight is None or float(str(weight)) >= get_data.MIN_WEIGHT] for row in lists]
    assert lengths.tolist() == [len(row) for row in kept]
    assert values.tolist() == [value for row in kept for value in row]


@given(st.lists(st.text(alphabet=st.sampled_from("0123456789;. -+eEnaif\x00一\t\""))))
def test_any_text_is_a_list_or_is_refused(strings):
    try:
        values, lengths = get_data.parse_list(strings, lambda row: f"feed_info.csv, line {row + 2}", "tags")
    except InputError as error:
        assert "feed_info.csv, line " in str(error) and "\n" not in str(error)
    else:
        assert len(values) == lengths.sum() and len(lengths) == len(strings)


@settings(deadline=None)
@given(st.data())
def test_a_csv_that_is_written_is_read_again(tmp_path_factory, data):
    n = data.draw(st.integers(1, 20))
    columns = {
        "userid": data.draw(st.lists(ids, min_size=n, max_size=n)),
        "authorid": data.draw(st.lists(ids | st.none(), min_size=n, max_size=n)),
        "videoplayseconds": data.draw(st.lists(st.none() | st.floats(0, 1e6), min_size=n, max_size=n)),
        "text": data.draw(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])), min_size=n, max_size=n)),
    }
    names = data.draw(st.permutations(list(columns)))
    as_floats = data.draw(st.booleans())
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
                        lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow(names)
    for row in range(n):
        writer.writerow([float(columns[name][row]) if as_floats and name == "userid" else columns[name][row] for name in names])
    folder = tmp_path_factory.mktemp("csv")
    (folder / "a.csv").write_bytes(data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + file.getvalue().encode())
    found = read_columns(Source(folder), "a.csv", names, text=["text"], real=["videoplayseconds"])
    assert found["userid"].tolist() == columns["userid"]
    assert found["authorid"].tolist() == [MISSING if one is None else one for one in columns["authorid"]]
    np.testing.assert_array_equal(found["videoplayseconds"], np.array(columns["videoplayseconds"], float))


# ---- files that are damaged at random


def cut(source, folder):
    """The CSVs of `source` with the first rows of its log and the feeds in them."""
    folder.mkdir()
    log = pd.read_csv(source / "user_action.csv", dtype=str, keep_default_na=False)
    log = log.groupby("date_", sort=False).head(ROWS // log["date_"].nunique() + 1)
    log.to_csv(folder / "user_action.csv", index=False)
    for name in ("feed_info.csv", "feed_embeddings.csv", "test_a.csv"):
        if (source / name).exists():
            rows = pd.read_csv(source / name, dtype=str, keep_default_na=False)
            wanted = rows["feedid"].isin(log["feedid"]) if name.startswith("feed") else rows.index < 20
            rows[wanted].to_csv(folder / name, index=False)
    return folder


@pytest.fixture(scope="session")
def files(tiny, tmp_path_factory):
    """{name: a small folder of CSVs}: of the stand-in and, where it is there, of KuaiRand."""
    folder = tmp_path_factory.mktemp("fuzz")
    found = {"stand-in": cut(tiny, folder / "stand_in")}
    if KUAIRAND.is_dir():
        script("data/kuairand.py", KUAIRAND, folder / "whole", cwd=folder)
        found["KuaiRand"] = cut(folder / "whole", folder / "kuairand")
    return found


def damaged(text, rng):
    """`text`, a CSV, with one to three things done to it that hands, editors and broken downloads do."""
    for _ in range(rng.integers(1, 4)):
        lines = text.split("\n")
        row = int(rng.integers(0, len(lines)))
        fields = lines[row].split(",")
        column = int(rng.integers(0, len(fields)))
        match int(rng.integers(0, 12)):
            case 0 | 1 | 2 | 3:
                fields[column] = FIELDS[rng.integers(0, len(FIELDS))]
            case 4:
                del fields[column]
            case 5:
                fields.insert(column, FIELDS[rng.integers(0, len(FIELDS))])
            case 6:
                fields = fields + [""] * int(rng.integers(1, 4))
            case 7:
                other = int(rng.integers(0, len(fields)))
                fields[column], fields[other] = fields[other], fields[column]
            case 8:
                return text[: rng.integers(0, len(text) + 1)]
            case 9:
                place, length = int(rng.integers(0, len(text) + 1)), int(rng.integers(0, 200))
                text = text[:place] + text[place + length :]
                continue
            case 10:
                place = int(rng.integers(0, len(text) + 1))
                text = text[:place] + chr(rng.choice([0, 9, 10, 13, 32, 34, 44, 45, 46, 48, 59, 127, 233, 0x4E00])) + text[place:]
                continue
            case 11:
                lines.insert(int(rng.integers(0, len(lines))), lines[row])
        lines[row] = ",".join(fields)
        text = "\n".join(lines)
    return text


def slowly_read(path):
    """Rows of userid, feedid, date_, device and the actions as floats, by Python's csv; None where a field is no number."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        header, *rows = csv.reader(file)
    header = [name.strip() for name in header]
    wanted = [header.index(name) for name in ("userid", "feedid", "date_", "device", *(a for a in ACTIONS if a in header))]
    number = {"true": 1.0, "false": 0.0}
    return [
        tuple(number.get(field.strip().lower()) if field.strip().lower() in number else float(field) for field in (row[i] for i in wanted))
        for row in rows if any(field.strip() for field in row) or len(row) > 1
    ]


def read_back(folder):
    """The same rows as they stand in the pickles, as a sorted list."""
    data = load(folder)
    devices = np.concatenate([[MISSING, MISSING], read(folder / "vocabularies.pkl")["device"]])
    rows = []
    for split in (data.train, data.valid):
        columns = [data.tables["user"]["key"][split["user"]], data.tables["feed"]["key"][split["feed"]], split["day"], devices[split["device"]]]
        columns += [split[action] for action in ACTIONS if action in split]
        rows += list(zip(*(column.astype(float).tolist() for column in columns)))
    return sorted(rows)


@pytest.mark.parametrize("part", range(10))
def test_a_damaged_file_is_read_as_it_stands_or_refused_in_one_sentence(files, tmp_path, capsys, part):
    warnings.simplefilter("error")  # a warning on the terminal is no sentence
    accepted = refused = 0
    for case in range(part, CASES, 10):
        rng = np.random.default_rng(case)
        source, out = tmp_path / "source", tmp_path / "out"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(files[sorted(files)[case // 10 % len(files)]], source)
        names = sorted(path.name for path in source.glob("*.csv"))
        name = names[case // 20 % len(names)] if case % 3 else "user_action.csv"
        (source / name).write_bytes(damaged((source / name).read_text(), rng).encode("utf-8", "replace"))
        before = {path.name: path.read_bytes() for path in out.glob("*")}
        code = get_data.main([str(source), "--out", str(out), "--min-count", "1"])
        printed = capsys.readouterr()
        about = f"case {case}, {name}: {printed.err}"
        if code == 0:
            accepted += 1
            assert printed.err == "", about
            left_out = int(printed.out.split("rows of later days left out: ")[1].split()[0])
            assert left_out == 0, about
            found, wanted = read_back(out), sorted(slowly_read(source / "user_action.csv"))
            assert len(found) == len(wanted), about
            trained_on = {row[3] for row in found}  # a device of the validation day alone has no code of its own
            assert found == sorted(row if row[3] in trained_on else (*row[:3], MISSING, *row[4:]) for row in wanted), about
        else:
            refused += 1
            assert code == 2 and printed.err.count("\n") == 1 and str(source) in printed.err and printed.err.endswith(".\n"), about
            assert len(printed.err) < 1000, about
            assert {path.name: path.read_bytes() for path in out.glob("*")} == before, about
    assert accepted and refused
