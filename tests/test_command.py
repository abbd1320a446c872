"""Settings and their ranges, for all four scripts; what a mistake says."""

import ast
import errno
import itertools
import os
import re
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path

import deepfm
import FocalLoss
import mmoe
import ple
from common.command import InputError, Stopped, user_errors
from common.settings import changed, flag_of, hyperparameters, is_tuple, kind_of, parse

import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from small_data import TASKS, data_of

SCRIPTS = {"deepfm": deepfm, "FocalLoss": FocalLoss, "mmoe": mmoe, "ple": ple}
CASES = int(os.environ.get("CASES", "100"))
REPO = Path(__file__).resolve().parents[1]
CODE = sorted(p for place in ("", "common/**/", "data/") for p in REPO.glob(f"{place}*.py"))


def sentences(path):
    """(line, text) of each InputError that a file raises with words of its own; {} is a value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(ast.Name("InputError"), [ast.JoinedStr(parts), *_]):
                texts = [p.value if isinstance(p, ast.Constant) else "{}" for p in parts]
                yield node.lineno, "".join(texts)
            case ast.Call(ast.Name("InputError"), [ast.Constant(text), *_]):
                yield node.lineno, text


@pytest.mark.parametrize("path", CODE, ids=[str(path.relative_to(REPO)) for path in CODE])
def test_what_a_mistake_says_holds_a_remedy(path):
    for line, text in sentences(path):
        assert re.search(r": | takes? |^{} ", text), f"{path}, line {line}: {text}"


@pytest.mark.parametrize(
    "place", ["/usr/lib/ipykernel_launcher.py", "/x/colab_kernel_launcher.py", "mmoe.py"]
)
def test_a_cell_of_a_notebook_takes_the_defaults_and_run_its_flags(place, monkeypatch):
    monkeypatch.setattr("sys.argv", [place, "-f", "/tmp/kernel-1.json"])
    if "kernel" in place:
        assert parse(mmoe.Settings, "about", None) == mmoe.Settings()
    else:
        with pytest.raises(InputError, match="-f is no flag"):
            parse(mmoe.Settings, "about", None)
    monkeypatch.setattr("sys.argv", ["mmoe.py", "--experts", "3"])  # %run mmoe.py --experts 3
    assert parse(mmoe.Settings, "about", None).experts == 3


def numeric_fields():
    return [
        pytest.param(module, item, id=f"{name} {flag_of(item.name)}")
        for name, module in SCRIPTS.items()
        for item in fields(module.Settings)
        if kind_of(item) in (int, float)
    ]


def outside(item):
    """Words that the range of a numeric field does not hold, nor any field's."""
    low, high, above, below = item.metadata["bounds"].values()
    words = ["nan", "inf", "-inf", "two", "1e999", "0x10", "-"]
    words += ["1.5", "1e3"] if kind_of(item) is int else []
    words += [] if low is None else [str(low - 1), str(low - 10**6)]
    words += [] if high is None else [str(high + 1), str(high * 1000 + 1)]
    return words + [str(bound) for bound in (above, below) if bound is not None]


@pytest.mark.parametrize("module, item", numeric_fields())
def test_what_is_outside_a_range_is_refused_in_a_sentence_with_the_flag(module, item):
    for word in outside(item):
        for given_word in [word, f"1,{word}"] if is_tuple(item) else [word]:
            with pytest.raises(InputError, match=flag_of(item.name)):
                parse(module.Settings, "about", [f"{flag_of(item.name)}={given_word}"])


@pytest.mark.parametrize("module", SCRIPTS.values())
@given(data=st.data())
@settings(max_examples=CASES // 4, deadline=None)
def test_any_word_for_any_flag_is_taken_or_refused_in_a_sentence(module, data):
    item = data.draw(st.sampled_from(fields(module.Settings)))
    number = st.one_of(st.integers(), st.floats(), st.text(max_size=8))
    words = data.draw(st.one_of(number.map(str), st.lists(number.map(str)).map(",".join)))
    argv = [flag_of(item.name)] if item.type is bool else [f"{flag_of(item.name)}={words}"]
    try:
        made = parse(module.Settings, "about", argv)
    except InputError as error:
        assert "\n" not in str(error).strip()
        return
    value = getattr(made, item.name)
    for number in value if is_tuple(item) else [value]:
        assert isinstance(number, kind_of(item))
    again = parse(module.Settings, "about", made)
    assert again is made  # settings already made are taken as they are


def within(item):
    """Values of a field within its range, the ends too; of whole numbers the least, to be quick."""
    low, high, above, below = item.metadata["bounds"].values()
    kind = kind_of(item)
    if kind is int:
        values = st.integers(low, low + 2)
    elif kind is float:
        low = above if low is None else low
        high = below if high is None else high
        out = {"exclude_min": above is not None, "exclude_max": below is not None}
        values = st.floats(low, high, allow_nan=False, allow_infinity=False, **out)
        values |= st.floats(low, min(low + 0.1, high or 1), **out)
    else:
        values = st.booleans()
    return st.lists(values, max_size=2).map(tuple) if is_tuple(item) else values


@pytest.fixture(scope="module")
def eagerly():
    """Without XLA, which takes seconds for each new network."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("module", SCRIPTS.values())
@given(data=st.data())
@settings(max_examples=CASES // 33, deadline=None, phases=[Phase.generate])  # a case takes 1 s
def test_whatever_lies_in_the_ranges_trains_or_ends_in_a_sentence(module, eagerly, data):
    own = [f for f in fields(module.Settings) if f.name not in ("seed", "runs", "tensorboard")]
    own = [f for f in own if kind_of(f) is not str]
    drawn = data.draw(st.dictionaries(st.sampled_from(own), st.none(), max_size=6))
    values = {item.name: data.draw(within(item), label=item.name) for item in drawn}
    tasks = TASKS if module in (mmoe, ple) else TASKS[:1]
    rows = data_of(n_rows=8)
    weights = values.get("task_weights") or [1.0]
    rows.loss_weights = dict(zip(TASKS, weights * 4, strict=False))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's of tf.data, which is not run eagerly
        made = module.Settings(**values | {"user_data": folder, "quiet": True, "resume": False})
        try:
            model = module.compiled_model(rows, list(tasks), made)
            log = module.train(model, rows, made, seed=0)
        except InputError as error:
            assert re.fullmatch(r"[^\n]+: [^\n]+\.", str(error))
            return
    for scores in log.scores[-1][1].values():
        assert 0 <= scores["auc"] <= 1 and scores["logloss"] >= 0


@pytest.mark.parametrize("module", SCRIPTS.values())
def test_every_setting_is_a_flag_of_its_name_with_help_and_range(module, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(module.Settings, "about", ["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for item in fields(module.Settings):
        assert flag_of(item.name) in shown
    assert "a number, at least 0 and below 1; default" in shown  # --dropout
    assert "a number, above 0; default 0.001" in shown  # --learning-rate


def test_values_come_typed_and_what_differs_from_the_defaults_is_told():
    argv = ["--hidden", "64,32", "--learning-rate", "0.5", "--keep-embeddings", "--runs", "3"]
    made = parse(deepfm.Settings, "about", [*argv, "--seed", "7"])
    assert made.hidden == (64, 32)
    assert list(made.seeds) == [7, 8, 9]
    assert changed(made) == "--hidden 64,32 --learning-rate 0.5 --keep-embeddings"
    kept = hyperparameters(made)
    assert kept["hidden"] == (64, 32) and kept["dropout"] == 0.3
    assert not {"seed", "runs", "user_data", "name", "quiet"} & set(kept)
    assert parse(deepfm.Settings, "about", ["--hidden", ""]).hidden == ()


@pytest.mark.parametrize(
    "argv, part",
    [
        (["--learning-rat", "1"], "did you mean --learning-rate?"),
        (["--colour", "1"], "is no flag"),
        (["scores.csv"], "one word too many"),
        (["--out", "x.csv"], "--predict"),
        (["--name", "a/b"], "--name"),
        (["--name", ""], "--name"),
        (["--seed", "4294967295", "--runs", "2"], "--seed"),
        (["--epochs"], "--epochs"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(argv, part):
    with pytest.raises(InputError, match=part):
        parse(mmoe.Settings, "about", argv)


def test_settings_made_in_python_are_checked_by_the_same_ranges():
    made = mmoe.Settings(tower=[32], learning_rate=1, embedding_l2=0)
    assert made.tower == (32,) and isinstance(made.learning_rate, float)
    assert changed(made) == "--learning-rate 1.0"
    wrong = {"dropout": 1.0, "learning_rate": 10**310, "experts": 0, "tower": 32, "epochs": 1.5}
    for name, value in {**wrong, "seed": True}.items():
        with pytest.raises(InputError, match=flag_of(name)):
            mmoe.Settings(**{name: value})


def test_words_of_any_type_are_words_and_settings_are_of_the_script_itself():
    argv = ["--epochs", 2, "--user-data", Path("a"), "--learning-rate", 0.5, "--hidden", ""]
    made = parse(mmoe.Settings, "about", argv)
    assert (made.epochs, made.user_data, made.learning_rate, made.hidden) == (2, "a", 0.5, ())
    assert parse(mmoe.Settings, "about", made) is made
    for module, other in itertools.permutations(SCRIPTS.values(), 2):
        told = rf"of {other.__name__}\.Settings: .* by {module.__name__}\.Settings\."
        with pytest.raises(InputError, match=told):
            parse(module.Settings, "about", other.Settings())


@pytest.mark.parametrize(
    "error, code, parts",
    [
        (InputError("table.csv, line 3: mend it."), 2, ["table.csv, line 3: mend it."]),
        (Stopped("stopped after epoch 1."), 130, ["stopped after epoch 1."]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (MemoryError(), 2, ["memory ran out"]),
        (OSError(errno.ENOSPC, "", "x.pkl"), 2, ["x.pkl", "No space left", "make room"]),
        (FileNotFoundError(errno.ENOENT, "", "y"), 2, ["y", "No such file", "check the path"]),
        (PermissionError(errno.EACCES, "", "z"), 2, ["z", "Permission denied", "permissions"]),
        *[  # a full disk, whatever says so
            (kind(f"/x/y; {os.strerror(number)} [[node]]"), 2, ["make room on"])
            for kind in (RuntimeError, ValueError, OSError)
            for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        ],
    ],
)
def test_what_goes_wrong_ends_a_command_with_a_sentence_and_its_code(error, code, parts, capsys):
    with pytest.raises(SystemExit) as ended, user_errors():
        raise error
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert all(part in shown for part in parts)
    with pytest.raises(ZeroDivisionError), user_errors():
        raise ZeroDivisionError  # a fault of the project's own keeps its traceback
