"""What the documents show: links, flags, and code that is run as it stands there."""

import ast
import re
import subprocess
import sys

import deepfm
import FocalLoss
import mmoe
import ple
from common.settings import flag_of

import pytest
from conftest import ROOT, assert_one_sentence, script

README = (ROOT / "README.md").read_text(encoding="utf-8")
EVIDENCE = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "user_data" / "README.md").read_text(encoding="utf-8")
SCRIPTS = {"deepfm.py": deepfm, "mmoe.py": mmoe, "ple.py": ple, "FocalLoss.py": FocalLoss}
LINKS = sorted(set(re.findall(r"\[(`\w+`(?:[,、] ?`\w+`)*)\]\((\w+\.py)\)", README)))


@pytest.mark.parametrize("names, file", LINKS)
def test_a_link_names_what_its_file_defines(names, file):
    for name in re.findall(r"\w+", names):
        assert re.search(rf"^(def|class) {name}\b", (ROOT / file).read_text(), re.MULTILINE), name


def test_both_languages_link_each_model():
    assert {file for _, file in LINKS} == {"deepfm.py", "mmoe.py", "ple.py", "FocalLoss.py"}
    english, chinese = README.split("# 中文说明\n")
    for _, file in LINKS:
        assert f"]({file})" in english and f"]({file})" in chinese


TESTED = {  # a command's script and flags: the test that runs them
    "get_data.py": "test_source.py::test_a_zip_says_what_its_folder_says",
    "get_data.py --final": "test_scripts.py::test_every_day_is_trained_on_in_the_end",
    "get_data.py --final --out": "test_scripts.py::test_every_day_is_trained_on_in_the_end",
    "get_data.py --out": "test_scripts.py::test_every_day_is_trained_on_in_the_end",
    "get_data.py --out --regime": "test_get_data.py::test_the_regime_exposures_has_its_name_and",
    "get_data.py --out --valid-days": "test_results.py::test_the_table_of_several_days",
    "get_data.py --regime": "test_get_data.py::test_the_regime_exposures_has_its_name_and",
    "get_data.py --valid-day": "test_get_data.py::test_valid_day_splits_and_leaves_later_days_out",
    "get_data.py --valid-days": "test_results.py::test_the_table_of_several_days",
    "common.days": "test_results.py::test_the_table_of_several_days",
    "common.submission": "test_submission.py::test_the_checker_is_a_command",
    "data/census.py": "test_census.py::test_a_script_trains_on_it_and_scores_the_test_file",
    "data/census.py --valid-share": "test_census.py::test_rows_labels_ids_and_numbers_come_out",
    "data/kuairand.py --first-date --last-date": "test_kuairand.py::test_dates_cut_the_logs",
    "data/sample.py --scale": "test_sample.py::test_the_seed_decides_the_bytes",
    "deepfm.py --target": "test_saved.py::test_each_task_has_its_own_network",
    "mmoe.py --epochs --patience": "test_experiment.py::test_with_patience_the_scores_and_the",
    "mmoe.py --learning-rate --runs": "test_by_hand.py::test_missing_seeds_are_run_and_read",
    "mmoe.py --out --predict": "test_saved.py::test_predict_scores_a_csv_whatever_ids_it_has",
    "mmoe.py --runs --user-data": "test_scripts.py::test_every_day_is_trained_on_in_the_end",
    "mmoe.py --task-weights --tasks": "test_scripts.py::test_seven_tasks",
    "mmoe.py --user-data": "test_census.py::test_a_script_trains_on_it_and_scores_the_test_file",
    "ple.py --epochs --resume": "test_scripts.py::test_a_run_stopped_and_resumed_is_a_run_never",
    "ple.py --own-experts --shared-experts --tasks": "test_scripts.py::test_a_run_stopped_and",
}


def commands(text):
    """The commands that a document shows, in lines of their own and within sentences."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    shown = re.findall(r"(?m)(?:^    |`)(python [^`\n]+)", text)
    parts = [part.strip() for line in shown for part in re.split("#|&&|[;；，。]", line)]
    return [part for part in parts if part.startswith("python ")]


def test_every_command_has_its_scripts_flags_and_is_run_by_a_test_or_listed_as_run_by_hand():
    by_hand = EVIDENCE.split("## Commands that no test runs\n")[1]
    every = commands(README) + commands(EVIDENCE)
    assert len(every) > 40
    for command in every:
        words = command.removeprefix("python ").removeprefix("-m ").split()
        flags = sorted({word for word in words if word.startswith("--")})
        if words[0] in SCRIPTS:
            settings = SCRIPTS[words[0]].Settings()
            assert set(flags) <= set(map(flag_of, vars(settings))), command
        if words[0] in by_hand or "FLAGS" in words:
            assert words[0].startswith("tests/by_hand/") or "FLAGS above" in by_hand, command
            continue
        shape = " ".join([words[0], *flags])
        assert shape in TESTED, command
        file, name = TESTED[shape].split("::")
        assert f"\ndef {name}" in (ROOT / "tests" / file).read_text(), name


def test_every_place_that_the_documents_name_is_there():
    both = README + EVIDENCE
    names = set(re.findall(r"`((?:common|data|tests|user_data)/[\w./]*)`", both))
    names |= set(re.findall(r"python ((?:tests|data)/[\w/]+\.py)", both))
    for folder, text in ((ROOT, README), (ROOT / "tests", EVIDENCE)):
        names |= {folder / link for link in re.findall(r"\]\(([\w./]+)\)", text)}
    assert len(names) > 15
    made = {"data/sample", "data/kuairand", "user_data/final", "user_data/search"}
    for name in names - made:
        assert (ROOT / name).exists(), name


def test_no_file_is_over_250_lines_and_no_function_over_40():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("common/**/*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 250, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, (path, node.name)


def test_a_model_of_ones_own_is_the_readmes_text(small_pickles, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    body = code.split("def network")[1].split("def main")
    assert len(body[0].strip().splitlines()) <= 15 and len(body[1].strip().splitlines()) <= 27
    (tmp_path / "shared_bottom.py").write_text(code)
    words = [sys.executable, tmp_path / "shared_bottom.py", "--user-data", small_pickles]
    world = {"PYTHONPATH": str(ROOT), "PATH": ""}
    run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=world)
    assert run.returncode == 0, run.stderr
    last = run.stdout.splitlines()[-1].split()
    assert last[:3] == ["read_comment", "validation", "AUC:"] and 0.8 < float(last[-1]) < 0.96
    assert "> shared_bottom" in run.stdout
    assert (small_pickles / "shared_bottom.keras").exists()


def test_the_contracts_smallest_example_runs_and_is_not_overwritten(tiny, tmp_path):
    code = CONTRACT.split("## The smallest example")[1].split("Then `")[0]
    subprocess.run([sys.executable, "-c", re.sub("(?m)^    ", "", code)], cwd=tmp_path, check=True)
    run = script("mmoe.py", "--user-data", "my_table", cwd=tmp_path)
    last = run.stdout.splitlines()[-1].split()
    assert last[0] == "click" and 0.57 < float(last[-1]) < 0.7
    before = {path: path.read_bytes() for path in (tmp_path / "my_table").glob("*.*l")}
    refused = script("get_data.py", tiny, "--out", "my_table", cwd=tmp_path, check=False)
    assert_one_sentence(refused, "my_table holds another table, 'my advertisements'", "--out")
    assert {path: path.read_bytes() for path in (tmp_path / "my_table").glob("*.*l")} == before
