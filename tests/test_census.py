"""data/census.py on made-up people, on wrong files, and what comes out against an obvious way."""

import gzip

import mmoe
from common.command import InputError
from common.contract import load
from data import census

import numpy as np
import pandas as pd
import pytest
from conftest import script

N = 20_000


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A file of made-up people as UCI writes them; who works many weeks earns more."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.choice(["a b", "?", "c"], N) for name in census.NAMES})
    for name in census.NUMBERS:
        table[name] = rng.integers(0, 53, N)
    table["marital"] = rng.choice(["Never married", "Divorced"], N)
    rich = rng.random(N) < table["weeks_worked"] / 60
    table["income"] = np.where(rich, *reversed(census.INCOMES))
    folder = tmp_path_factory.mktemp("people")
    path = folder / "census-income.data"
    path.write_text("".join(", ".join(map(str, row)) + "\n" for row in table.to_numpy()))
    with gzip.open(folder / "census-income.test.gz", "wt") as file:
        file.write(path.read_text())
    return path, table


def test_rows_labels_ids_and_numbers_come_out_as_they_went_in(people, tmp_path):
    path, table = people
    test = path.with_name("census-income.test.gz")
    script("data/census.py", path, test, "--out", "made", "--valid-share", "0.2", cwd=tmp_path)
    data = load(tmp_path / "made")
    parts = (data.train, data.valid, data.test)
    assert [len(rows["income"]) for rows in parts] == [16_000, 4_000, N]
    assert (data.test["income"] == (table["income"] == "50000+.")).all()
    assert (data.test["single"] == (table["marital"] == "Never married")).all()
    assert not {"marital", "weight", "income_bin"} & set(data.features)
    codes = pd.Series(data.test["race"]).groupby(table["race"]).unique()
    assert codes.map(len).max() == 1 and codes.map(max).nunique() == 3
    weeks = table["weeks_worked"].to_numpy()
    bins = pd.Series(data.test["weeks_worked_bin"]).groupby(weeks).unique()
    assert bins.map(len).max() == 1 and bins.map(max).is_monotonic_increasing
    logs = np.log1p(weeks)
    assert np.corrcoef(logs, data.test["weeks_worked"])[0, 1] > 0.98
    every = np.concatenate([data.train["age_bin"], data.valid["age_bin"]])
    assert sorted(every) == sorted(data.test["age_bin"])  # the same people
    (tmp_path / "made" / "test_a.pkl").write_bytes(b"of the contest's data")
    census.main([str(path), "--out", str(tmp_path / "made"), "--quiet"])
    assert load(tmp_path / "made").test == load(tmp_path / "made").unlabelled == {}


def test_a_script_trains_on_it_and_scores_the_test_file(people, tmp_path):
    path, _ = people
    test = path.with_name("census-income.test.gz")
    census.main([str(path), str(test), "--out", str(tmp_path), "--quiet"])
    few = "weeks_worked,weeks_worked_bin,age,race"  # to compile in less time
    result = mmoe.main(["--user-data", str(tmp_path), "--quiet", "--features", few])
    assert result.scores[0]["income"]["auc"] > 0.7 and result.scores[0]["income"]["testauc"] > 0.7
    assert abs(result.scores[0]["single"]["auc"] - 0.5) < 0.1  # there is nothing to learn


WRONG = [  # what is changed in the file, and what the sentence must name
    (lambda t: t.replace(", ", ",", 1).replace("50000+.", "rich", 1), "column income: 'rich'"),
    (lambda text: text.replace(",", ", x, ", 1), "43 columns and not 42"),
    (lambda text: "-" + text, "line 1, column age"),
    (lambda text: "", "cannot be parsed"),
    (lambda text: text.rstrip()[:-3], f"line {N}, column income"),
]


@pytest.mark.parametrize("change, part", WRONG)
def test_a_wrong_file_is_refused_and_nothing_is_written(change, part, people, tmp_path):
    (tmp_path / "wrong.data").write_text(change(people[0].read_text()))
    with pytest.raises(InputError, match=part):
        census.main([str(tmp_path / "wrong.data"), "--out", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()


WRONG_SHARES = [f"--valid-share={share}" for share in ("1", "0", "-1", "nan", "inf", "1e-9")]


@pytest.mark.parametrize("flag", [*WRONG_SHARES, "--seed=-1"])
def test_wrong_flags_and_damaged_files_are_refused(flag, people, tmp_path):
    with pytest.raises(InputError, match=flag.partition("=")[0]):
        census.main([str(people[0]), "--out", str(tmp_path / "made"), flag])
    (tmp_path / "x.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"x\.gz cannot be parsed"):
        census.main([str(tmp_path / "x.gz"), "--out", str(tmp_path / "made")])
