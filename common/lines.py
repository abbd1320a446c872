"""CSVs of numbers, written whole and fast."""

import csv

from common.pickles import beside

CHUNK = 1 << 18  # rows at a time


def write_columns(path, columns):
    """Write {column: numbers (rows,)} as a CSV, whole or not at all: see `lines_of`."""
    (n_rows,) = {len(values) for values in columns.values()}
    with beside(path) as place, open(place, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(columns)
        for first in range(0, n_rows, CHUNK):
            file.write(lines_of({c: v[first : first + CHUNK] for c, v in columns.items()}))


def lines_of(columns):
    """{column: numbers (rows,)} as lines of a CSV: reals with 6 decimals, NaN as nothing."""
    line = ",".join("%d" if v.dtype.kind in "biu" else "%.6f" for v in columns.values()) + "\n"
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return "".join(map(line.__mod__, rows)).replace("nan", "")  # to_csv takes twice as long
