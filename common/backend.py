"""TensorFlow and Keras, loaded in silence and with float32. Imported before keras and tensorflow.

TensorFlow's C++ logs to file 2 before it heeds TF_CPP_MIN_LOG_LEVEL.
"""

import os
import sys

if sys.stderr:
    sys.stderr.flush()
_stderr = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import keras
    import tensorflow

    tensorflow.get_logger().setLevel("ERROR")  # or it warns of each batch size that is traced
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)

keras.config.set_floatx("float32")  # a notebook may have imported Keras with another
keras.config.set_image_data_format("channels_last")
