"""Reads pickles of plain values and NumPy arrays, from anyone, without running what they hold.

A pickle is a program. Here its opcodes are few, what it may call are the four functions below, keys
of dicts are plain, and no more is allocated than the file is long.
"""

import os
import pickle
import re
from typing import ClassVar

import numpy as np

DEEPEST = 20  # containers within containers
MOST = 1_000_000  # values in them, those that stand in several places counted in each
PLAIN = re.compile(r"[biuf][1248]|[SU][0-9]{1,4}")  # dtypes of numbers, flags and short texts
OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 "
    "BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS "
    "MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD"
).split()


class Refused(pickle.UnpicklingError):
    """What a pickle holds is not accepted; its text names it."""


class Dtype:
    """A dtype in the making: its byte order comes after it."""

    def __init__(self, name, align=False, copy=True):
        if not (isinstance(name, str) and PLAIN.fullmatch(name)):
            raise Refused(f"arrays of {name!r:.40} (no numbers)")
        self.dtype = np.dtype(name)

    def build(self, state):
        order, subdtype, names, fields = state[1:5]
        if order not in ("<", ">", "|", "=") or (subdtype, names, fields) != (None, None, None):
            raise Refused("arrays of records")
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """An array in the making: its content comes after it."""

    def __init__(self, kind, shape, typecode):
        self.array = None

    def build(self, state):
        _, shape, dtype, is_fortran, data = state
        self.array = from_buffer(data, dtype, shape, "F" if is_fortran else "C").array


def from_buffer(data, dtype, shape, order="C", axis_order=None):
    """The array of these bytes, as `numpy._core.numeric._frombuffer` makes it."""
    if not (isinstance(dtype, Dtype) and isinstance(data, bytes | bytearray)):
        raise Refused("an array without bytes or dtype")
    result = Array(None, None, None)
    flat = np.frombuffer(data, dtype.dtype)
    if axis_order is None:
        result.array = flat.reshape(shape, order=order)
    else:
        result.array = flat.reshape(shape).transpose(axis_order)
    return result


def scalar(dtype, data):
    """The NumPy scalar of these bytes."""
    return from_buffer(data, dtype, ()).array[()]


def encode(text, encoding):
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise Refused("text in another encoding")
    return text.encode("latin1")


def empty_bytes():
    """How protocol 2 writes no bytes."""
    return b""


class Bounded:
    """A file from which no more can be asked for than it holds."""

    def __init__(self, file):
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def read(self, n):
        if n > self.size:
            raise EOFError
        return self.file.read(n)

    def readline(self):
        return self.file.readline(1000)


class Unpickler(pickle._Unpickler):
    """Python's own unpickler, in Python, with less to do.

    What `find_class` gives is all that a pickle can call, and lists all that it can append to.
    """

    dispatch: ClassVar = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in OPCODES
    }

    def find_class(self, module, name):
        core = module.replace("numpy.core", "numpy._core")
        functions = {
            ("numpy", "dtype"): Dtype,
            ("numpy._core.multiarray", "_reconstruct"): Array,
            ("numpy._core.numeric", "_frombuffer"): from_buffer,
            ("numpy._core.multiarray", "scalar"): scalar,
            ("_codecs", "encode"): encode,
            ("__builtin__", "bytes"): empty_bytes,
        }
        if (core, name) == ("numpy", "ndarray"):
            return None  # what `_reconstruct` is told to make
        if (core, name) not in functions:
            raise Refused(f"{module + '.' + name!r:.60}")
        return functions[core, name]

    def load_build(self):
        state = self.stack.pop()
        if not (isinstance(self.stack[-1], Dtype | Array) and isinstance(state, tuple)):
            raise Refused("an object of a class")
        self.stack[-1].build(state)

    def load_setitem(self):
        value = self.stack.pop()
        self.set_items([self.stack.pop(), value])

    def load_setitems(self):
        self.set_items(self.pop_mark())

    def set_items(self, items):
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise Refused("items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | None):
                raise Refused("a key that is no text or number")
            target[key] = value

    def load_bytearray8(self):  # the usual one makes room for whatever length is told
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    for name in ("BUILD", "SETITEM", "SETITEMS", "BYTEARRAY8"):
        dispatch[getattr(pickle, name)[0]] = locals()[f"load_{name.lower()}"]


def plain(value, depth=0, left=None):
    """The value with finished arrays in place of those in the making. Raises Refused."""
    left = iter(range(MOST)) if left is None else left
    if depth > DEEPEST:
        raise Refused("containers within containers")
    if next(left, None) is None:
        raise Refused(f"more than {MOST:,} values outside of arrays")
    if isinstance(value, Array):
        if value.array is None:
            raise Refused("an array without content")
        return value.array
    if isinstance(value, dict):
        return {key: plain(item, depth + 1, left) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item, depth + 1, left) for item in value)
    if callable(value) or isinstance(value, Dtype):
        raise Refused("a function")
    return value


def load(file):
    """The object pickled in an open file. Raises Refused, or nearly anything if it is damaged."""
    unpickler = Unpickler(Bounded(file))
    try:
        return plain(unpickler.load())
    except Refused as error:
        stack = [value for part in (*unpickler.metastack, unpickler.stack) for value in part]
        names = [value for value in stack if isinstance(value, str)]
        raise Refused(f"{error} in {names[-1]!r:.40}" if names else error) from None
