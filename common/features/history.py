"""How often users act, and how often feeds and authors are acted on, before each day.

For each action the log of a lift, 0 being what was to be expected, then log(1 + rows) / 10. A
user's smoothed rate is compared with everyone's rate; the positives of a feed or an author with the
sum of its viewers' smoothed rates, since who happened to see a feed says more than the feed.
"""

from common.features.past import RunningSums, smoothed_rates

import numpy as np

ABOUT = "rates and counts of users, feeds and authors over strictly earlier days"
SHRINKAGE = 2  # positives and expected positives are both counted as if this many more were seen


def features(past, made):
    actions = list(past.labels)
    tables = past.daily_tables(len(actions) + 1)
    users = RunningSums(past, "user")
    feeds = RunningSums(past, "feed")
    by_author = past.author_sums
    for today in range(1, past.n_days + 1):
        users.add(today - 1)
        feeds.add(today - 1)
        p, rate = smoothed_rates(users.positives, users.rows)
        expected = past.sum_over_viewers(today, rate)  # (feeds, actions)
        tables["user"][today, :, :-1] = np.log(rate / p)
        tables["feed"][today, :, :-1] = log_lifts(feeds.positives, expected)
        tables["author"][today, :, :-1] = log_lifts(
            by_author @ feeds.positives, by_author @ expected
        )
        tables["user"][today, :, -1] = np.log1p(users.rows) / 10
        tables["feed"][today, :, -1] = np.log1p(feeds.rows) / 10
        tables["author"][today, :, -1] = np.log1p(by_author @ feeds.rows) / 10
    return past.daily_features("history", tables, (*actions, "rows"))


def log_lifts(positives, expected, m=SHRINKAGE):
    """log((positives + m) / (expected + m)): little evidence is drawn to 0."""
    return np.log((positives + m) / (expected + m))
