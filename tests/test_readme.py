"""The README's pointers into the code, and the flags that it shows."""
import re

import pytest
from conftest import ROOT

import FocalLoss
import deepfm
import mmoe
import ple
from common.command import flag_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name, file, line", sorted(set(re.findall(r"\[`(\w+)`\]\((\w+\.py)#L(\d+)\)", README))))
def test_a_link_points_at_the_definition_that_it_names(name, file, line):
    assert re.match(rf"(def|class) {name}\b", (ROOT / file).read_text().splitlines()[int(line) - 1])


def test_every_flag_shown_for_a_script_is_one_of_its_flags():
    scripts = {"deepfm": deepfm, "mmoe": mmoe, "ple": ple, "FocalLoss": FocalLoss}
    shown = [(name, flag) for name, rest in re.findall(r"python (\w+)\.py (--.*)", README) if name in scripts
             for flag in re.findall(r"--[\w-]+", rest)]
    assert len(shown) > 8
    for name, flag in shown:
        assert flag in {flag_of(one) for one in vars(scripts[name].Settings())}, (name, flag)
