"""Files of lines a block at a time, and threads that work on the next blocks."""

import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from common.source import unpacking

BLOCK = 1 << 24  # bytes of a CSV that are parsed at a time
EMBEDDED = 1 << 22  # bytes of embeddings, of which larger blocks take no less time


def blocks_of(file, place, done):
    """(first line, block) of a binary file, about BLOCK bytes of the lines behind the first each.

    One at least, which may be empty. place: named where the file cannot be unpacked, an InputError.
    done: a bar that the bytes move.
    """
    with unpacking(place):
        begun = file.readline()  # where no line feeds end lines it is the whole file
        end = re.search(rb"\r\n?|\n|\Z", begun).end()
        first = begun[:end]
        done.update(end)
        block = begun[end:] + file.read(BLOCK) + file.readline()
        while True:
            done.update(len(block))
            yield first, block
            block = file.read(BLOCK) + file.readline()
            if not block:
                return


def in_two_threads(function, items):
    """What a function gives of each of the tuples, in order, while threads work on the next two."""
    with ThreadPoolExecutor(2) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, *item))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
