"""Vectors of users and of feeds by who saw what, where there are no feed embeddings.

Of the training rows; in the regime `exposures` of the validation day's too, or of the tests' where
no day validates (`Past.known_views`).

The axes of correspondence analysis: the singular vectors of the views, each view divided by the
roots of its user's and of its feed's number of them, and the vectors divided by that root again.
The first, which is constant, is left out. In standard deviations, cut off at 3; zeros for who was
not seen. With embeddings they gain nothing, and an SVD of seven million views takes long.
"""

from common.features import Feature
from common.features.ids import distinct

import numpy as np

ABOUT = "of users and feeds by who saw what, for want of feed embeddings"
BUILDS_ON = ("embedding",)
WIDTH = 32


def features(past, made):
    if "feed_embedding" in made:
        return {}
    of_users, of_feeds = singular_vectors(*past.known_views, past.n_users, past.n_feeds)
    return {
        "user_cooccurrence": Feature("dense", "user", of_users, daily=False),
        "feed_cooccurrence": Feature("dense", "feed", of_feeds, daily=False),
    }


def singular_vectors(user, feed, n_users, n_feeds):
    """float32 (users, width) and (feeds, width). user, feed: (rows,)."""
    from scipy.sparse import coo_array
    from sklearn.utils.extmath import randomized_svd

    ones = np.ones(len(user), np.float32)
    views = coo_array((ones, (user, feed)), (n_users, n_feeds)).tocsr()
    user_unit = 1 / np.sqrt(np.maximum(views.sum(axis=1), 1))
    feed_unit = 1 / np.sqrt(np.maximum(views.sum(axis=0), 1))
    n = min(WIDTH + 1, n_users, n_feeds)
    normalized = views.multiply(user_unit[:, None]).multiply(feed_unit).tocsr()
    of_users, _, of_feeds = randomized_svd(normalized, n, random_state=0)
    return scaled(of_users, user_unit, user), scaled(of_feeds.T, feed_unit, feed)


def scaled(vectors, unit, rows):
    """Vectors without the first axis, in deviations over those that occur in `rows`."""
    seen = distinct(rows)
    result = np.zeros((len(vectors), vectors.shape[1] - 1), np.float32)
    vectors = vectors[seen, 1:] * unit[seen, None]
    result[seen] = (vectors / (vectors.std(axis=0) + 1e-12)).clip(-3, 3)
    return result
