"""The pickles: nothing unsafe is read, nothing that breaks the contract gets further.

CASES=2000 python -m pytest tests/test_pickles.py tries more of what is random (100 by default).
"""

import copy
import io
import os
import pickle
import random
import shlex
import subprocess
import sys
from functools import reduce
from itertools import product
from pathlib import Path

from common.command import InputError
from common.contract import load
from common.embedding import FeatureEmbedding, LookUp
from common.pickles import VERSION, beside, read, write_all

import numpy as np
import pytest
from small_data import data_of

CASES = int(os.environ.get("CASES", "100"))
ROOT = Path(__file__).resolve().parent.parent


def valid_folder():
    """{file name: content} with every kind of feature."""
    data = data_of()
    meta = data.meta | {"version": VERSION, "name": "by hand", "synthetic": True, "valid_day": 2}
    meta |= {"raw": {"user": "userid"}, "tables": ["user", "feed"], "tasks": {"like": 2}}
    meta["more_tasks"] = {"read_comment": 1, "click_avatar": 1, "forward": 1}
    meta["features"]["tags"]["default"] = False
    meta["features"]["content"]["columns"] = ["a", "b", "c"]
    ids = {name: 3 * np.arange(size - 2) for name, size in meta["vocabularies"].items()}
    contents = {"meta": meta, **data.tables, "vocabularies": ids}
    for name, start in (("train", 0), ("valid", 10), ("test_a", 20), ("test", 5)):
        contents[name] = {key: column[start : start + 30] for key, column in data.train.items()}
        contents[name]["price"] = np.column_stack([contents[name]["price"]] * 2)
    return {f"{name}.pkl": {"stamp": "s", **content} for name, content in contents.items()}


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
    assert "tags" not in data.features and len(data.features) == 11  # not a default
    data.choose(["forward", "like"], [2.0, 0.5], ["tags"])
    assert data.tasks == {"forward": 1, "like": 2}
    assert data.loss_weights == {"forward": 2.0, "like": 0.5}
    assert list(data.features) == ["tags"]
    assert data.vocabularies["tags"].tolist() == [0, 3, 6, 9]
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


ROWS = "train.pkl,valid.pkl,test.pkl"
ANY = "meta.pkl features userid,device,tags,content,past,taste,price"
BROKEN = {  # where a value v is, and what in its place breaks the contract; ... is nothing at all
    f"{ROWS} like,forward": "v[:, None]; v + 1; v.astype('U1'); np.where(v, np.nan, 0)",
    f"{ROWS} user,feed,day,device": "v + 11; v - 11; v.astype(float); v[:, None]",
    f"{ROWS} user,like,price": "v[:-1]; v.tolist()",
    f"{ROWS} price": "v * np.inf",
    "train.pkl like": "v[:0]",
    "train.pkl": "[1, 2]",
    "train.pkl,user.pkl,vocabularies.pkl,meta.pkl stamp": "np.zeros(3)",
    "user.pkl,vocabularies.pkl stamp": "'old'",
    "test_a.pkl stamp": "None",
    "vocabularies.pkl userid": "v[:-1]; v - v[0] - 1",
    "vocabularies.pkl tags": "v[::-1]; v[::-1].astype('u4')",
    "vocabularies.pkl words": "v * 0",
    "user.pkl key": "None",
    "user.pkl userid": "np.append(v, 1); v + 9",
    "user.pkl past": "v[:1]; v[..., :0]",
    "user.pkl taste": "v[..., :2]; v[:, :, :0]",
    "user.pkl past,taste": "np.where(v == v.flat[9], -65520, v.astype('f4'))",  # half has less
    "feed.pkl key": "v[:0]",
    "feed.pkl content": "v[:-1]; v[:, :0]; v * np.nan; v.astype('f8') * 1e99; v.astype(int); ...",
    "feed.pkl tags offsets": "v[::-1]; v + 1; np.minimum(v, v[-1] - 1); v[:-1]; v.astype(float)",
    "meta.pkl version": "VERSION - 1; None; str(VERSION); np.zeros(3)",
    "meta.pkl tasks": "{}; {'like': 0}; {'like': -1}; {'like': np.nan}; ['like']; {'a/b': 1}",
    "meta.pkl more_tasks": "{'like': 1}; None",
    "meta.pkl more_task": "{}",
    "meta.pkl tables": "['user']; ['user', 'user', 'feed']; ['train']; 'user'",
    "meta.pkl group": "'nobody'; 3",
    "meta.pkl vocabularies": "{}; v | {'tags': 1}; {'userid': 9}",
    "meta.pkl features": "{}; None; v | {'like': v['device']}",
    "meta.pkl raw": "{'user': 5}; {'user': 'userid', 'feed': 'userid'}",
    "meta.pkl synthetic": "'yes'",
    f"{ANY} kind": "'number'; None; 3; np.zeros(3)",
    f"{ANY} table": "'nowhere'; 3; np.zeros(3)",
    "meta.pkl features userid,tags,content,past,taste table": "None",
    f"{ANY} vocabulary": "'nowhere'; None; np.zeros(3)",
    f"{ANY} daily": "'no'; None; np.zeros(3)",
    f"{ANY} with": "'past'; 'nowhere'; None; np.zeros(3)",
    f"{ANY} default": "'yes'; np.zeros(3)",
    f"{ANY} columns": "'abc'; np.zeros(3)",
    f"{ANY} colour": "'red'",
}


def broken():
    """(place, change) of each case."""
    for places, changes in BROKEN.items():
        for place in product(*(part.split(",") for part in places.split())):
            yield from ((" ".join(place), change) for change in changes.split("; "))


@pytest.mark.parametrize("place, change", broken())
def test_what_breaks_the_contract_is_a_sentence_with_file_and_remedy(place, change, tmp_path):
    contents = valid_folder()
    *keys, last = place.split()
    holder = reduce(dict.get, keys, contents)
    holder[last] = eval(change, globals(), {"v": holder.get(last)})
    if holder[last] is ...:
        del holder[last]
    write_all(tmp_path, contents)
    with pytest.raises(InputError) as refused:
        load(tmp_path)
    sentence = str(refused.value)
    assert "\n" not in sentence and ".pkl" in sentence
    assert "again" in sentence or "anew" in sentence
    if keys and keys[0] in (*ROWS.split(","), "vocabularies.pkl") and last != "stamp":
        assert keys[0] in sentence and last in sentence


def mutated(contents, rng):
    """One random change somewhere."""
    value = contents
    while isinstance(value, dict) and value:
        holder, key = value, rng.choice(sorted(value))
        value = holder[key]
    kind = rng.randrange(6)
    if isinstance(value, np.ndarray) and kind and value.size:
        holder[key] = [
            value[:-1],
            value[..., None],
            value.astype(rng.choice(["f4", "i8", "u1", "U3", "bool"])),
            value.copy(),
            np.concatenate([value, value[-1:]]),
        ][kind - 1]
        if kind == 4:
            number = value.dtype.type(rng.choice([-1, 0, 1, 3, 100]))
            holder[key].reshape(-1)[rng.randrange(value.size)] = number
    elif kind < 2:
        del holder[key]
    else:
        holder[key] = rng.choice([None, 0, -1, "x", [], {}, 2.5, True, np.zeros(3), ["user"]])


def test_a_random_change_is_refused_or_read_as_it_was_written(tmp_path):
    refused = 0
    for seed in range(CASES):
        contents = valid_folder()
        try:
            mutated(contents, random.Random(seed))
            write_all(tmp_path, contents)
            data = load(tmp_path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        except OverflowError:  # NumPy would not put a negative number there
            continue
        assert_usable(data)
        found = {"meta": data.meta, **data.tables, "train": data.train, "valid": data.valid}
        if data.meta["valid_day"] is None:
            assert found.pop("valid") == {}
        for name, content in found.items():
            wanted = contents[f"{name}.pkl"]
            if name != "meta":
                del wanted["stamp"]
            assert same(content, wanted), (seed, name)
    assert CASES / 4 < refused < CASES


def assert_usable(data):
    """What training makes of the rows, but for the network, works and is finite."""
    embedding = FeatureEmbedding(LookUp.of(data), 2)
    for rows in filter(None, (data.train, data.valid)):
        vectors, numbers = embedding(embedding.look_up(rows))
        assert len(vectors) == len(numbers) == len(rows["user"])
        assert np.isfinite(vectors).all() and np.isfinite(numbers).all()
    assert all(np.isfinite(data.log_odds(task)) for task in data.tasks)


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


def calls(function, *arguments):
    """What pickles as a call of the function."""
    return type("Call", (), {"__reduce__": lambda _: (function, arguments)})()


UNSAFE = {
    "a call of os.system": calls(os.system, "touch /tmp/never"),
    "a call of eval": calls(eval, "1"),
    "a class": Exception("x"),
    "objects": np.array([None, {}], object),
    "records": np.zeros(2, [("a", "i4"), ("b", "O")]),
    "dates": np.array(["2021-06-01"], "M8[D]"),
    "numpy.ndarray called": calls(np.ndarray, (3,), "O"),
    "numpy.dtype of objects": calls(np.dtype, "O"),
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


def fuzz(n, place):
    """Read n hand-made and n damaged pickles, of which any call ends the process."""
    refused = ("os.system", "exec", "subprocess.Popen", "import", "pickle.find_class")
    path = Path(place)
    rng = random.Random(0)
    whole = pickle.dumps(valid_folder()["user.pkl"], protocol=rng.choice([2, 4, 5]))
    n_read = 0

    def audit(event, _):
        if event in refused:
            sys.stderr.write(event)
            os._exit(9)

    for i in range(-2, n):
        if i == 0:  # now all is imported
            sys.addaudithook(audit)
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        for raw in (opcodes(rng), bytes(content)):
            path.write_bytes(raw)
            try:
                read(path)
                n_read += i >= 0
            except InputError as error:
                assert str(error).isprintable(), (i, error)
    print(n_read)


def test_random_opcodes_and_damaged_bytes_crash_nothing_and_call_nothing(tmp_path):
    """In a process of its own, in which any call beyond the allowed ends it."""
    path = str(tmp_path / "x.pkl")
    code = f"import test_pickles as it; it.fuzz({3 * CASES}, {path!r})"
    world = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=world)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[-1]) > 0  # some are only damaged in their numbers


def test_deep_and_endless_containers_are_a_sentence(tmp_path):
    endless = []
    endless.append(endless)
    deep = pickle.dumps(endless)
    tuples = b"\x80\x04)" + b"\x85" * 200_000 + b"."
    keys = b"\x80\x04})" + b"\x85" * 200_000 + b"Ns."
    wide = [[0], {"0": 0}]  # a few bytes for what a reader that copies would never end with
    for _ in range(18):
        wide = [[wide[0]] * 10, dict.fromkeys("0123456789", wide[1])]
    wide = list(map(pickle.dumps, wide))
    lists = b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."
    for raw in (deep, tuples, keys, lists, *wide, b""):
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
    code = (
        "from common.pickles import beside\nwith beside('/dev/stdout') as p: p.write_text('said')"
    )
    for end in ("| cat", f"> {tmp_path}/said && cat {tmp_path}/said && rm {tmp_path}/said"):
        words = f"{shlex.join([sys.executable, '-c', code])} {end}"
        assert subprocess.check_output(words, shell=True, cwd=ROOT, text=True) == "said"
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
