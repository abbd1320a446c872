"""Loads TensorFlow without its start-up noise. Imported before keras and tensorflow are."""
import os
import sys

from common import memory
from common.command import main

IMPORTED, RESERVED = 7e8, 1.1e9  # bytes that TensorFlow takes when it is imported, and addresses that it reserves beyond

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what C++ logs once it heeds the variable; before that, to file 2:
main(lambda: memory.require(IMPORTED, RESERVED, "TensorFlow"))
sys.stderr.flush()
_stderr = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")  # or it warns of each batch size that is traced anew
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)
