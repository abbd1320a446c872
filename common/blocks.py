"""Files of lines a block at a time, and threads that work on the next blocks."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

BLOCK = 1 << 24  # bytes


def blocks_of(file, first, done):
    """The lines of a binary file behind its first one, about BLOCK bytes at a time; one at least.

    done: a bar that they move. Where other characters than line feeds end lines it is all one.
    """
    size = BLOCK if first[:-2].count(b"\r") == 0 else -1
    block = file.read(size) + file.readline()
    while True:
        done.update(len(block))
        yield block
        block = file.read(size) + file.readline()
        if not block:
            return


def in_threads(n, function, items):
    """What a function gives of each of the tuples, in order, while n threads work on the next n."""
    with ThreadPoolExecutor(n) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, *item))
            if len(waiting) > n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
