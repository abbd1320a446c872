"""Numbers in pieces, of which a linear map is a piecewise linear function of each number."""

import common.backend  # noqa: F401
from common.contract import SOME
from common.embedding import LookUp

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable("multitask")
class PiecewiseLinear(layers.Layer):
    """How far each number is through each of its bins, 0 to 1. (batch, width) -> (batch, width n).

    The piecewise linear encoding of Gorishniy et al. (NeurIPS 2022, eq. 1), but that numbers beyond
    the outer borders count as these. A bin between equal borders is 0.
    """

    def __init__(self, borders, **kwargs):
        """borders: n + 1 rows of `width` numbers, the bins' ends, rising in each column."""
        super().__init__(**kwargs)
        self.borders = np.asarray(borders, np.float32)
        lengths = np.diff(self.borders, axis=0)
        slopes = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 1e-30)
        self.bins = list(zip(self.borders[:-1], slopes, strict=True))

    def call(self, x):
        ways = [(x - low) * slope for low, slope in self.bins]
        return ops.clip(ops.concatenate(ways, axis=1), 0.0, 1.0)

    def get_config(self):
        return {**super().get_config(), "borders": self.borders.tolist()}


def with_pieces(dense, data, n):
    """Symbolic dense values (batch, width) and their pieces in n bins.

    n 0: the values alone. The borders are quantiles of SOME random training rows of a Data, so that
    bins have as many rows each, but for ties.
    """
    if not n or not dense.shape[1]:
        return dense
    look_up = LookUp.of(data)
    rows = {name: column[:SOME] for name, column in data.sample.items()}
    values = look_up.dense_values(look_up(rows))
    borders = np.quantile(np.hstack(values), np.linspace(0, 1, n + 1), axis=0)
    return layers.Concatenate()([dense, PiecewiseLinear(borders)(dense)])
