"""A bar with the time left while long work runs: in a terminal only, a pipe or a log file gets none of it."""
import shutil
import sys

from tqdm import tqdm


def bar(about, items=None, total=None, size=None):
    """A tqdm over `items`, or one moved by `update`, up to `total` items or `size` bytes. It is gone when the work is done.

    With sys.stdout None, which is how --quiet keeps print silent, there is no bar either.
    """
    unit = {} if size is None else {"unit": "B", "unit_scale": True}
    width, height = shutil.get_terminal_size()  # 80, 24 for a terminal that says 0, 0, on which tqdm would show nothing
    disable = True if sys.stdout is None else None
    return tqdm(items, f"  {about}", size or total, leave=False, ncols=width, nrows=height, disable=disable, **unit)


def complain(sentence):
    """Print the sentence on stderr, over the bar that the failed work may have left on its line."""
    print("\r\033[K" * sys.stderr.isatty() + sentence, file=sys.stderr)
