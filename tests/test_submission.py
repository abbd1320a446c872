"""The contest's submission files: what is written passes the check, and what is wrong does not."""

import re
import subprocess
import sys
from pathlib import Path

from common.columns import FINAL_ROUND_WEIGHTS, TASKS
from common.command import InputError
from common.scores import uauc
from common.submission import check, main, write

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, assert_one_sentence

SEVEN = tuple(FINAL_ROUND_WEIGHTS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a right submission of either round, its test file and labels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ids = {"userid": rng.integers(1, 9, 50), "feedid": rng.integers(1, 99, 50)}
    pd.DataFrame({**ids, "device": 1}).to_csv("test.csv", index=False)
    pd.DataFrame({**ids, **{t: rng.integers(0, 2, 50) for t in SEVEN}}).to_csv("labels.csv")
    every = {task: rng.choice([0.0, 1e-9, 0.1234564, 0.7, 1.0], 50) for task in reversed(SEVEN)}
    write("7.csv", **ids, probabilities=every)
    write("4.csv", **ids, probabilities={task: every[task] for task in TASKS})
    return tmp_path


@pytest.mark.parametrize("n_tasks", [4, 7])
def test_what_is_written_passes_and_its_score_is_the_weighted_uauc(folder, n_tasks, capsys):
    columns = check(f"{n_tasks}.csv", "test.csv")
    assert tuple(columns) == ("userid", "feedid", *SEVEN[:n_tasks])
    assert np.unique(columns["like"]).tolist() == [0.0, 0.123456, 0.7, 1.0]
    assert columns["feedid"].tolist() == pd.read_csv("test.csv")["feedid"].tolist()
    labels = pd.read_csv("labels.csv")
    by_hand = [uauc(labels[t], columns[t], columns["userid"]) for t in SEVEN[:n_tasks]]
    score = np.average(by_hand, weights=[4, 3, 2, 1, 1, 1, 1][:n_tasks])
    main([f"{n_tasks}.csv", "test.csv", "labels.csv"])
    printed = re.split("  |\n", capsys.readouterr().out)
    assert printed[0] == f"{n_tasks}.csv: 50 rows in the contest's format"
    names = [*SEVEN[:n_tasks], "score"]
    values = zip(names, [*by_hand, score], strict=True)
    assert printed[1:] == [*(f"{name} {value:.6f}" for name, value in values), ""]


def test_the_checker_is_a_command(folder):
    words = [sys.executable, "-m", "common.submission", folder / "4.csv", folder / "nowhere.csv"]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert_one_sentence(run, f"{folder}/nowhere.csv is missing")


def test_the_checker_finds_what_the_contest_would_refuse(folder):
    right = Path("4.csv").read_text().removesuffix("\n")
    Path("wrong.csv").write_text(right, newline="\r\n")
    main(["wrong.csv", "test.csv"])
    last = "line 51: 4 probabilities of 6 decimals"
    words = "0.50000", "1.500000", "-0.50000", "nan", "", "0.500000,0.500000"
    for pattern, text, sentence in (
        ("\n[^\n]*$", "", "has 49 rows and test[.]csv has 50"),
        ("\n(.*)\n(.*)", "\n\\2\n\\1", "line 2: it is not of user"),
        ("\n(\\d+),\\d+", "\n\\1,0", "line 2: it is not of user"),
        ("like", "likes", "the header must be userid,feedid"),
        (",[^,]*$", "", last),
        *[("[^,]*$", word, last) for word in words],
    ):
        Path("wrong.csv").write_text(re.sub(pattern, text, right, count=1), newline="\r\n")
        with pytest.raises(InputError, match=f"wrong[.]csv.*{sentence}"):
            main(["wrong.csv", "test.csv"])


def test_files_that_are_missing_not_text_or_not_of_these_rows(folder):
    Path("wrong.csv").write_bytes(b"\xff\xfe")
    pd.read_csv("labels.csv").iloc[::-1].to_csv("labels.csv", index=False)
    for words, sentence in {
        ("nowhere.csv", "test.csv"): "nowhere[.]csv does not exist: give the path of a CSV[.]",
        ("wrong.csv", "test.csv"): "wrong[.]csv is no text in UTF-8",
        ("4.csv", "test.csv", "labels.csv"): "labels[.]csv: its rows are not those of the sub",
    }.items():
        with pytest.raises(InputError, match=sentence):
            main(words)
