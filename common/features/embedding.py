"""Feed embeddings, reduced by PCA, for want of which a data set has `cooccurrence`.

Fitted on the feeds of the training rows, and divided by the deviation of the first component.
"""

from common.features import Feature
from common.features.ids import rows_of

import numpy as np

ABOUT = "of feeds, reduced"
WIDTH = 32  # components kept of the 512 numbers of a feed embedding


def features(past, made):
    if past.embeddings is None:
        return {}
    ids, vectors = past.embeddings
    reduced = reduce_embeddings(vectors, rows_of(ids, past.feed_ids), past.feed_rows > 0)
    if not reduced.size:  # fewer than two feeds of the training rows have one
        return {}
    return {"feed_embedding": Feature("dense", "feed", reduced, daily=False, default=False)}


def reduce_embeddings(embeddings, rows, seen):
    """PCA of the embeddings (n, 512), fitted on feeds seen in training: float32 (feeds, WIDTH).

    rows: of each embedding in the feeds' table, 0 to leave it out. seen: bool (feeds,). Feeds
    without an embedding get zeros.
    """
    fitted_on = embeddings[seen[rows]]
    width = min(WIDTH, *fitted_on.shape) if len(fitted_on) > 1 else 0  # one feed differs from none
    reduced = np.zeros((len(seen), width), np.float32)
    if width:
        axes, mean, deviation = principal_axes(fitted_on, width)
        reduced[rows] = (embeddings @ axes.T - mean @ axes.T) / deviation
        reduced[0] = 0
    return reduced


def principal_axes(vectors, n):
    """PCA of vectors (rows, dim): n axes (n, dim), the mean (dim,), the deviation along the first.

    The sign of an axis is that in which its largest part is positive. It is written out, since
    importing scikit-learn takes longer.
    """
    mean = vectors.mean(axis=0)
    covariance = vectors.T @ vectors - len(vectors) * mean[:, None] * mean
    variances, axes = np.linalg.eigh(covariance / (len(vectors) - 1))  # the smallest first
    axes = axes.T[::-1]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return axes[:n], mean, np.sqrt(max(variances[-1], 1e-12))
