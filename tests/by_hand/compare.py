"""The scripts of this checkout against those of another one: speed, seconds, peak memory.

python tests/by_hand/compare.py OTHER_CHECKOUT USER_DATA OTHER_USER_DATA
    [--models deepfm,mmoe,ple,FocalLoss] [--batch-sizes 1024,10240] [--rounds 5] [--keep NAME]

Each checkout trains two epochs on pickles of its own, in turn; medians are printed.
"""

import itertools
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.command import Parser, user_errors

from benchmark import ROOT, measure, run


def training(checkout, folder, model, size):
    """{quantity: number} of two epochs of a script, in a process of its own."""
    flags = ["--user-data", Path(folder).resolve(), "--epochs", 2, "--batch-size", size]
    output, cost = run(f"{model}.py", *flags, cwd=Path(checkout).resolve())
    return speeds(output) | cost


def speeds(output):
    """{"first rows/s", "last rows/s"} of the lines that a script prints of its epochs."""
    rows = re.findall(r"^epoch .* ([\d,]+) rows/s$", output, re.MULTILINE)
    rows = [int(text.replace(",", "")) for text in rows]
    return {"first rows/s": rows[0], "last rows/s": rows[-1]}


def main(argv=None):
    """Print the medians of both, and the ratios of this one's to the other's."""
    parser = Parser(__doc__)
    for name in ("other", "user_data", "other_user_data"):
        parser.add_argument(name)
    parser.add_argument("--models", default="deepfm,mmoe,ple,FocalLoss")
    parser.add_argument("--batch-sizes", default="1024,10240")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", metavar="NAME", help="the record's table for the medians")
    args = parser.parse_args(argv)
    for model, size in itertools.product(args.models.split(","), args.batch_sizes.split(",")):
        ways = {
            "this": lambda _, way=(model, size): training(ROOT, args.user_data, *way),
            "other": lambda _, way=(model, size): training(args.other, args.other_user_data, *way),
        }
        medians = measure(f"{model}, {size}", ways, args.rounds, args.keep)
        ratios = medians.loc["this"] / medians.loc["other"]
        print(ratios.to_frame("this / other").T.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    with user_errors():
        main()
