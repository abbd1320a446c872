"""The loader takes arrays and plain containers, refuses all else, and a write leaves whole files."""
import os
import pickle
import shutil

import numpy as np
import pytest

from common.pickles import InputError, load, read, write_all


class Exploit:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_arrays_and_plain_containers_come_back_equal(tmp_path):
    content = {
        "floats": np.linspace(0, 1, 7, dtype=np.float16), "matrix": np.arange(12).reshape(3, 4), "empty": np.zeros((0, 2)),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "plain": {"a": [1, 2.5, None, True, "text", (1, 2)]},
        "scalar": np.float64(3.5),
    }
    write_all(tmp_path, {"one.pkl": content})
    again = read(tmp_path / "one.pkl")
    assert again["plain"] == content["plain"] and again["scalar"] == 3.5
    for name in ("floats", "matrix", "empty", "fortran"):
        assert again[name].dtype == content[name].dtype
        np.testing.assert_array_equal(again[name], content[name])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("exploit", [
    Exploit(os.system, "touch run"), Exploit(eval, "open('run', 'w')"), Exploit(exec, "open('run', 'w')"),
    Exploit(__import__, "os"), Exploit(getattr, "text", "format"), Exploit(np.fromfile, "run"),
], ids=["system", "eval", "exec", "import", "getattr", "numpy"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch, exploit, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"a": [exploit]}, protocol))
    with pytest.raises(InputError, match="bad.pkl is refused.*only NumPy arrays"):
        read(tmp_path / "bad.pkl")
    assert sorted(os.listdir(tmp_path)) == ["bad.pkl"]


def test_a_damaged_and_a_missing_pickle_are_named(tmp_path):
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps({"a": np.arange(1000)})[:500])
    with pytest.raises(InputError, match="cut.pkl is damaged"):
        read(tmp_path / "cut.pkl")
    with pytest.raises(InputError, match="none.pkl is missing"):
        read(tmp_path / "none.pkl")


def test_what_was_there_stays_when_writing_fails(tmp_path):
    write_all(tmp_path, {"a.pkl": 1, "b.pkl": 2})
    with pytest.raises(Exception):
        write_all(tmp_path, {"a.pkl": 3, "b.pkl": lambda: "cannot be pickled"})
    assert (read(tmp_path / "a.pkl"), read(tmp_path / "b.pkl")) == (1, 2)
    assert sorted(os.listdir(tmp_path)) == ["a.pkl", "b.pkl"]


def test_pickles_of_another_version_are_refused(tiny_pickles, tmp_path):
    shutil.copytree(tiny_pickles, tmp_path / "old")
    meta = read(tmp_path / "old" / "meta.pkl")
    for other in (meta | {"version": 1}, {name: value for name, value in meta.items() if name != "version"}, []):
        write_all(tmp_path / "old", {"meta.pkl": other})
        with pytest.raises(InputError, match="meta.pkl is of another version: run `python get_data.py` again"):
            load(tmp_path / "old")
