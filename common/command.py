"""The command line: settings become flags, a wrong flag names the nearest right one, a mistake is one sentence."""
import argparse
import errno
import os
import sys
from dataclasses import dataclass, field, fields
from difflib import get_close_matches

from common import memory
from common.pickles import InputError
from common.progress import complain


def setting(default, help):
    """A field of a settings class: its default and the line of help of its flag."""
    return field(default=default, metadata={"help": help})


@dataclass
class RunSettings:
    """What every script's command line has besides its own hyperparameters."""

    user_data: str = setting("user_data", "folder of the pickles that get_data.py wrote")
    target: str = setting("read_comment", "task whose validation AUC is the last line")
    tasks: str = setting("", "tasks to learn, such as like,forward,follow")
    task_weights: str = setting("", "weights of the tasks in the loss, such as 4,3,2,1; equal if none are given")
    seed: int = setting(0, "seed of the first run; the next runs take the next seeds")
    runs: int = setting(1, "runs, whose mean and standard deviation are reported")
    resume: bool = setting(False, "go on with a run that was stopped, from where it was")
    tensorboard: bool = setting(False, "write event files for TensorBoard to USER_DATA/tensorboard")
    predict: str = setting("", "score this CSV with the model that the last run saved, and train nothing")
    out: str = setting("", "where --predict writes")
    export: str = setting("", "write the saved model as a SavedModel for TensorFlow Serving to this folder, and train nothing")
    quiet: bool = setting(False, "print the last line alone")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with the docstring as it stands, whose errors are one sentence and name the nearest flag."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def parse_args(self, argv=None):
        known, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].split("=")[0]
            if not flag.startswith("-"):
                self.error(f"{flag} is one word too many: --help shows what may be given.")
            near = get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.5)
            self.error(f"{flag} is no flag: " + (f"did you mean {near[0]}?" if near else "--help lists them."))
        return known

    def error(self, message):
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def parse(settings_class, description, argv=None):
    """The settings that the command line asks for: a flag a field, of the same name, with - for _."""
    parser = Parser(description)
    for one in fields(settings_class):
        flag, about = flag_of(one.name), one.metadata["help"]
        if one.type is bool:
            parser.add_argument(flag, action="store_true", help=about)
        else:
            shown = f" (default: {one.default})" if one.default != "" else ""
            parser.add_argument(flag, type=one.type, default=one.default, help=about + shown)
    return settings_class(**vars(parser.parse_args(argv)))


def flag_of(name):
    return "--" + name.replace("_", "-")


def hyperparameters(settings):
    """{name: value} of what a script's settings add to RunSettings, and of tasks and task_weights: what makes two runs comparable."""
    shared = {one.name for one in fields(RunSettings)} - {"tasks", "task_weights"}
    return {one.name: getattr(settings, one.name) for one in fields(settings) if one.name not in shared}


def changed(settings):
    """The hyperparameters that differ from their defaults, as on a command line: "--learning-rate 0.002"."""
    default = {one.name: one.default for one in fields(settings)}
    return " ".join(flag_of(name) + ("" if value is True else f" {value}") for name, value in hyperparameters(settings).items() if value != default[name])


def numbers(text, kind=int):
    """The numbers of "64,64"; none for "". Raises InputError for anything else."""
    try:
        return [kind(word) for word in str(text).split(",") if word]
    except ValueError:
        raise InputError(f"{text!r} is no list of numbers such as 64,32: mend the flag.") from None


def guarded(program, run, out):
    """Call `run`, which writes to `out`: the exit code, 0, 2 after a mistake or where there is no room, 130 after Ctrl-C.

    What went wrong is one sentence on stderr.
    """
    try:
        run()
    except KeyboardInterrupt:
        complain(f"{program}: interrupted: what was in {out} before is untouched.")
        return 130
    except (InputError, OSError, MemoryError) as error:
        complain(f"{program}: {sentence(error, out)}")
        return 2
    return 0


def main(run, out="user_data"):
    """Call `run` and return what it does; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        return run()
    except (InputError, OSError, MemoryError) as error:
        complain(sentence(error, out))
        sys.exit(2)


def sentence(error, out):
    """What an InputError, an OSError or a MemoryError of a run that writes to `out` says to the user."""
    if isinstance(error, OSError):
        why = os.strerror(error.errno or errno.ENOSPC)  # NumPy gives no number where it could not write everything
        return f"{error.filename or out}: {why}: make room or check permissions."
    return memory.ran_out() if isinstance(error, MemoryError) else str(error)
