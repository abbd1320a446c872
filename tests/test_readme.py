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


def test_every_flag_shown_for_a_script_is_a_flag_of_it():
    scripts = {"deepfm": deepfm, "mmoe": mmoe, "ple": ple, "FocalLoss": FocalLoss}
    shown = [
        (name, flag)
        for name, rest in re.findall(r"python (\w+)\.py (--[^`#\n]*)", README + EVIDENCE)
        for flag in re.findall(r"--[\w-]+", rest)
        if name in scripts
    ]
    assert len(shown) > 8
    for name, flag in shown:
        flags = {flag_of(field) for field in vars(scripts[name].Settings())}
        assert flag in flags, (name, flag)


def test_every_place_that_the_documents_name_is_there():
    both = README + EVIDENCE
    names = set(re.findall(r"`((?:common|data|tests|user_data)/[\w./]*)`", both))
    names |= set(re.findall(r"python ((?:tests|data)/[\w/]+\.py)", both))
    for folder, text in ((ROOT, README), (ROOT / "tests", EVIDENCE)):
        names |= {folder / link for link in re.findall(r"\]\(([\w./]+)\)", text)}
    assert len(names) > 15
    for name in names - {"data/sample", "data/kuairand", "user_data/final"}:  # which are made
        assert (ROOT / name).exists(), name


def test_no_file_is_over_250_lines_and_no_function_over_40():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("common/**/*.py")]:
        text = path.read_text()
        assert text.count("\n") <= 250, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, (path, node.name)


def test_a_model_of_ones_own_is_the_readmes_text(tiny_pickles, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    body = code.split("def network")[1].split("def main")
    assert len(body[0].strip().splitlines()) <= 15 and len(body[1].strip().splitlines()) <= 27
    (tmp_path / "shared_bottom.py").write_text(code)
    words = [sys.executable, tmp_path / "shared_bottom.py", "--user-data", tiny_pickles]
    world = {"PYTHONPATH": str(ROOT), "PATH": ""}
    run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=world)
    assert run.returncode == 0, run.stderr
    last = run.stdout.splitlines()[-1].split()
    assert last[:3] == ["read_comment", "validation", "AUC:"] and 0.8 < float(last[-1]) < 0.96
    assert "> shared_bottom" in run.stdout
    assert (tiny_pickles / "shared_bottom.keras").exists()


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
