"""What the scripts share. It settles, before anyone imports Keras, what would change results."""

import os
import re
import sys

for number in range(3):  # a file that is opened must not stand in for a closed stdout
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = os.devnull  # or ~/.keras/keras.json could change the float type
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
elif sys.modules["keras"].config.backend() != "tensorflow":
    raise ImportError(
        "keras was imported with another backend: set KERAS_BACKEND=tensorflow before importing it."
    )

MPLBACKENDS = r"module://.*|\w*(agg|cairo)|macosx|notebook|pdf|pgf|ps|svg|template|wx|"
if not re.fullmatch(MPLBACKENDS, os.environ.get("MPLBACKEND", "").lower()):
    del os.environ["MPLBACKEND"]  # matplotlib, which draws the pictures, would refuse it
