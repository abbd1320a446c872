"""TensorFlow and Keras, loaded in silence and with float32. Imported before keras and tensorflow.

TensorFlow's C++ logs to file 2 before it heeds TF_CPP_MIN_LOG_LEVEL. Keras imports scikit-learn and
pyplot, where they are there, for wrappers and pictures that nothing here uses. Both are hidden from
it, since they take a fourth of the time that TensorFlow and Keras take; who wants those wrappers
imports keras first.
"""

import os
import sys

if sys.stderr:
    sys.stderr.flush()
_stderr = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
_hidden = {"sklearn", "matplotlib"} - set(sys.modules)
sys.modules |= dict.fromkeys(_hidden)  # None: there is no such module
try:
    import keras
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")  # or it warns of each batch size that is traced
finally:
    for _name in _hidden:
        del sys.modules[_name]
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)

keras.config.set_floatx("float32")  # a notebook may have imported Keras with another
keras.config.set_image_data_format("channels_last")
