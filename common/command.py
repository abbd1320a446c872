"""Commands: their words, a bar, and a user's mistake as one sentence."""

import argparse
import errno
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches

from tqdm import tqdm

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STOPS = (signal.SIGINT, signal.SIGTERM)  # of Ctrl-C, of `kill`


class InputError(Exception):
    """A mistake in what the user gave: one sentence that names the place and the remedy."""


class Stopped(Exception):
    """Training was asked to stop, and did after saving: one sentence that says how to go on."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with the docstring as it stands; its errors name the nearest flag."""

    def __init__(self, description):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, argv=None):
        if argv is None and "kernel_launcher" in sys.argv[0]:
            argv = []  # the flags are those of the notebook's kernel
        known, unknown = self.parse_known_args(argv)
        if not unknown:
            return known
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            self.error(f"{flag} is one word too many: --help shows what may be given.")
        near = get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else "--help lists them."
        self.error(f"{flag} is no flag: {remedy}")

    def error(self, message):
        raise InputError(f"{self.prog}: {message}")


@contextmanager
def handlers_kept():
    """Give STOPS the handlers back that they had before, whatever happens."""
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set them
            for number, handler in before.items():
                if handler is not None:  # one that was not set from Python
                    signal.signal(number, handler)


def bar(about, items=None, total=None, size=None, shown=True):
    """A tqdm over `items`, or one that `update` moves up to `total` items or `size` bytes.

    It is drawn in a terminal only, and is gone when the work is done.
    """
    unit = {} if size is None else {"unit": "B", "unit_scale": True}
    width, height = shutil.get_terminal_size()  # 80, 24 for a terminal that says 0, 0
    seen = shown and sys.stdout and sys.stderr  # None: is closed
    disable = None if seen else True  # None: where stderr is no terminal
    options = {"leave": False, "ncols": width, "nrows": height, "disable": disable, **unit}
    return tqdm(items, f"  {about}", size or total, **options)


def complain(sentence):
    """Print the sentence on stderr, over the bar that the failed work may have left on its line."""
    for drawn in list(getattr(tqdm, "_instances", ())):  # one that Ctrl-C met as it was made, too
        drawn.disable = True  # or its end would wipe the line after the sentence
    if sys.stderr and sys.stderr.isatty():
        sentence = "\r\033[K" + sentence
    print(sentence, file=sys.stderr)


class Report:
    """Prints a line a stage: what it is, seconds since the line before if any, what was found."""

    def __init__(self):
        self.since = time.perf_counter()

    def __call__(self, stage, found):
        now = time.perf_counter()
        seconds = f"{now - self.since:.1f} s" if now - self.since >= 0.05 else ""
        self.since = now
        with tqdm.external_write_mode():  # above a bar, where one is drawn
            print(f"  {stage:20} {seconds:>8}  {found}", flush=True)


class Patient:
    """A stream that goes on, and loses what is written, when nobody reads it any more."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        return self.attempt(self.stream.write, text)

    def flush(self):
        self.attempt(self.stream.flush)

    def attempt(self, function, *arguments):
        try:
            return function(*arguments)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


@contextmanager
def user_errors():
    """Turn a user's mistake, a failing disk or a Ctrl-C into one sentence on stderr and an exit.

    The exit code is 2, after Ctrl-C 130. A letter that a terminal cannot show becomes a question
    mark, and `| head -1` stops no work.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if any(action == "error" for action, *_ in warnings.filters):  # as PYTHONWARNINGS=error asks
        warnings.simplefilter("default")  # or what Keras warns of ends training
    try:
        with redirect_stdout(Patient(sys.stdout) if sys.stdout else None):
            yield
    except InputError as error:
        code, sentence = 2, str(error)
    except Stopped as stopped:
        code, sentence = 130, str(stopped)
    except KeyboardInterrupt:
        code, sentence = 130, "interrupted: what was there before is untouched."
    except OSError as error:
        code, sentence = 2, told(error)
    except Exception as error:
        is_full = any(os.strerror(number) in str(error) for number in FULL)
        is_memory = isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__
        if not (is_full or is_memory):
            raise
        code, sentence = 2, "memory ran out: close other programs, or use fewer rows."
        if is_full:  # as TensorFlow says it, of whose errors it is one of memory
            sentence = "the disk is full: make room on it."
    else:
        return
    complain(sentence)
    sys.exit(code)


def told(error):
    """What an OSError says to the user."""
    remedies = {
        **dict.fromkeys(FULL, "make room on the disk"),
        **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions"),
        **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), "check the path"),
    }
    code = error.errno or errno.ENOSPC  # NumPy gives no number where it could not write everything
    place = error.filename or "writing"
    return f"{place}: {os.strerror(code)}: {remedies.get(code, 'check the disk')}."
