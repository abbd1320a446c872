"""Where the contest's files lie: folders, zips and what is wrong with them; threads; the oracle."""

import io
import json
import shutil
import signal
import threading
import zipfile
from contextlib import nullcontext, suppress
from types import SimpleNamespace

from common import blocks, contest, csvs
from common.columns import ACTIONS
from common.command import InputError
from common.contest import read_embeddings, read_log, read_source, read_truth
from common.csvs import read_columns
from common.pickles import stamp_of
from common.source import Source, file_of

import numpy as np
import pytest
from contest_files import EMBEDDINGS, FILES, FUZZ, LOG, TABLES, contents, refusal
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("error")
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
MAC = dict.fromkeys([".DS_Store", "__MACOSX/._.DS_Store", "__MACOSX/._user_action.csv"], b"\0\5")
MAC |= {"wechat_algo_data1/.DS_Store": b"x", "__MACOSX/wechat_algo_data1/._feed_info.csv": b"\0"}


def packed(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("more", [{}, MAC, {"a/README.md": "x", "b/README.md": "y"}])
@pytest.mark.parametrize("inside", ["", "wechat_algo_data1/", "a/b/c/", "../../"])
@pytest.mark.parametrize("method", METHODS)
def test_a_zip_says_what_its_folder_says(source, tmp_path, method, inside, more):
    before = {*tmp_path.parent.rglob("*")}
    members = {inside + name: text for name, text in FILES.items()}
    path = packed(tmp_path / "wechat_algo_data1.zip", more | members, method)
    assert contents(path) == contents(tmp_path) == contents(source)
    assert {*tmp_path.parent.rglob("*")} - before == {path}


@pytest.mark.parametrize("name", ["data (1).zip", "微信.ZIP", "wechat_algo_data1.zip"])
def test_a_zip_of_any_name_is_found_in_a_folder_and_of_two_none_is_guessed(source, tmp_path, name):
    outer = tmp_path / "outer"
    outer.mkdir()
    packed(outer / "other.zip", {"readme.txt": "nothing of ours", "a/x.csv": "", "b/x.csv": ""})
    packed(outer / name, FILES)
    assert contents(outer) == contents(source)
    packed(outer / "again.zip", FILES)
    with pytest.raises(InputError, match=r"again\.zip.*say which to take"):
        contents(outer)
    assert "give the folder that holds it" in refusal(source / "user_action.csv")


@pytest.mark.parametrize("beside_it", ["folder", "zip", "both"])
def test_a_csv_that_is_named_is_the_one_that_is_read(source, tmp_path, beside_it):
    """Whatever contest's files lie around it."""
    place = tmp_path / "mine"
    place.mkdir()
    if beside_it != "zip":
        shutil.copytree(source, place / "wechat_algo_data1")
    if beside_it != "folder":
        packed(place / "wechat_algo_data1.zip", FILES)
    for name in ("test_a.csv", "user_action.csv", "rows.csv"):
        (place / name).write_text("userid,feedid\n7,8\n")
        assert read_columns(*file_of(place / name), ["userid"])["userid"].tolist() == [7]
        (place / name).unlink()
        with pytest.raises(InputError, match=f"mine/{name} is missing"):
            read_columns(*file_of(place / name), ["userid"])
    with pytest.raises(InputError, match="is a zip: unpack it"):
        file_of(place / "wechat_algo_data1.zip")


@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_in_a_folder_is_found_and_what_is_missing_is_named(source, tmp_path, number):
    expected = contents(source)
    outer = tmp_path / "outer"
    shutil.copytree(source, outer / f"wechat_algo_data{number}")
    assert contents(outer) == expected
    (outer / "._wechat_algo_data1.zip").write_bytes(b"of a Mac")
    assert contents(outer) == expected
    (outer / "test_b.csv").write_text(FILES["test_a.csv"])
    assert f"test_b.csv lies beside {outer}/wechat_algo_data{number} and would" in refusal(outer)
    (outer / "test_b.csv").unlink()
    shutil.copytree(source, outer / "wechat_algo_data3")
    assert "wechat_algo_data3 hold a user_action.csv each" in refusal(outer)
    shutil.rmtree(outer / "wechat_algo_data3")
    for name in ("feed_info.csv", "user_action.csv"):
        (outer / f"wechat_algo_data{number}" / name).unlink()
        assert f"{name} is missing" in refusal(outer)
    assert "nowhere does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    assert "bad.zip is no zip: download it again, or unpack it" in refusal(tmp_path / "bad.zip")


@FUZZ
@given(st.sampled_from(METHODS), st.data())
def test_a_zip_with_changed_bytes_is_read_as_it_was_or_refused(tmp_path, method, data):
    path = packed(tmp_path / "a.zip", FILES, method)
    expected = contents(path)
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.binary(min_size=1, max_size=8).filter(any))
    for i, byte in enumerate(change[: len(content) - start], start):
        content[i] ^= byte
    path.write_bytes(content[: data.draw(st.just(None) | st.integers(0, len(content)))])
    try:
        raw = contents(path)
    except InputError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:  # a member whose name was changed is another file
        assert raw["tests"] in ({}, expected["tests"])
        assert {**expected, **raw, "tests": expected["tests"]} == expected


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("name", ["user_action.csv", "feed_embeddings.csv", "source.json"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, method, name):
    text = "userid,feedid\n" + "0,1\n" * 3 * 10**6
    path = packed(tmp_path / "bomb.zip", FILES | {name: text}, method)
    assert f"{name} would unpack to {len(text):,} bytes" in refusal(path)


@pytest.mark.parametrize("name", FILES)
def test_a_zip_with_two_files_of_a_name_or_a_password_is_refused(tmp_path, name):
    path = packed(tmp_path / "two.zip", FILES | {f"b/{name}": FILES[name]})
    assert f"two files {name}" in refusal(path)
    content = bytearray(packed(path, {name: FILES[name]} | FILES).read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1  # the bit that says a member is encrypted
    path.write_bytes(content)
    assert "password" in refusal(path)


def test_embeddings_of_several_blocks_are_what_was_written_and_a_wrong_line_is_named(monkeypatch):
    monkeypatch.setattr(contest, "EMBEDDED", 1 << 20)
    numbers = np.random.default_rng(0).normal(size=(500, 512)).round(8)
    rows = [f"{7 * i},{' '.join(f'{v:.8f}' for v in row)} " for i, row in enumerate(numbers)]
    text = "\n".join(["feedid,feed_embedding", *rows])
    assert len(text) > 2 << 20
    for ending in (text, text + "\n", text.replace("\n", "\r\n")):
        ids, vectors = read_embeddings(io.BytesIO(ending.encode()), "place")
        assert ids.tolist() == list(range(0, 3500, 7))
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, numbers.astype(np.float32))
    for row in (1, 100, 250, 499):
        for word in (" 0.5", " x", " 1e39"):
            changed = text.replace(rows[row], rows[row] + word)
            with pytest.raises(InputError, match=f"place, line {row + 2}: not an id and 512"):
                read_embeddings(io.BytesIO(changed.encode()), "place")


@pytest.mark.parametrize("name", FILES)
def test_of_two_wrong_files_the_first_is_named_and_no_thread_is_left(source, name):
    wrong = {file: FILES[file].replace("\n", "\nx") for file in (name, "feed_embeddings.csv")}
    assert f"{name}, line" in refusal(source, **wrong)
    assert not [thread.name for thread in threading.enumerate() if "Pool" in thread.name]


def test_ctrl_c_ends_the_thread(source, monkeypatch):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return EMBEDDINGS.partition("\n")[2].encode()

    def open_endless(self, name):
        return Endless(b"feedid,feed_embedding\n") if "embeddings" in name else opened(self, name)

    def interrupted(stage, told):
        if stage == "feed_info.csv":
            raise KeyboardInterrupt

    opened = Source.open
    monkeypatch.setattr(Source, "open", open_endless)
    with pytest.raises(KeyboardInterrupt):
        read_source(Source(source), interrupted)
    assert not [thread.name for thread in threading.enumerate() if "Pool" in thread.name]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_bar_moves_by_every_byte_and_ctrl_c_in_it_is_no_broken_file(
    source, tmp_path, monkeypatch, zipped
):
    moved = []
    done = SimpleNamespace(update=moved.append)
    place = packed(tmp_path / "a.zip", FILES) if zipped else source

    def bar(about, size):
        assert size == len(LOG)
        return nullcontext(done)

    monkeypatch.setattr(csvs, "bar", bar)
    users = read_columns(Source(place), "user_action.csv", ["userid"])["userid"]
    assert users.tolist() == [5, 5, 5, 9, 9, 5, 9, 12] and sum(moved) == len(LOG)
    monkeypatch.setattr(blocks, "BLOCK", 1)
    moved.clear()

    def press_at_the_sixth_line(n_bytes):
        moved.append(n_bytes)
        if len(moved) == 6:
            signal.raise_signal(signal.SIGINT)

    done.update = press_at_the_sixth_line
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            read_columns(Source(place), "user_action.csv", ["userid"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(moved) == 6
    assert not [thread.name for thread in threading.enumerate() if "Pool" in thread.name]


def test_lines_of_another_number_of_fields_are_noticed_wherever_blocks_end(tmp_path, monkeypatch):
    right = "a,b\n1,2\n3,4\n", "a,b\r\n1,2\r\n3,4"
    wrong = "a,b\n1,2\n3,4,5\n", "a,b\n1\n3,4,5\n", 'a,b\n"1,2",3\n'
    for text in right + wrong:
        (tmp_path / "a.csv").write_bytes(text.encode())
        for size in range(1, len(text) + 1):
            monkeypatch.setattr(blocks, "BLOCK", size)
            about = (Source(tmp_path), "a.csv", ["a", "b"], ["a"], (), (), {})
            reader = csvs.Reader(*about)
            with suppress(ValueError):
                for _ in reader.chunks():
                    pass
            assert reader.suspect == (text in wrong), (text, size)


def test_a_download_that_ended_early_is_refused_or_lacks_whole_lines_alone(source):
    """Wherever it ended; what then stands in a last field cannot be told from the whole."""
    for name, text in TABLES.items():
        begin = text.rstrip("\n").rfind("\n") + 1
        header, n_lines = text.splitlines()[0], text.count("\n")
        for end in range(begin + 1, len(text) - 1):
            if text.count(",", begin, end) < header.count(","):
                told = refusal(source, **{name: text[:end]})
                assert f"{name}, line {n_lines}: " in told and "get the file again" in told
        whole = contents(source)
        found = []
        for blank in ("", " ", "\n \n "):
            (source / name).write_text(text[:begin] + blank)
            found.append(contents(source))
        assert found[0] == found[1] == found[2] != whole
        (source / name).write_text(text)


def test_small_numbers_are_kept_small(source):
    log = read_log(Source(source), "user_action.csv", lambda *told: None)
    kinds = {name: column.dtype for name, column in log.items()}
    assert kinds == {name: np.uint8 if name in ACTIONS else np.int32 for name in log}
    assert "stay" not in log


def test_an_edited_or_sorted_stand_in_has_no_oracle(tiny):
    place = Source(tiny)
    log = read_log(place, "user_action.csv", lambda *told: None)
    table = np.load(tiny / "true_probability.npy")
    truth = read_truth(place, place.note(), log, lambda stage, told: pytest.fail(told))
    for i, action in enumerate(ACTIONS):
        np.testing.assert_array_equal(truth[action], table[:, i])
    rng = np.random.default_rng(0)
    n = len(table)
    orders = {name: np.argsort(log[name], kind="stable") for name in ("date_", "feedid", "play")}
    orders |= {"reversed": np.arange(n)[::-1], "shuffled": rng.permutation(n)}
    orders |= {"moved": np.roll(np.arange(n), 1), "without a row": np.arange(n - 1)}
    edited = {n: {k: column[order] for k, column in log.items()} for n, order in orders.items()}
    for action in ACTIONS[:4]:
        edited[f"no {action}"] = {k: v for k, v in log.items() if k != action}
        edited[f"{action} 0"] = log | {action: np.zeros_like(log[action])}
        edited[f"{action} moved"] = log | {action: np.roll(log[action], 1000)}
    told = []
    for name, other in edited.items():
        assert read_truth(place, place.note(), other, lambda *words: told.append(words)) == {}, name
    sentence = "left out: it is of other rows or an older stand-in"
    assert told == [("true_probability.npy", sentence)] * len(edited)


def test_a_broken_oracle_is_left_out_or_refused(source):
    def saved(array):
        file = io.BytesIO()
        np.savez(file, a=array) if isinstance(array, list) else np.save(file, array)
        return file.getvalue()

    log = contents(source)["log"]
    labels = {name: np.array(log[name], np.uint8) for name in ACTIONS if name in log}
    stamps = [stamp_of(labels), stamp_of({**labels, "like": 1 - labels["like"]}), 5, None, ["x"]]
    shape = (8, len(labels))
    arrays = [np.full(shape, p) for p in (0.5, 0.0, 1.0, 2.0, np.nan, 0.5j, 1, "x", True)]
    tables = [*map(saved, arrays), saved([1]), saved(np.full(8, 0.5)), b"x", saved(arrays[0])[:-1]]
    whole = dict.fromkeys(labels, [0.5] * 8)
    found = []
    for stamp in stamps:
        (source / "source.json").write_text(json.dumps({"name": "x", "labels": stamp}))
        for table in tables:
            (source / "true_probability.npy").write_bytes(table)
            found.append(contents(source)["truth"])
    assert found == [whole] + [{}] * (len(found) - 1)
    told = refusal(source, **{"true_probability.npy": b""})
    assert "true_probability.npy cannot be unpacked" in told
