"""Which way, in the space of the feed embeddings, a user's past likes, long watches and views lie.

A vector each, whose dot products with the feed at hand are the feature. Of an action: the sum over
the user's earlier rows of (label - own smoothed rate) times the feed's vector, over the root of the
positives to be expected, which is the score statistic of a logistic regression of the label on the
vector; scaled so that without any taste the product has about unit variance. Of watch times: the
same of (watch time - own shrunk mean), over the root of rows + SMOOTHING. Of views: the mean vector
of what was watched, less everyone's. It needs feed embeddings.
"""

from common.features import Feature
from common.features.ids import distinct, rows_of
from common.features.past import SMOOTHING, RunningSums, smoothed_rates

import numpy as np

ABOUT = "of users for feed embeddings over strictly earlier days"
BUILDS_ON = ("embedding",)
BLOCK = 1024  # users whose numbers stay in the processor's cache


def features(past, made):
    if "feed_embedding" not in made:
        return {}
    vectors = made["feed_embedding"].values
    columns = (*past.labels, *(() if past.play is None else ("watch_time",)), "views")
    tastes = past_tastes(past, vectors, len(columns))
    about = {"daily": True, "partner": "feed_embedding", "columns": columns}
    return {"user_taste": Feature("dot", "user", tastes, **about)}


def past_tastes(past, vectors, n_vectors):
    """float16 (days + 1, users, n_vectors, width), of the feeds' vectors (feeds, width)."""
    n_users = past.n_users
    width = vectors.shape[1]
    tastes = np.zeros((past.n_days + 1, n_users, n_vectors, width), np.float16)
    viewed = np.zeros((n_users, width), np.float32)  # sums of vectors so far
    acted = np.zeros((n_users, n_vectors - 1, width), np.float32)
    users = RunningSums(past, "user")
    watch_sum = np.zeros(n_users, np.float32)
    scale = spread(vectors[past.feed_rows > 0])
    for today in range(1, past.n_days + 1):
        users.add(today - 1)
        new = past.rows_by_day[today - 1]
        add_vectors(viewed, past, vectors, new)
        for action, rows in enumerate(past.positives_by_day[today - 1]):
            add_vectors(acted[:, action], past, vectors, rows)
        rows = users.rows.astype(np.float32)
        means = smoothed_rates(users.positives, rows)[1]  # (users, actions)
        variances = means
        if past.play is not None:
            watch_sum += users.sum_of(today - 1, past.watched)
            add_vectors(acted[:, -1], past, vectors, new, past.watched)
            means = np.column_stack([means, watch_sum / (rows + SMOOTHING)])
            variances = np.column_stack([variances, np.ones(n_users, np.float32)])
        roots = np.sqrt(variances * (rows[:, None] + SMOOTHING)) * scale
        everyone = viewed.sum(axis=0) / max(rows.sum(), 1)
        for start in range(0, n_users, BLOCK):
            block = slice(start, start + BLOCK)
            surplus = acted[block] - means[block, :, None] * viewed[block, None]
            tastes[today, block, :-1] = surplus / roots[block, :, None]
            surplus = viewed[block] - rows[block, None] * everyone
            tastes[today, block, -1] = surplus / (rows[block, None] + SMOOTHING)
    return tastes


def spread(vectors):
    """Deviation of the dot product of two of them; their mean is zero, as PCA leaves it."""
    return max(np.linalg.norm(vectors.T @ vectors / max(len(vectors), 1)), 1e-6)


def add_vectors(total, past, vectors, rows, weights=None):
    """Add to each user's total (users, width) the vectors of the feeds in these rows of the log.

    weights: (rows of the log,), what a vector is multiplied with, 1 without.
    """
    from scipy.sparse import coo_array

    users = distinct(past.user[rows])
    place = rows_of(past.user[rows], users) - 1
    weight = np.ones(len(rows), np.float32) if weights is None else weights[rows]
    shape = (len(users), len(vectors))
    total[users] += coo_array((weight, (place, past.feed[rows])), shape=shape) @ vectors
