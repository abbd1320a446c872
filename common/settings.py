"""Settings as dataclasses: a flag a field, with its range beside its help, checked once."""

import dataclasses
import math
import sys
from dataclasses import dataclass, field, fields

from common.command import InputError, Parser

LARGEST_SEED = 2**32 - 1
LARGEST = sys.float_info.max


def setting(default, help, low=None, high=None, above=None, below=None):
    """A field of a settings class: its default, the help of its flag, and the range of its numbers.

    low and high may be reached, above and below may not. A tuple has the range for each number.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return field(default=default, metadata={"help": help, "bounds": bounds})


@dataclass
class RunSettings:
    """What every script's command line has besides its own hyperparameters.

    Raises InputError, when it is made, for the first setting that is not in its range.
    """

    user_data: str = setting("user_data", "folder of the pickles that get_data.py wrote")
    name: str = setting("", "name of the model in results.csv and of its files")
    target: str = setting(
        "", "task of the last line and the order of tables (default: read_comment, or the first)"
    )
    tasks: tuple[str, ...] = setting((), "tasks to learn, others than the data's own too")
    task_weights: tuple[float, ...] = setting((), "weights of the tasks in the loss", above=0)
    features: tuple[str, ...] = setting((), "features to use (default: those of the data)")
    seed: int = setting(0, "seed of the first run, the next runs take the next", 0, LARGEST_SEED)
    runs: int = setting(1, "runs, whose mean and standard deviation are reported", 1, 10_000)
    patience: int = setting(0, "epochs without a better mean AUC that end a run, 0 for all", 0)
    resume: bool = setting(False, "go on with a run that was stopped, from where it was")
    tensorboard: bool = setting(False, "write event files to USER_DATA/tensorboard")
    predict: str = setting("", "score this CSV with the saved model, and train nothing")
    out: str = setting("", "file that --predict writes")
    export: str = setting("", "write the saved model as a SavedModel to this folder, no training")
    quiet: bool = setting(False, "print the last line alone")
    verbose: bool = setting(False, "print log losses and calibration too")

    def __post_init__(self):
        for item in fields(self):
            value = getattr(self, item.name)
            check(item, value)
            if is_tuple(item):
                setattr(self, item.name, tuple(map(kind_of(item), value)))
            elif item.type is float:
                setattr(self, item.name, float(value))
        if not self.name or set(self.name) & set('/\\\0"\n') or self.name.startswith("."):
            raise InputError(f"--name {self.name!r} cannot name a file: use letters and digits.")
        if self.seed + self.runs - 1 > LARGEST_SEED:
            raise InputError(f"--seed {self.seed} leaves no {self.runs} seeds: give a smaller one.")
        if self.out and not self.predict:
            raise InputError("--out is the file that --predict writes: give --predict too.")

    @property
    def seeds(self):
        """The seeds of the runs."""
        return range(self.seed, self.seed + self.runs)


def check(item, value):
    """Raise InputError if the value of a dataclass field is not of its type or not in its range."""
    kind = kind_of(item)
    bounds = {name: bound for name, bound in item.metadata["bounds"].items() if bound is not None}
    right = isinstance(value, list | tuple) if is_tuple(item) else True
    for part in value if right and is_tuple(item) else [value]:
        if kind in (int, float):
            is_number = isinstance(part, kind | int) and not isinstance(part, bool)
            right = right and is_number and abs(part) <= LARGEST and inside(part, **bounds)
        else:
            right = right and isinstance(part, kind)
        if not right:
            raise InputError(f"{flag_of(item.name)} takes {range_of(item)}, and {part!r} is none.")


def inside(number, low=-math.inf, high=math.inf, above=-math.inf, below=math.inf):
    """Whether a number lies within the bounds of `setting`."""
    return low <= number <= high and above < number < below


def is_tuple(item):
    """Whether a dataclass field holds a tuple[KIND, ...]."""
    return getattr(item.type, "__origin__", None) is tuple


def kind_of(item):
    """The type of a dataclass field, or of its elements."""
    return item.type.__args__[0] if is_tuple(item) else item.type


def range_of(item):
    """What a dataclass field takes, in words: "a whole number, at least 1"."""
    what = {int: "a whole number", float: "a number", str: "a text", bool: "yes or no"}
    words = {"low": "at least {}", "above": "above {}", "high": "at most {}", "below": "below {}"}
    bounds = item.metadata["bounds"]
    limits = [text.format(bounds[key]) for key, text in words.items() if bounds[key] is not None]
    return " ".join([what[kind_of(item)] + "," * bool(limits), " and ".join(limits)]).strip()


def parse(settings_class, description, argv=None):
    """The settings that a command line asks for: a flag a field, of the same name, with - for _.

    argv: a list of words, None for the process's own, or settings already made. Raises InputError.
    """
    if type(argv) is settings_class:
        return argv
    if isinstance(argv, RunSettings):
        made = f"{type(argv).__module__}.{type(argv).__qualname__}"
        own = f"{settings_class.__module__}.{settings_class.__qualname__}"
        raise InputError(f"settings of {made}: make them anew by {own}.")
    parser = Parser(description)
    for item in fields(settings_class):
        if item.type is bool:
            options = {"action": "store_true"}
        else:
            options = {"type": reader_of(item), "metavar": item.name.upper()}
        parser.add_argument(flag_of(item.name), default=item.default, help=help_of(item), **options)
    return settings_class(**vars(parser.parse_args(argv and list(map(str, argv)))))


def reader_of(item):
    """The function that reads a flag's word as the value of a dataclass field."""
    kind = kind_of(item)

    def read(word):
        try:
            return kind(word.strip())
        except ValueError:
            return word  # which `check` refuses

    if is_tuple(item):
        return lambda words: tuple(read(word) for word in words.split(",") if words)
    return read


def help_of(item):
    """A flag's line of help: what it is, its range, its default."""
    told = range_of(item) if any(b is not None for b in item.metadata["bounds"].values()) else ""
    default = ",".join(map(str, item.default)) if is_tuple(item) else str(item.default)
    if default and item.type is not bool:
        told = f"{told}; default {default}" if told else f"default {default}"
    text = item.metadata["help"] + (f" ({told})" if told else "")
    return text.replace("%", "%%")


def flag_of(name):
    return "--" + name.replace("_", "-")


def hyperparameters(settings, chosen_epochs=0):
    """{name: value} of what makes two runs comparable: a script's own settings, tasks, features.

    chosen_epochs: how many the data chose, which stand where the settings left it to them.
    """
    chosen = ("tasks", "task_weights", "features", "patience")
    shared = {item.name for item in fields(RunSettings)}.difference(chosen)
    values = dataclasses.asdict(settings)
    values = {name: value for name, value in values.items() if name not in shared}
    if values.get("epochs") == 0:
        values["epochs"] = chosen_epochs
    return values


def changed(settings):
    """The hyperparameters that are not the defaults, as flags: "--learning-rate 0.002"."""
    defaults = {item.name: item.default for item in fields(settings)}
    flags = []
    for name, value in hyperparameters(settings).items():
        if value != defaults[name]:
            text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
            flags.append(flag_of(name) if value is True else f"{flag_of(name)} {text}")
    return " ".join(flags)
