"""How often users, feeds and authors come on the day itself, whatever came of it.

It is made in the regime `exposures` alone. Whoever is handed the rows of a day to predict, as in
the contest, knows them; whoever answers one request after the other does not. For each day log(1 +
n) / 3, n being the user's rows of the day but one, and for feeds and authors their views but one,
per 10,000 rows of the day. But one: so many others a row of the day has, and 0 has who comes once.
"""

import numpy as np

ABOUT = "of users, feeds and authors by their rows of the day itself: the regime exposures"
ROWS = 10_000  # per how many rows of a day its views are counted


def features(past, made):
    if past.regime != "exposures":
        return {}
    tables = past.daily_tables(1)
    for day in range(1, past.n_days + 1):
        user, feed = past.shown_on(day)
        views = np.bincount(feed, minlength=past.n_feeds)
        counts = {"user": np.bincount(user, minlength=past.n_users), "feed": views}
        counts["author"] = past.author_sums @ views
        for name, count in counts.items():
            unit = 1 if name == "user" else ROWS / max(len(feed), 1)
            tables[name][day, :, 0] = np.log1p(np.maximum(count - 1, 0) * unit) / 3
    return past.daily_features("exposures", tables, ("rows",))
