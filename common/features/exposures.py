"""How often users, feeds and authors are seen on the day itself, whatever came of it.

It is made in the regime `exposures` alone. Whoever is handed the rows of a day to predict, as in
the contest, knows them; whoever answers one request after the other does not. For each day log(1 +
rows of the user) / 3, and for feeds and authors log(1 + views per 10,000 rows of the day) / 3.
"""

from common.features import Feature

import numpy as np

ABOUT = "of users, feeds and authors by their rows of the day itself: the regime exposures"
ROWS = 10_000  # per how many rows of a day its views are counted


def features(past, made):
    if past.regime != "exposures":
        return {}
    sizes = {"user": past.n_users, "feed": past.n_feeds, "author": len(past.authors)}
    tables = {
        name: np.zeros((past.n_days + 1, size, 1), np.float16) for name, size in sizes.items()
    }
    for day in range(1, past.n_days + 1):
        user, feed = past.shown_on(day)
        views = np.bincount(feed, minlength=past.n_feeds) * ROWS / max(len(feed), 1)
        counts = {"user": np.bincount(user, minlength=past.n_users), "feed": views}
        counts["author"] = past.author_sums @ views
        for name, count in counts.items():
            tables[name][day, :, 0] = np.log1p(count) / 3
    about = {"kind": "dense", "daily": True, "columns": ("rows",)}
    return {
        "user_exposures": Feature(table="user", values=tables["user"], **about),
        "feed_exposures": Feature(table="feed", values=tables["feed"], **about),
        "author_exposures": Feature(
            table="feed", values=past.spread_to_feeds(tables["author"]), **about
        ),
    }
