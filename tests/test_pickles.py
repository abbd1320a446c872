"""The pickles: nothing unsafe is read, nothing that breaks the contract gets further.

CASES=2000 python -m pytest tests/test_pickles.py tries more of what is random (100 by default).
"""

import copy
import io
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

from common.command import InputError
from common.contract import load
from common.embedding import FeatureEmbedding, LookUp
from common.pickles import VERSION, beside, read, write_all

import numpy as np
import pytest

CASES = int(os.environ.get("CASES", "100"))
ROOT = Path(__file__).resolve().parent.parent


def valid_folder(n_rows=30):
    """{file name: content} with every kind of feature."""
    rng = np.random.default_rng(0)

    def rows():
        return {
            "stamp": "s",
            "user": rng.integers(0, 5, n_rows, np.int32),
            "feed": rng.integers(0, 7, n_rows, np.int32),
            "day": rng.integers(0, 3, n_rows, np.int32),
            "device": rng.integers(0, 4, n_rows, np.int32),
            "price": rng.normal(size=(n_rows, 2)),
            "like": (rng.random(n_rows) < 0.5).astype(np.uint8),
            "share": (rng.random(n_rows) < 0.5).astype(np.uint8),
        }

    features = {
        "userid": {"kind": "id", "table": "user", "vocabulary": "userid"},
        "device": {"kind": "id", "table": None, "vocabulary": "device"},
        "tags": {"kind": "list", "table": "feed", "vocabulary": "tag", "default": False},
        "content": {"kind": "dense", "table": "feed", "daily": False, "columns": ["a", "b", "c"]},
        "past": {"kind": "dense", "table": "user", "daily": True},
        "taste": {"kind": "dot", "table": "user", "daily": True, "with": "content"},
        "price": {"kind": "dense", "table": None, "daily": False},
    }
    meta = {
        "version": VERSION,
        "stamp": "s",
        "name": "by hand",
        "synthetic": True,
        "tasks": {"like": 2},
        "more_tasks": {"share": 1},
        "raw": {"user": "userid"},
        "group": "user",
        "tables": ["user", "feed"],
        "valid_day": 2,
        "vocabularies": {"userid": 6, "device": 4, "tag": 9},
        "features": features,
    }
    user = {
        "stamp": "s",
        "key": np.array([-1, 3, 5, 8, 9]),
        "userid": rng.integers(1, 6, 5, np.int32),
        "past": rng.normal(size=(3, 5, 2)).astype(np.float16),
        "taste": rng.normal(size=(3, 5, 4, 3)).astype(np.float16),
    }
    feed = {
        "stamp": "s",
        "key": np.array([-1, 1, 2, 3, 4, 5, 6]),
        "tags": {
            "values": rng.integers(0, 9, 10, np.int32),
            "offsets": np.array([0, 0, 3, 3, 5, 9, 9, 10], np.int32),
        },
        "content": rng.normal(size=(7, 3)).astype(np.float32),
    }
    vocabularies = {
        "stamp": "s",
        "userid": np.array([3, 5, 8, 9]),
        "device": np.array([1, 2]),
        "tag": np.arange(7) * 3,
    }
    tests = {name: rows() for name in ("train", "valid", "test_a")}
    contents = {"meta": meta, "user": user, "feed": feed, "vocabularies": vocabularies, **tests}
    return {f"{name}.pkl": content for name, content in contents.items()}


def read_all(folder):
    """All that is read of a folder, as one nested dict."""
    data = load(folder)
    known = {"meta": data.meta, "tables": data.tables, "train": data.train, "valid": data.valid}
    return known | {"test": data.unlabelled["test_a"], "vocabularies": data.vocabularies}


def same(left, right):
    """Whether two nested dicts are equal, types, shapes and dtypes included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return left == right


def test_a_valid_folder_is_read_and_its_choices_made(tmp_path):
    write_all(tmp_path, valid_folder())
    data = load(tmp_path)
    assert list(data.tasks) == ["like"] and data.loss_weights == {"like": 1.0}
    assert "tags" not in data.features and len(data.features) == 6  # not a default
    data.choose(["share", "like"], [2.0, 0.5], ["tags"])
    assert data.tasks == {"share": 1, "like": 2}
    assert data.loss_weights == {"share": 2.0, "like": 0.5}
    assert list(data.features) == ["tags"]
    assert data.vocabularies["tag"].tolist() == [0, 3, 6, 9, 12, 15, 18]
    labels = data.train["like"]
    assert data.log_odds("like") == pytest.approx(
        np.log((labels.sum() + 0.5) / (len(labels) - labels.sum() + 0.5))
    )
    (tmp_path / "vocabularies.pkl").unlink()
    (tmp_path / "valid.pkl").unlink()
    meta = valid_folder()["meta.pkl"]
    write_all(tmp_path, {"meta.pkl": meta | {"valid_day": None}})
    data = load(tmp_path)
    assert data.valid == data.vocabularies == {} and list(data.unlabelled) == ["test_a"]
    write_all(tmp_path, {"meta.pkl": meta})
    with pytest.raises(InputError, match=r"valid\.pkl is missing"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["user.pkl", "feed.pkl", "train.pkl", "valid.pkl"])
def test_the_fingerprint_tells_any_other_number(file, tmp_path):
    contents = valid_folder()
    write_all(tmp_path, contents)
    before = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == before
    for name in contents[file]:
        if isinstance(contents[file][name], np.ndarray) and name != "key":
            other = copy.deepcopy(contents)
            column = other[file][name].reshape(-1)
            column[3] = column[3] - 1 if column[3] >= 1 else column[3] + 1
            write_all(tmp_path, other)
            assert load(tmp_path).fingerprint != before, name


# ---- the contract


def breakers():
    """(what is broken, function that breaks the contents): several of each kind."""
    cases = {}

    def case(name):
        def keep(function):
            cases[name] = function
            return function

        return keep

    def edit(name, file, column, change):
        def apply(contents):
            contents[file][column] = change(contents[file][column])

        cases[f"{name} {file} {column}"] = apply

    for file in ("train.pkl", "valid.pkl"):
        for task in ("like", "share"):
            edit("labels (n, 1)", file, task, lambda labels: labels[:, None])
            edit("labels beyond 0 and 1", file, task, lambda labels: labels + 1)
            edit("labels of text", file, task, lambda labels: labels.astype("U1"))
            edit("labels NaN", file, task, lambda labels: np.where(labels, np.nan, 0.0))
        for column in ("user", "feed", "day", "device"):
            edit("codes too large", file, column, lambda codes: codes + 7)
            edit("codes negative", file, column, lambda codes: codes - 9)
            edit("codes as floats", file, column, lambda codes: codes.astype(float))
            edit("codes (n, 1)", file, column, lambda codes: codes[:, None])
        for column in ("user", "like", "price"):
            edit("another length", file, column, lambda values: values[:-1])
            edit("a list", file, column, lambda values: values.tolist())
        edit("infinite", file, "price", lambda values: values * np.inf)
    edit("empty", "train.pkl", "like", lambda labels: labels[:0])
    edit("stale", "vocabularies.pkl", "stamp", lambda stamp: "old")
    edit("stale", "user.pkl", "stamp", lambda stamp: "old")
    edit("stale", "test_a.pkl", "stamp", lambda stamp: None)
    edit("vocabulary too short", "vocabularies.pkl", "userid", lambda ids: ids[:-1])
    edit("vocabulary unsorted", "vocabularies.pkl", "tag", lambda ids: ids[::-1])
    edit("vocabulary repeated", "vocabularies.pkl", "device", lambda ids: ids * 0)
    edit("table longer than its key", "user.pkl", "userid", lambda codes: np.append(codes, 1))
    edit("table shorter than its key", "feed.pkl", "content", lambda values: values[:-1])
    edit("fewer days than asked for", "user.pkl", "past", lambda values: values[:1])
    edit("codes beyond the vocabulary", "user.pkl", "userid", lambda codes: codes + 5)
    edit("dots of another width", "user.pkl", "taste", lambda values: values[..., :2])
    edit("NaN", "feed.pkl", "content", lambda values: values * np.nan)
    edit("whole numbers for floats", "feed.pkl", "content", lambda values: values.astype(int))
    edit("no key", "user.pkl", "key", lambda key: None)
    edit("key of no row", "feed.pkl", "key", lambda key: key[:0])
    lists = {
        "falling": lambda offsets: offsets[::-1].copy(),
        "not from 0": lambda offsets: offsets + 1,
        "not to the end": lambda offsets: np.minimum(offsets, 8),
        "too few": lambda offsets: offsets[:-1],
        "as floats": lambda offsets: offsets.astype(float),
    }
    for name, change in lists.items():
        edit(
            f"offsets {name}",
            "feed.pkl",
            "tags",
            lambda tags, change=change: tags | {"offsets": change(tags["offsets"])},
        )
    metas = {
        "version": [VERSION - 1, None, str(VERSION), np.zeros(3)],
        "tasks": [{}, {"like": 0}, {"like": -1}, {"like": np.nan}, ["like"], {"a/b": 1}],
        "more_tasks": [{"like": 1}, None],
        "tables": [["user"], ["user", "user", "feed"], ["train"], "user"],
        "group": ["nobody", 3],
        "vocabularies": [{}, {"userid": 6, "device": 4, "tag": 1}, {"userid": 6}],
        "features": [{}, None],
        "raw": [{"user": 5}, {"user": "userid", "feed": "userid"}],
        "synthetic": ["yes"],
    }
    for key, wrongs in metas.items():
        for wrong in wrongs:
            edit(f"meta {key} {wrong!r}", "meta.pkl", key, lambda _, wrong=wrong: wrong)
    descriptions = {
        "kind": ["number", None, 3],
        "table": ["nowhere", None, 3],
        "vocabulary": ["nowhere", None],
        "daily": ["no", None],
        "with": ["past", "nowhere", None],
        "default": ["yes"],
        "columns": ["abc"],
        "colour": ["red"],
    }
    for file in ("train.pkl", "user.pkl", "vocabularies.pkl", "meta.pkl"):
        edit("an array for a text", file, "stamp", lambda _: np.zeros(3))
    for feature, about in valid_folder()["meta.pkl"]["features"].items():
        for key in about:

            def replace(contents, feature=feature, key=key):
                contents["meta.pkl"]["features"][feature][key] = np.zeros(3)

            cases[f"{feature} {key} an array"] = replace
        for key, wrongs in descriptions.items():
            for wrong in wrongs:
                if wrong == about.get(key, "absent"):
                    continue

                def apply(contents, feature=feature, key=key, wrong=wrong):
                    contents["meta.pkl"]["features"][feature][key] = wrong

                cases[f"{feature} {key} {wrong!r}"] = apply

    @case("a feature that no file has")
    def _(contents):
        del contents["feed.pkl"]["content"]

    @case("a feature of the name of a task")
    def _(contents):
        about = contents["meta.pkl"]["features"].pop("device")
        contents["meta.pkl"]["features"]["like"] = about

    for name in ("past", "taste"):  # which are kept in half precision

        @case(f"a number of {name} that half precision lacks")
        def _(contents, name=name):
            contents["user.pkl"][name] = contents["user.pkl"][name].astype(np.float32)
            contents["user.pkl"][name][1, 2, 0] = -65520

    @case("a key that the contract lacks")
    def _(contents):
        contents["meta.pkl"]["more_task"] = {}

    @case("a file that is no dict")
    def _(contents):
        contents["train.pkl"] = [1, 2]

    return cases


BREAKERS = breakers()


@pytest.mark.parametrize("name", BREAKERS)
def test_what_breaks_the_contract_is_a_sentence_with_file_and_remedy(name, tmp_path):
    contents = valid_folder()
    BREAKERS[name](contents)
    write_all(tmp_path, contents)
    with pytest.raises(InputError) as refused:
        load(tmp_path)
    sentence = str(refused.value)
    assert "\n" not in sentence and ".pkl" in sentence
    assert "again" in sentence or "anew" in sentence
    file, column = name.split()[-2:]
    if file in ("train.pkl", "valid.pkl", "vocabularies.pkl") and column != "stamp":
        assert file in sentence and column in sentence


def mutated(contents, rng):
    """One random change somewhere."""
    path = []
    place = contents
    while isinstance(place, dict) and place:
        path.append(rng.choice(sorted(place)))
        place = place[path[-1]]
    holder = contents
    for key in path[:-1]:
        holder = holder[key]
    value = holder[path[-1]]
    kind = rng.randrange(6)
    if isinstance(value, np.ndarray) and kind and value.size:
        changed = [
            value[:-1],
            value[..., None],
            value.astype(rng.choice(["f4", "i8", "u1", "U3", "bool"])),
            value.copy(),
            np.concatenate([value, value[-1:]]),
        ][kind - 1]
        if kind == 4:
            numbers = [value.dtype.type(rng.choice([-1, 0, 1, 3, 100]))]
            changed.reshape(-1)[rng.randrange(value.size)] = numbers[0]
        holder[path[-1]] = changed
    elif kind < 2:
        del holder[path[-1]]
    else:
        holder[path[-1]] = rng.choice([None, 0, -1, "x", [], {}, 2.5, True, np.zeros(3), ["user"]])


def test_a_random_change_is_refused_or_read_as_it_was_written(tmp_path):
    refused = 0
    for seed in range(CASES):
        contents = valid_folder()
        try:
            mutated(contents, random.Random(seed))
            write_all(tmp_path, contents)
            found = read_all(tmp_path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        except OverflowError:  # NumPy would not put a negative number there
            continue
        assert_usable(load(tmp_path))
        del contents["meta.pkl"]["version"], found["meta"]["version"]
        for name in ("user", "feed"):
            assert same(found["tables"][name], without_stamp(contents[f"{name}.pkl"])), seed
        validates = contents["meta.pkl"]["valid_day"] is not None
        for name in ("train", "valid") if validates else ("train",):
            assert same(found[name], without_stamp(contents[f"{name}.pkl"])), seed
        assert same(found["meta"], contents["meta.pkl"]), seed
    assert CASES / 4 < refused < CASES


def assert_usable(data):
    """What training makes of the rows, but for the network, works and is finite."""
    embedding = FeatureEmbedding(LookUp.of(data), 2)
    for rows in filter(None, (data.train, data.valid)):
        vectors, numbers = embedding(embedding.look_up(rows))
        assert len(vectors) == len(numbers) == len(rows["user"])
        assert np.isfinite(vectors).all() and np.isfinite(numbers).all()
    assert all(np.isfinite(data.log_odds(task)) for task in data.tasks)


def without_stamp(content):
    return {key: value for key, value in content.items() if key != "stamp"}


# ---- unsafe pickles


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_and_arrays_of_any_layout_are_read(protocol, tmp_path):
    rng = np.random.default_rng(0)
    content = {
        "plain": [1, 2.5, None, True, "x", (10**30, -1)],
        "fortran": np.asfortranarray(rng.random((3, 4))),
        "turned": rng.random((2, 3, 4)).transpose(1, 2, 0)[:, ::2],
        "half": rng.random(5).astype(np.float16),
        "big-endian": np.arange(3, dtype=">i4"),
        "texts": np.array(["ab", "c"]),
        "flags": np.array([True, False]),
        "scalar": np.float32(2),
        "no dimension": np.array(3.0),
        "empty": np.zeros((0, 3), np.uint8),
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read(tmp_path / "x.pkl")
    assert found.keys() == content.keys()
    for name, value in content.items():
        if name == "plain":
            assert found[name] == value
        else:
            assert np.asarray(found[name]).dtype == np.asarray(value).dtype, name
            np.testing.assert_array_equal(found[name], value)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


UNSAFE = {
    "a call of os.system": Calls(os.system, "touch /tmp/never"),
    "a call of eval": Calls(eval, "1"),
    "a class": Exception("x"),
    "objects": np.array([None, {}], object),
    "records": np.zeros(2, [("a", "i4"), ("b", "O")]),
    "dates": np.array(["2021-06-01"], "M8[D]"),
    "numpy.ndarray called": Calls(np.ndarray, (3,), "O"),
    "numpy.dtype of objects": Calls(np.dtype, "O"),
    "a set": {1, 2},
    "keys that are tuples": {(1, 2): 3},
    "a function of the reader": io.BytesIO,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_no_plain_value_is_refused_in_a_sentence(name, tmp_path):
    for content in (UNSAFE[name], {"a": [UNSAFE[name]]}):
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=r"x\.pkl is (refused|damaged)") as refused:
            read(path)
        assert str(refused.value).isprintable()


def opcodes(rng):
    """A pickle of random opcodes with plausible arguments."""
    names = ["numpy", "dtype", "ndarray", "numpy._core.multiarray", "_reconstruct", "scalar"]
    names += ["numpy._core.numeric", "_frombuffer", "os", "system", "builtins", "O8", "f4", "<"]
    plain = [
        bytes([code]) for code in b"\x93Rbt(\x85\x86\x87)}]suae210N\x94\x81\x92oQ\x97\x98\x8f\x91"
    ]
    parts = [b"\x80\x05"]
    for _ in range(rng.randrange(1, 40)):
        text = rng.choice(names).encode()
        number = rng.choice([0, 1, 3, 2**31 - 1, 2**32 - 1])
        with_arguments = [
            b"\x8c" + bytes([len(text)]) + text,  # a text
            b"c" + rng.choice(names).encode() + b"\n" + text + b"\n",  # a function
            b"i" + text + b"\nsystem\n",
            b"K" + bytes([number % 256]),
            b"J" + number.to_bytes(4, "little"),
            b"C\x04abcd",
            b"\x96" + number.to_bytes(8, "little") + b"xy",  # bytes, fewer than they say
            b"\x8e" + (2**62).to_bytes(8, "little"),
            b"h\x00",
            b"P1\n",
            b"\x82\x01",
        ]
        parts.append(rng.choice([*plain, *with_arguments, with_arguments[0]]))
    return b"".join(parts) + b"."


def fuzz(n):
    """Read n hand-made and n damaged pickles; prints how many were read."""
    path = Path(sys.argv[3])
    rng = random.Random(0)
    whole = pickle.dumps(valid_folder()["user.pkl"], protocol=rng.choice([2, 4, 5]))
    n_read = 0
    for i in range(n):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        for raw in (opcodes(rng), bytes(content)):
            path.write_bytes(raw)
            try:
                read(path)
                n_read += 1
            except InputError as error:
                assert str(error).isprintable(), (i, error)
    print(n_read)


def test_random_opcodes_and_damaged_bytes_crash_nothing_and_call_nothing(tmp_path):
    """In a process of its own, in which any call beyond the allowed ends it."""
    guard = (
        "import sys\n"
        "sys.path[:0] = [sys.argv[1], sys.argv[1] + '/tests']\n"
        "import test_pickles\n"
        "events = ('os.system', 'exec', 'subprocess.Popen', 'import', 'pickle.find_class')\n"
        "def audit(event, _):\n"
        "    if event in events:\n"
        "        sys.stderr.write(event)\n"
        "        import os; os._exit(9)\n"
        "test_pickles.fuzz(2)\n"
        "sys.addaudithook(audit)\n"
        "test_pickles.fuzz(int(sys.argv[2]))\n"
    )
    words = [sys.executable, "-c", guard, ROOT, str(3 * CASES), tmp_path / "x.pkl"]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[-1]) > 0  # some are only damaged in their numbers


def test_deep_and_endless_containers_are_a_sentence(tmp_path):
    endless = []
    endless.append(endless)
    deep = pickle.dumps(endless)
    tuples = b"\x80\x04)" + b"\x85" * 200_000 + b"."
    keys = b"\x80\x04})" + b"\x85" * 200_000 + b"Ns."
    for raw in (deep, tuples, keys, b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".", b""):
        (tmp_path / "x.pkl").write_bytes(raw)
        with pytest.raises(InputError):
            read(tmp_path / "x.pkl")


# ---- writing


def test_files_are_written_beside_and_links_and_devices_stay(tmp_path):
    target = tmp_path / "elsewhere.pkl"
    target.write_bytes(b"old")
    (tmp_path / "x.pkl").symlink_to(target)
    write_all(tmp_path, {"x.pkl": {"a": 1}})
    assert (tmp_path / "x.pkl").is_symlink() and read(target) == {"a": 1}
    with beside(tmp_path / "x.pkl") as place:
        assert place.parent == tmp_path and place != target
        place.write_bytes(b"new")
    assert target.read_bytes() == b"new" and (tmp_path / "x.pkl").is_symlink()
    with beside("/dev/null") as place:
        place.write_text("gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(ZeroDivisionError), beside(target) as place:
        place.write_bytes(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere.pkl", "x.pkl"]


def test_what_killed_processes_left_is_removed_and_others_is_kept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".writing-{ended.pid}-x", f".writing-{os.getpid()}-y", ".writing-z"):
        (tmp_path / name).write_bytes(b"")
    write_all(tmp_path, {"x.pkl": {}})
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([f".writing-{os.getpid()}-y", ".writing-z", "x.pkl"])
