"""Parser: a mistake on the command line is one sentence that names the flag, and exit code 2."""
import pytest
from conftest import script

WRONG = {  # command line: what the sentence says
    "get_data.py --valid_day=3": "get_data.py: --valid_day is no flag: did you mean --valid-day?",
    "get_data.py --min-cuont 3": "get_data.py: --min-cuont is no flag: did you mean --min-count?",
    "get_data.py a b": "get_data.py: b is one word too many: --help shows what may be given.",
    "get_data.py --xyzzy": "get_data.py: --xyzzy is no flag: --help lists them.",
    "data/sample.py --sclae 1": "sample.py: --sclae is no flag: did you mean --scale?",
    "data/kuairand.py a b --quite": "kuairand.py: --quite is no flag: did you mean --quiet?",
    "get_data.py --valid-day x": "get_data.py: argument --valid-day: invalid int value: 'x'",
    "data/kuairand.py a": "kuairand.py: the following arguments are required: OUT",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_command_line_is_one_sentence(tmp_path, command):
    run = script(*command.split(), cwd=tmp_path, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", WRONG[command] + "\n")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["get_data.py", "data/sample.py", "data/kuairand.py"])
def test_help_gives_every_flag_a_line(tmp_path, name):
    flags = script(name, "--help", cwd=tmp_path).stdout.split("options:")[1]
    assert "--quiet  " in flags and "print nothing but errors" in flags
