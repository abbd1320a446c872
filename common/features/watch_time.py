"""How much longer users watch, and feeds and authors are watched, than videos of that length are.

Before each day stands the mean of the watch times of the rows so far (`Past.watched`), shrunk to 0;
of feeds and authors less what each of their viewers watches of anything. It needs `play`.
"""

from common.features.past import SMOOTHING, RunningSums

import numpy as np

ABOUT = "of users, feeds and authors over strictly earlier days"


def features(past, made):
    if past.play is None:
        return {}
    tables = past.daily_tables(1)
    users = RunningSums(past, "user")
    feeds = RunningSums(past, "feed")
    by_author = past.author_sums
    user_sum = np.zeros(past.n_users)
    feed_sum = np.zeros(past.n_feeds)
    for today in range(1, past.n_days + 1):
        users.add(today - 1)
        feeds.add(today - 1)
        user_sum += users.sum_of(today - 1, past.watched)
        feed_sum += feeds.sum_of(today - 1, past.watched)
        user_mean = user_sum / (users.rows + SMOOTHING)
        surplus = feed_sum - past.sum_over_viewers(today, user_mean.astype(np.float32))
        tables["user"][today, :, 0] = user_mean
        tables["feed"][today, :, 0] = surplus / (feeds.rows + SMOOTHING)
        author_rows = by_author @ feeds.rows + SMOOTHING
        tables["author"][today, :, 0] = by_author @ surplus / author_rows
    return past.daily_features("watch_time", tables, ("watch_time",))
