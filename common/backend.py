"""TensorFlow and Keras, loaded in silence and with float32. Imported before keras and tensorflow.

TensorFlow's C++ logs to file 2 before it heeds TF_CPP_MIN_LOG_LEVEL. Keras imports scikit-learn and
pyplot, where they are there, for wrappers and pictures that nothing here uses. Both are hidden from
it, which saves a fourth of the time of the import; who wants them in Keras imports keras first.

Of the half million objects of these modules none is ever let go. So Python's search for cyclic
garbage waits until they are there, and leaves them out from then on: a second less a command. Not
where much is there before, as in a notebook, which would be left out too.
"""

import gc
import os
import sys
import threading


class Hidden:
    """An importer by which scikit-learn and matplotlib are missing for the thread that makes it."""

    def __init__(self):
        self.thread = threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        if name in ("sklearn", "matplotlib") and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"{name} is hidden from Keras", name=name)


if sys.stderr:
    sys.stderr.flush()
_stderr = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
_hidden = Hidden()
sys.meta_path.insert(0, _hidden)
_is_first = gc.isenabled() and len(gc.get_objects()) < 100_000
if _is_first:
    gc.disable()
try:
    import keras
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")  # or it warns of each batch size that is traced
    if _is_first:
        gc.freeze()
finally:
    if _is_first:
        gc.enable()
    sys.meta_path.remove(_hidden)
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)


def settle():
    """Set what a notebook may have set otherwise before or since."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")  # set_floatx no longer changes it after a layer
    keras.config.set_image_data_format("channels_last")


settle()
