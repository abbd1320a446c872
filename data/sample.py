"""Writes a synthetic stand-in for the WeChat Big Data Challenge 2021 data, in the exact layout of its CSV files.

    python data/sample.py [OUT] [--scale 0.1] [--seed 1] [--drift 0] [--quiet]

The world. A feed f has a topic, a subtopic, an author and a latent vector q_f, the sum of their centres and a part of
its own. A user u has a latent vector e_u, watches topic k on a share softmax_k(log supply_k + CONCENTRATION e_u.c_k) of
the rows, and within a topic meets the feeds that live that day in proportion to strength_f (age + 1)^-DECAY. Row
(u, f, day) gets action t with

    logit P = intercept_t + activity_ut + mood_t m_u,day + quality_ft + taste_t z_ut . q_f + device_t
    quality_ft = topic_kt + author_at + own_ft

where the activity (in part common to all tasks) says how much the user acts at all, and the taste z_ut mixes e_u, a
part common to all tasks and a part for t alone. With --drift D topic_kt takes a step of D of its standard deviations
a day, in a walk of its own for each topic and task, and a user's mood of a day has the correlation MOOD_KEEPS with the
day before; without it moods of different days are independent and topics stand still. Tags, keywords, songs, text and embeddings are noisy views of topic,
subtopic, author and q_f. Comments depend on read_comment and like, follows on click_avatar; their P is the marginal.

Beside the CSVs lie `true_probability.npy`, float32 (rows of user_action.csv, 7), the P of each row and action in the
order of `common.columns.ACTIONS`, from which the best AUC that any model could reach follows, and `source.json`,
written last. Users, feeds and authors are proportional to `scale`, rows a user are not; scale 1 is the contest's size.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.columns import ACTIONS, FEED_EMBEDDINGS, FEED_INFO, TEST, USER_ACTION  # noqa: E402
from common.command import InputError, Parser, bar, user_errors  # noqa: E402
from common.lines import lines_of  # noqa: E402
from common.pickles import remove_left_behind, stamp_of  # noqa: E402

# Sizes at scale 1, from the published statistics.
N_USERS, N_TEST_USERS = 20_000, 9_757
TEST_ROWS = {"test_a.csv": 421_985, "test_b.csv": 419_646}
FILES = (
    "true_probability.npy",
    "user_action.csv",
    *TEST_ROWS,
    "test_a_labels.csv",
    "test_b_labels.csv",
    "feed_info.csv",
    "feed_embeddings.csv",
    "source.json",
)
DAY_ROWS = np.array(
    "478489 461842 543566 504623 444828 472726 480460 500120 512466 596886 614175 532038 566627 609036".split(),
    float,
)
N_DAYS, TEST_DAY = len(DAY_ROWS), len(DAY_ROWS) + 1
# share, rows
USER_ROWS = (
    [0, 0.02, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1],
    [8, 14, 158, 314, 545, 740, 824, 911, 980],
)
ACTIVE_DAYS = 0.60  # a user comes on about this share of the days
DUPLICATES = 0.0164  # share of rows whose (user, feed) was there before
USER_IDS, FEED_IDS = (8, 250_236), (0, 112_871)  # sparse ids

# Feeds: fitted to the published rows per feed, the share of new feeds a day and the feeds seen in the tests alone.
N_OLD, N_BORN_A_DAY, N_BORN_TEST_DAY = 37_770, 4_840, 12_210
# mean days: age on day 1 of the feeds born before; time left from then, or from birth
OLD_AGE, LIFE = 32.6, 12.6
DECAY, STRENGTH, STRENGTH_KNEE, STRENGTH_BEYOND, STRENGTH_TEST_DAY = 0.428, 1.898, 3.69, 0.46, 0.359
# who may post; std of the log of their feeds, cut at KNEE std
N_AUTHORS, AUTHOR_SIZE, AUTHOR_KNEE = 38_500, 1.8, 2.6
AUTHOR_STRENGTH = 0.3  # correlation of the log of an author's feeds and the log strength of each

# What a feed is about.
N_TOPICS, N_SUBTOPICS, DIM = 40, 8, 8  # subtopics per topic; latent dimensions
Q_PARTS = {"topic": 0.45, "subtopic": 0.20, "author": 0.15, "own": 0.20}  # variance of q_f
CONCENTRATION = 1.2  # how far a user's share of topics departs from their supply
STAYS_ON_TOPIC = 0.75  # share of an author's feeds on the author's topic

# Per task: rate, and standard deviations on the logit scale.
MODEL = pd.DataFrame(
    {
        "rate": [0.0350159, 0.0258049, 0.0075333, 0.0038212, 0.0013425],
        "activity": [2.80, 1.46, 1.58, 1.72, 1.90],
        "skew": [0.0, 0.06, -0.05, 0.0, 0.0],
        "mood": [0.45, 0.25, 0.15, 0.15, 0.15],
        "topic": [0.28, 0.28, 0.45, 0.55, 0.50],
        "author": [0.40, 0.40, 0.78, 0.60, 0.50],
        "own": [0.44, 0.42, 0.45, 0.65, 0.50],
        "taste": [0.45, 0.46, 0.55, 0.45, 0.60],
        "device": [0.05, -0.05, 0.05, -0.10, -0.05],
    },
    index=["read_comment", "like", "click_avatar", "forward", "favorite"],
)
# correlation over tasks of what users do and of what feeds get
SHARED_ACTIVITY, SHARED_QUALITY = 0.35, 0.30
Z_PARTS = {"exposure": 0.35, "shared": 0.30, "task": 0.35}  # variance of the taste z_ut
COMMENT = {
    "rate": 0.0004046,
    "read_comment": 0.559,
    "like": 0.349,
}  # rate; P(read_comment | comment), P(like | comment)
FOLLOW = {"rate": 0.0007211, "click_avatar": 0.983}
MOOD_KEEPS = 0.8  # correlation of a user's moods on consecutive days, where the world drifts
CHATTINESS = 0.8  # std of the log of a user's own factor on comment and follow
DEVICE_2, DEVICE_CHANGES = 0.765, 0.01

# Quantiles of play and stay in ms and of the length of a video in s: (share, value).
PLAY = (
    [0, 0.03, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 0.99999, 1],
    [0, 0, 2000, 13300, 36000, 70000, 155000, 350000, 9e5, 2e6],
)
STAY = (
    [0, 0.02, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 0.99999, 1],
    [0, 600, 5200, 17800, 41300, 76e3, 158e3, 380e3, 2e6, 9e6],
)
SECONDS = ([0, 0.02, 0.25, 0.5, 0.75, 0.78, 1], [3, 6, 14, 26, 54, 60, 60])
N_LONGER, N_IN_MS, LONGEST_IN_MS = 91, 7, 59_960  # videos above 60 s; those among them given in ms
# what moves them, against a noise of std 1
PLAY_ACTS, PLAY_INTEREST, PLAY_SECONDS, STAY_ACTS = 0.37, 0.20, 0.35, 0.08

# Observable content.
N_TAGS, N_KEYWORDS, N_WORDS, N_CHARS = 352, 27_300, 150_900, 33_400
N_SONGS, N_SINGERS = 36_000, 31_000  # to draw from
# Tags and keywords come from the pools of the subtopic, the topic, the author, and of all: shares and sizes.
TAG_SHARES, TAG_POOLS = (0.45, 0.25, 0.0, 0.30), (10, 30, 1, N_TAGS)
KEYWORD_SHARES, KEYWORD_POOLS = (0.35, 0.15, 0.20, 0.30), (150, 600, 20, N_KEYWORDS)
MISSING = {
    "bgm_song_id": 0.490,
    "manual_keyword_list": 0.308,
    "machine_keyword_list": 0.127,
    "description": 0.030,
    "manual_tag_list": 0.0040,
    "machine_tag_list": 0.0030,
}
LIST_LENGTHS = {  # length:share
    "manual_tag_list": "1:.08 2:.16 3:.2 4:.27 5:.16 6:.08 7:.03 8:.01 9:.005 10:.003 11:.002",
    "machine_tag_list": "1:.12 2:.12 3:.08 4:.06 5:.1 6:.4 7:.06 8:.03 9:.015 10:.005 11:.004 12:.003 13:.002 14:.001",
    "manual_keyword_list": "1:.36 2:.26 3:.17 4:.1 5:.05 6:.025 7:.012 8:.008 9:.005 10:.003 12:.003 14:.002 16:.001 18:.001",
    "machine_keyword_list": "1:.15 2:.2 3:.22 4:.17 5:.12 6:.06 7:.04 8:.02 9:.01 10:.005 12:.003 14:.001 16:.001",
}
TEXT_LENGTHS = {
    "description": (24, 0.60, 622),
    "ocr": (16, 1.62, 5198),
    "asr": (24, 1.41, 1003),
}  # median, log std, max
EMBEDDING_DIM, EMBEDDING_TELLS = 512, 0.6  # share of the variance of q_f's image that is q_f
# dimensions that say nothing of taste, half of them the author's; std of the rest
STYLE_DIM, EMBEDDING_NOISE = 24, 0.7

CHUNK = 500_000  # rows at a time, so that memory grows by bytes a row and not by kilobytes


def interpolate(table, share):
    return np.interp(share, table[0], table[1])


def spread(n, rng):
    """(n,) numbers in (0, 1), one in each n-th part, in random order: a sample without sampling noise."""
    return rng.permutation((np.arange(n) + 0.5) / n)


def correlated(n, shared, rng):
    """(n, tasks) standard normal, any two tasks correlated by `shared`."""
    return np.sqrt(shared) * rng.standard_normal((n, 1)) + np.sqrt(
        1 - shared
    ) * rng.standard_normal((n, len(MODEL)))


def normal_scores(x):
    """Each column's ranks as quantiles of the standard normal: the same order without sampling noise."""
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / len(x)) for i in range(len(x))])
    return quantiles[np.argsort(np.argsort(x, axis=0), axis=0)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalize(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def make_feeds(scale, rng):
    """Everything latent about the feeds; arrays of length F, in no particular order."""
    n_old, n_day, n_test = (
        max(1, round(n * scale)) for n in (N_OLD, N_BORN_A_DAY, N_BORN_TEST_DAY)
    )
    birth = np.concatenate(
        [
            -rng.exponential(OLD_AGE, n_old).astype(int),
            np.repeat(np.arange(1, TEST_DAY), n_day),
            np.full(n_test, TEST_DAY),
        ]
    )
    n = len(birth)
    last = np.maximum(birth, 1) + rng.exponential(LIFE, n).astype(int)
    n_authors = round(N_AUTHORS * scale)
    supply = rng.permutation(1 / (np.arange(N_TOPICS) + 4.0))  # a few broad topics, many small ones
    supply /= supply.sum()
    fame = np.minimum(rng.standard_normal(n_authors), AUTHOR_KNEE)
    size = np.exp(AUTHOR_SIZE * fame)
    author = rng.choice(n_authors, n, p=size / size.sum())
    fame = (fame[author] - fame[author].mean()) / fame[author].std()
    log_strength = STRENGTH * (
        AUTHOR_STRENGTH * fame + np.sqrt(1 - AUTHOR_STRENGTH**2) * rng.standard_normal(n)
    )
    beyond = np.maximum(log_strength - STRENGTH_KNEE, 0)
    strength = np.exp(log_strength - (1 - STRENGTH_BEYOND) * beyond)
    strength[birth == TEST_DAY] *= STRENGTH_TEST_DAY
    author_topic = rng.choice(N_TOPICS, n_authors, p=supply)
    stays = rng.random(n) < STAYS_ON_TOPIC
    topic = np.where(stays, author_topic[author], rng.choice(N_TOPICS, n, p=supply))
    subtopic = topic * N_SUBTOPICS + np.minimum(rng.geometric(0.35, n) - 1, N_SUBTOPICS - 1)

    centres = rng.standard_normal((N_TOPICS, DIM))
    parts = {
        "topic": centres[topic],
        "subtopic": rng.standard_normal((N_TOPICS * N_SUBTOPICS, DIM))[subtopic],
        "author": rng.standard_normal((n_authors, DIM))[author],
        "own": rng.standard_normal((n, DIM)),
    }
    q = sum(np.sqrt(Q_PARTS[name]) * part for name, part in parts.items())  # (F, DIM)
    quality = (  # (F, tasks)
        MODEL.topic.values * correlated(N_TOPICS, SHARED_QUALITY, rng)[topic]
        + MODEL.author.values * correlated(n_authors, SHARED_QUALITY, rng)[author]
        + MODEL.own.values * correlated(n, SHARED_QUALITY, rng)
    )
    seconds = interpolate(SECONDS, spread(n, rng)).round().astype(int)
    longer = rng.choice(n, max(2, round(N_LONGER * scale)), replace=False)
    seconds[longer] = 61 + rng.exponential(60, len(longer)).astype(int)
    in_ms = longer[: max(1, round(N_IN_MS * scale))]
    seconds[in_ms] = np.linspace(8_000, LONGEST_IN_MS, len(in_ms))
    return {
        "birth": birth,
        "last": last,
        "strength": strength,
        "topic": topic,
        "subtopic": subtopic,
        "author": author,
        "q": q.astype(np.float32),
        "quality": quality.astype(np.float32),
        "seconds": seconds,
        "centres": centres,
    }


def intensity(feeds, day):
    """(F,) how readily each feed is shown on a day."""
    age = day - feeds["birth"]
    return np.where(
        (age >= 0) & (day <= feeds["last"]),
        feeds["strength"] * (np.maximum(age, 0) + 1.0) ** -DECAY,
        0,
    )


def make_users(scale, feeds, rng):
    """Everything latent about the users; arrays of length U."""
    n = max(2, round(N_USERS * scale))
    rows = interpolate(USER_ROWS, spread(n, rng))
    e = rng.standard_normal((n, DIM))
    supply = sum(
        np.bincount(
            feeds["topic"], intensity(feeds, d + 1) / intensity(feeds, d + 1).sum() * r, N_TOPICS
        )
        for d, r in enumerate(DAY_ROWS)
    )
    mixture = supply * np.exp(CONCENTRATION * e @ feeds["centres"].T / np.sqrt(DIM))  # (U, topics)
    for _ in range(20):  # so that topics are watched as much as they are supplied
        mixture /= mixture.sum(1, keepdims=True)
        mixture *= supply / np.maximum(rows @ mixture, 1e-300)
    mixture /= mixture.sum(1, keepdims=True)
    shared = rng.standard_normal((n, 1, DIM))
    taste = (
        np.sqrt(Z_PARTS["exposure"]) * e[:, None]
        + np.sqrt(Z_PARTS["shared"]) * shared
        + np.sqrt(Z_PARTS["task"]) * rng.standard_normal((n, len(MODEL), DIM))
    ) / np.sqrt(DIM)
    activity = normal_scores(correlated(n, SHARED_ACTIVITY, rng))
    activity = MODEL.activity.values * (activity + MODEL["skew"].values * (activity**2 - 1))
    return {
        "rows": rows,
        "mixture": mixture,
        "taste": (MODEL.taste.values[:, None] * taste).astype(np.float32),  # (U, tasks, DIM)
        "activity": activity,
        "mood": rng.standard_normal((n, N_DAYS)).astype(np.float32),
        "chattiness": np.exp(CHATTINESS * rng.standard_normal((n, 2)) - CHATTINESS**2 / 2).clip(
            0, 12
        ),
        "device": 1 + (rng.random(n) < DEVICE_2),
    }


def let_drift(users, drift, rng):
    """Moods that persist, and `walk`, (days + 2, topics, tasks): what a topic's quality has gained by each day."""
    steps = rng.standard_normal((TEST_DAY + 1, N_TOPICS, len(MODEL)))
    walk = np.cumsum(drift * MODEL.topic.values * steps, axis=0).astype(np.float32)
    mood = users["mood"].copy()
    for day in range(1, N_DAYS):
        mood[:, day] = next_mood(mood[:, day - 1], mood[:, day])
    return users | {"walk": walk - walk[:1], "mood": mood}


def next_mood(mood, fresh):
    """A user's mood on the day after, of correlation MOOD_KEEPS; fresh: standard normal."""
    return MOOD_KEEPS * mood + np.float32(np.sqrt(1 - MOOD_KEEPS**2)) * fresh


def rows_a_day(users, rng):
    """(U, days) rows of each user on each day; both sides as published, up to the noise of a multinomial."""
    n = len(users["rows"])
    weight = rng.gamma(3.0, size=(n, N_DAYS)) * (rng.random((n, N_DAYS)) < ACTIVE_DAYS)
    weight[np.arange(n), rng.integers(N_DAYS, size=n)] += 1.0  # nobody is away on every day
    for _ in range(30):
        weight *= DAY_ROWS / DAY_ROWS.sum() * users["rows"].sum() / weight.sum(0)
        weight *= (users["rows"] / weight.sum(1))[:, None]
    return rng.multinomial(users["rows"].round().astype(int), weight / weight.sum(1, keepdims=True))


def show(users, feeds, who, counts, days, duplicates, rng):
    """Feeds for counts[i, j] rows of user who[i] on days[j]: (user, day, feed), by user and then by day."""
    cell = np.repeat(np.arange(counts.size, dtype=np.int32), counts.ravel())
    user = np.asarray(who, np.int32)[cell // len(days)]
    column = (cell % len(days)).astype(np.int8)
    del cell
    supply = np.cumsum(users["mixture"], axis=1)
    supply = (supply / supply[:, -1:] * (1 - 1e-9) + np.arange(len(supply))[:, None]).ravel()
    by_topic = np.argsort(feeds["topic"], kind="stable")
    edge = np.searchsorted(feeds["topic"][by_topic], np.arange(N_TOPICS + 1))
    shown = [np.concatenate([[0.0], np.cumsum(intensity(feeds, day)[by_topic])]) for day in days]

    def draw(rows, own_topics):
        feed = np.empty(len(rows), np.int32)
        for part in bar("drawing feeds", range(0, len(rows), CHUNK)):
            these = rows[part : part + CHUNK]
            drawn = np.searchsorted(supply, user[these] + rng.random(len(these))) % N_TOPICS
            low, high = (drawn, drawn + 1) if own_topics else (0 * drawn, 0 * drawn + N_TOPICS)
            for j, total in enumerate(shown):
                here = column[these] == j
                start, end = total[edge[low[here]]], total[edge[high[here]]]
                at = (
                    np.searchsorted(
                        total, start + rng.random(len(start)) * (end - start), side="right"
                    )
                    - 1
                )
                feed[part : part + CHUNK][here] = by_topic[np.minimum(at, len(by_topic) - 1)]
        return feed

    feed = draw(np.arange(len(user), dtype=np.int32), True)
    n_feeds = len(by_topic)
    for attempt in range(12):
        key = user * np.int64(n_feeds) + feed
        order = np.argsort(key, kind="stable")
        key = key[order]
        again = order[1:][key[1:] == key[:-1]]  # the later rows of each pair
        excess = len(again) - round(duplicates * len(user))
        if excess <= 0:
            break
        again = rng.permutation(again)[:excess]
        feed[again] = draw(again, attempt < 4)
    return user, np.asarray(days, np.int8)[column], feed


def intercept(logit, rate):
    """The b at which sigmoid(logit + b) has the mean `rate`."""
    count, edges = np.histogram(logit, 20_000)
    middle = (edges[1:] + edges[:-1]) / 2
    low, high = -40.0, 40.0
    for _ in range(60):
        b = (low + high) / 2
        low, high = (b, high) if count @ sigmoid(middle + b) / len(logit) < rate else (low, b)
    return b


def dependent(rule, given, factor, label, probability, rng):
    """Labels and marginal probabilities of an action that depends on other ones (`given`: their columns in ACTIONS).

    P(action | cell) = rate Q(cell) / P(cell) x the user's factor, where a cell is the outcomes of the given actions,
    Q(cell) the published share of the action's rows that lies in the cell and P(cell) the share of all rows.
    """
    names = [name for name in rule if name != "rate"]
    marginal, drawn = np.zeros(len(factor), np.float32), np.zeros(len(factor), bool)
    uniform = rng.random(len(factor), dtype=np.float32)
    for cell in np.ndindex(*(2,) * len(names)):
        share, here, q = np.ones(len(factor), np.float32), np.ones(len(factor), bool), 1.0
        for name, column, outcome in zip(names, given, cell):
            share *= probability[:, column] if outcome else 1 - probability[:, column]
            here &= label[:, column] == outcome
            q *= rule[name] if outcome else 1 - rule[name]
        conditional = np.minimum(
            rule["rate"] * q / np.mean(share * factor, dtype=float) * factor, 0.95
        )
        marginal += share * conditional
        drawn |= here & (uniform < conditional)
    return drawn, marginal


def act(users, feeds, user, day, feed, rng):
    """Device, labels and true probabilities of every row: (R,), (R, 7) int8, (R, 7) float32, and interest (R,)."""
    n, tasks = len(user), list(MODEL.index)
    columns = [ACTIONS.index(task) for task in tasks]
    device = users["device"].astype(np.int8)[user]
    changed = rng.random(n, dtype=np.float32) < DEVICE_CHANGES
    device[changed] = 3 - device[changed]
    probability, label = (
        np.zeros((n, len(ACTIONS)), np.float32),
        np.zeros((n, len(ACTIONS)), np.int8),
    )
    interest = np.zeros(n, np.float32)
    for t, (task, column) in enumerate(zip(bar("drawing actions", tasks), columns)):
        m = MODEL.loc[task]
        logit = np.empty(n, np.float32)
        for part in range(0, n, CHUNK):
            rows = slice(part, part + CHUNK)
            u, f = user[rows], feed[rows]
            liking = feeds["quality"][f, t] + np.einsum(
                "rd,rd->r", users["taste"][u, t], feeds["q"][f]
            )
            if "walk" in users:
                liking = liking + users["walk"][day[rows], feeds["topic"][f], t]
            interest[rows] += liking / len(tasks)
            logit[rows] = (
                users["activity"][u, t]
                + m.mood * users["mood"][u, day[rows] - 1]
                + liking
                + m.device * (device[rows] == 2)
            )
        probability[:, column] = sigmoid(logit + np.float32(intercept(logit, m.rate)))
        label[:, column] = rng.random(n, dtype=np.float32) < probability[:, column]
    for i, (name, rule) in enumerate({"comment": COMMENT, "follow": FOLLOW}.items()):
        column, given = (
            ACTIONS.index(name),
            [ACTIONS.index(other) for other in rule if other != "rate"],
        )
        factor = users["chattiness"][user, i].astype(np.float32)
        label[:, column], probability[:, column] = dependent(
            rule, given, factor, label, probability, rng
        )
    return device, label, probability, interest


def answer(users, feeds, tests, rng):
    """{test file: labels (rows, 7)} of {test file: (user, day, feed)}, drawn as those of the log are."""
    mood = rng.standard_normal((len(users["mood"]), 1)).astype(np.float32)
    if "walk" in users:
        mood = next_mood(users["mood"][:, -1:], mood)
    users = users | {"mood": np.hstack([users["mood"], mood])}  # of the tests' day
    label = act(users, feeds, *map(np.concatenate, zip(*tests.values())), rng)[1]
    ends = np.cumsum([len(user) for user, _, _ in tests.values()])
    return dict(zip(tests, np.split(label, ends[:-1])))


def watch(feeds, feed, label, interest, rng):
    """play and stay in ms, of the published quantiles: longer with interest, with an action and with the video."""
    seconds = np.log(np.minimum(feeds["seconds"], 90))
    seconds = (seconds - seconds.mean()) / seconds.std()
    score = rng.standard_normal(len(feed), dtype=np.float32)
    score += (
        PLAY_SECONDS * seconds[feed].astype(np.float32) + PLAY_INTEREST * interest / interest.std()
    )
    score += PLAY_ACTS * label.any(1)
    lingering = (
        score + STAY_ACTS * label.any(1) + 0.35 * rng.standard_normal(len(feed), dtype=np.float32)
    )
    share = np.linspace(0, 1, 20_001)

    def milliseconds(table, x):
        quantiles = np.sort(x)[(share * (len(x) - 1)).astype(int)]
        return interpolate(table, np.interp(x, quantiles, share)).astype(np.int32)

    return milliseconds(PLAY, score), milliseconds(STAY, lingering)


def zipf(n, size, rng):
    """Ranks 0..size-1, the r-th about as likely as 1 / r; `size` is a number or an array of shape n."""
    return np.minimum(np.exp(rng.random(n) * np.log(size + 1.0)).astype(np.int64) - 1, size - 1)


def draw_list(lengths, n_values, sources, rng):
    """One list of distinct values a feed: each value from one of `sources`, (share, pool, offset of each feed).

    A source's values are Zipf ranks below `pool` moved by the feed's offset, so feeds of one offset share a pool.
    """
    shares, pools, offsets = zip(*sources)
    offsets, width, lists = np.stack(offsets, axis=1), 3 * int(lengths.max()), []
    for part in bar("drawing lists", range(0, len(lengths), 50_000)):
        of, wanted = offsets[part : part + 50_000], lengths[part : part + 50_000].tolist()
        which = np.searchsorted(np.cumsum(shares)[:-1], rng.random((len(of), width)))
        rank = zipf(which.shape, np.array(pools)[which], rng)
        value = (rank + np.take_along_axis(of, which, axis=1)) % n_values
        lists += [list(dict.fromkeys(row))[:k] for row, k in zip(value.tolist(), wanted)]
    return lists


def seen_by_machine(manual, extra, lengths, rng):
    """What a classifier finds: part of the manual list and other values, with falling weights down to almost zero."""
    kept, weight = (
        rng.random((len(manual), 20)),
        np.sort(rng.beta(2.0, 1.5, (len(manual), 20)), axis=1)[:, ::-1],
    )
    tiny = rng.random(len(manual)) < 0.3
    lists = []
    for i, (values, more, k) in enumerate(
        zip(bar("weighing lists", manual), extra, lengths.tolist())
    ):
        values = list(dict.fromkeys([v for v, r in zip(values, kept[i]) if r < 0.7] + more))[:k]
        weights = weight[i, : len(values)].tolist()
        if tiny[i] and len(values) > 1:
            weights[-1] = round(weights[-1] * 1e-6, 8) + 1e-8
        lists.append(";".join(f"{v} {w:.7g}" for v, w in zip(values, weights)))
    return lists


def describe(feeds, ids, rng):
    """The columns of feed_info but the texts, which are too long to hold."""
    n, topic, subtopic, author = len(ids), feeds["topic"], feeds["subtopic"], feeds["author"]
    lengths = {}
    for name, text in LIST_LENGTHS.items():
        length, share = np.array([pair.split(":") for pair in text.split()], float).T
        lengths[name] = rng.choice(length.astype(int), n, p=share / sum(share.tolist()))
    info = {"feedid": ids, "authorid": feeds["authorid"], "videoplayseconds": feeds["seconds"]}
    owners = [
        (subtopic.max() + 1, subtopic),
        (N_TOPICS, topic),
        (author.max() + 1, author),
        (1, np.zeros(n, int)),
    ]
    for kind, size, shares, pools in (
        ("tag", N_TAGS, TAG_SHARES, TAG_POOLS),
        ("keyword", N_KEYWORDS, KEYWORD_SHARES, KEYWORD_POOLS),
    ):
        sources = [
            (share, pool, rng.integers(size, size=k)[of])
            for share, pool, (k, of) in zip(shares, pools, owners)
        ]
        names = f"manual_{kind}_list", f"machine_{kind}_list"
        manual = draw_list(lengths[names[0]], size, sources, rng)
        extra = draw_list(lengths[names[1]], size, sources, rng)
        info[names[0]] = [";".join(map(str, values)) for values in manual]
        info[names[1]] = seen_by_machine(manual, extra, lengths[names[1]], rng)
    n_songs, n_singers = (
        max(1, round(N_SONGS * feeds["scale"])),
        max(1, round(N_SINGERS * feeds["scale"])),
    )
    taken = rng.random(n)
    move = (
        rng.integers(n_songs, size=N_TOPICS)[topic],
        rng.integers(n_songs, size=author.max() + 1)[author],
    )
    song = (
        np.select(
            [taken < 0.35, taken < 0.60],
            [zipf(n, n_songs, rng) + move[0], rng.integers(3, size=n) + move[1]],
            rng.integers(n_songs, size=n),
        )
        % n_songs
    )
    singer_of = rng.integers(n_singers, size=n_songs)
    info["bgm_song_id"] = [str(s) for s in song.tolist()]
    info["bgm_singer_id"] = [str(s) for s in singer_of[song].tolist()]
    for name, share in MISSING.items():
        for i in np.flatnonzero(rng.random(n) < share):
            for column in ("bgm_song_id", "bgm_singer_id") if name == "bgm_song_id" else (name,):
                if column in info:
                    info[column][i] = ""
    return info


def write_feed_info(path, info, feeds, rng):
    """feed_info.csv, its texts drawn a few thousand feeds at a time; characters are those of the words."""
    names, char_names = [str(i) for i in range(N_WORDS)], [str(i) for i in range(N_CHARS)]
    word_of, move = rng.permutation(N_WORDS), rng.integers(N_WORDS, size=N_TOPICS)
    n_chars = rng.choice([1, 2, 3], N_WORDS, p=[0.45, 0.40, 0.15])
    spelling = rng.permutation(N_CHARS)[zipf((N_WORDS, 3), N_CHARS, rng)]
    n, step = len(info["feedid"]), 4_000
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(FEED_INFO) + "\n")
        for part in bar(f"writing {path.name}", range(0, n, step)):
            rows = slice(part, min(part + step, n))
            columns = {name: values[rows] for name, values in info.items()}
            for field, (median, deviation, longest) in TEXT_LENGTHS.items():
                z = rng.standard_normal(rows.stop - part)
                size = median * np.exp(deviation * (z + 0.01 * z**3))
                size = np.minimum(size.round().astype(int), longest)
                if field in MISSING:
                    size = np.where(rng.random(len(size)) < MISSING[field], 0, np.maximum(size, 1))
                topic = np.repeat(feeds["topic"][rows], size)
                shift = np.where(rng.random(len(topic)) < 0.4, move[topic], 0)
                words = word_of[(zipf(len(topic), N_WORDS, rng) + shift) % N_WORDS]
                tokens = [names[w] for w in words.tolist()]
                kept = np.arange(3) < n_chars[words, None]
                chars = [char_names[c] for c in spelling[words][kept].tolist()]
                end = np.cumsum(size)
                char_end = np.concatenate([[0], np.cumsum(n_chars[words])])[end]
                for column, of, ends in ((field, tokens, end), (field + "_char", chars, char_end)):
                    ends = [0, *ends.tolist()]
                    columns[column] = [" ".join(of[a:b]) for a, b in zip(ends, ends[1:])]
            file.writelines(
                ",".join(map(str, row)) + "\n"
                for row in zip(*(columns[name] for name in FEED_INFO))
            )


def write_embeddings(path, ids, q, author, rng):
    """feed_embeddings.csv: a blurred q_f and a style, projected, with noise, of norm 1; a space after every number."""
    projection = rng.standard_normal((DIM + STYLE_DIM, EMBEDDING_DIM)) / np.sqrt(DIM)
    habit = rng.standard_normal((author.max() + 1, STYLE_DIM))
    line = "%d," + "%.8f " * EMBEDDING_DIM + "\n"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(FEED_EMBEDDINGS) + "\n")
        for part in bar(f"writing {path.name}", range(0, len(ids), 4_000)):
            rows = slice(part, min(part + 4_000, len(ids)))
            n = rows.stop - part
            blur = rng.standard_normal((n, DIM))
            blurred = np.sqrt(EMBEDDING_TELLS) * q[rows] + np.sqrt(1 - EMBEDDING_TELLS) * blur
            style = (habit[author[rows]] + rng.standard_normal((n, STYLE_DIM))) / 3
            signal = np.hstack([blurred, style]) @ projection
            vectors = normalize(signal + EMBEDDING_NOISE * rng.standard_normal(signal.shape))
            file.writelines(line % (i, *v) for i, v in zip(ids[rows].tolist(), vectors.tolist()))


def write_rows(path, columns):
    """A CSV of integer columns, a chunk at a time."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(columns) + "\n")
        for part in bar(f"writing {path.name}", range(0, len(columns["userid"]), 50_000)):
            rows = slice(part, part + 50_000)
            file.write(lines_of({name: values[rows] for name, values in columns.items()}))


def generate(out, scale=0.1, seed=1, drift=0.0, report=print):
    """Writes the files into the folder `out`, every one beside its place first, then all are renamed.

    Raises InputError where data lie that are not synthetic.
    """
    out = Path(out)
    if any((out / name).exists() for name in FILES) and not is_synthetic(out):
        remedy = "give it to get_data.py, or name another folder, so that nothing is lost"
        raise InputError(f"{out} holds data that are not synthetic: {remedy}.")
    out.mkdir(parents=True, exist_ok=True)
    remove_left_behind(out)
    with tempfile.TemporaryDirectory(prefix=f".writing-{os.getpid()}-", dir=out) as beside:
        make(Path(beside), scale, seed, drift, report)
        (out / "source.json").unlink(
            missing_ok=True
        )  # renames cut short leave no folder that looks complete
        for name in FILES:
            os.replace(Path(beside, name), out / name)


def make(out, scale, seed, drift, report):
    """Writes the files into the folder `out`."""
    started = time.perf_counter()

    def stage(i):
        return np.random.default_rng([seed, i])

    def say(what):
        report(f"{time.perf_counter() - started:7.1f} s  {what}")

    feeds = make_feeds(scale, stage(1))
    users = make_users(scale, feeds, stage(2))
    users = let_drift(users, drift, stage(13)) if drift else users
    counts = rows_a_day(users, stage(3))
    say(f"{len(users['rows']):,} users and {len(feeds['birth']):,} feeds drawn")

    user, day, feed = show(
        users, feeds, np.arange(len(counts)), counts, range(1, TEST_DAY), DUPLICATES, stage(4)
    )
    rng, n_test = stage(5), max(1, round(N_TEST_USERS * scale))
    n_test = min(n_test, len(counts) // 2)
    groups = np.sort(rng.permutation(len(counts))[: 2 * n_test].reshape(2, n_test), axis=1)
    tests = {}
    for (name, rows), group in zip(TEST_ROWS.items(), groups):
        weight = users["rows"][group] * rng.gamma(3.0, size=n_test)
        count = np.maximum(1, rng.poisson(weight / weight.sum() * rows * scale))[:, None]
        tests[name] = show(users, feeds, group, count, [TEST_DAY], 0.0, rng)
    say(
        f"{len(user):,} rows of the log and {sum(len(t[0]) for t in tests.values()):,} of the tests shown"
    )

    device, label, probability, interest = act(users, feeds, user, day, feed, stage(6))
    play, stay = watch(feeds, feed, label, interest, stage(7))
    say("actions, play and stay drawn")

    rng = stage(8)
    met = np.zeros(len(feeds["birth"]), bool)  # a feed nobody meets is in no file
    for shown in (feed, *(test[2] for test in tests.values())):
        met[shown] = True
    place = np.cumsum(met) - 1
    stretch = max(1, scale)
    n_user_ids = round((USER_IDS[1] - USER_IDS[0]) * stretch) + 1
    user_id = USER_IDS[0] + np.sort(rng.choice(n_user_ids, len(counts), replace=False))
    ids = rng.choice(round(FEED_IDS[1] * stretch) + 1, met.sum(), replace=False)
    columns = {
        "userid": user_id[user],
        "feedid": ids[place[feed]],
        "date_": day,
        "device": device,
        "play": play,
        "stay": stay,
        **dict(zip(ACTIONS, label.T)),
    }
    np.save(out / "true_probability.npy", probability)
    write_rows(out / "user_action.csv", {name: columns[name] for name in USER_ACTION})
    labels = answer(users, feeds, tests, stage(12))
    for name, (who, _, what) in tests.items():
        rows = dict(zip(TEST, (user_id[who], ids[place[what]], users["device"][who])))
        write_rows(out / name, rows)
        rows = {key: rows[key] for key in ("userid", "feedid")} | dict(zip(ACTIONS, labels[name].T))
        write_rows(out / name.replace(".csv", "_labels.csv"), rows)
    say("user_action.csv, true_probability.npy, test_a.csv, test_b.csv and their labels written")

    n_rows = len(user)
    feeds = {name: values[met] for name, values in feeds.items() if name != "centres"}
    feeds["scale"] = scale
    _, feeds["authorid"] = np.unique(feeds["author"], return_inverse=True)
    stamp = stamp_of(dict(zip(ACTIONS, label.T.astype(np.uint8), strict=True)))
    # room for the texts
    del user, day, feed, device, label, probability, interest, play, stay, columns
    write_feed_info(out / "feed_info.csv", describe(feeds, ids, stage(9)), feeds, stage(10))
    say(f"feed_info.csv written, {len(ids):,} feeds")
    write_embeddings(out / "feed_embeddings.csv", ids, feeds["q"], feeds["authorid"], stage(11))
    say("feed_embeddings.csv written")

    name = f"stand-in of scale {scale:g}, seed {seed}"
    name = f"drifting {name}, drift {drift:g}" if drift else name
    about = {
        "name": name,
        "synthetic": True,
        "scale": scale,
        "seed": seed,
        **({"drift": drift} if drift else {}),
        "rows": n_rows,
        "version": 1,
        "labels": stamp,
    }
    (out / "source.json").write_text(json.dumps(about, indent=1) + "\n")


def is_synthetic(folder):
    """Whether the files in the folder were written by `generate`, be it an interrupted one: only it writes true probabilities."""
    return (Path(folder) / "true_probability.npy").exists()


def main(argv=None):
    parser = Parser(__doc__)
    stand_in = ROOT / "data" / "sample"
    parser.add_argument(
        "out",
        nargs="?",
        metavar="OUT",
        default=stand_in,
        help="folder for the CSVs (default: data/sample)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=0.1,
        help="share of the contest's size, 1 being 20,000 users (default: 0.1)",
    )
    # of seed 1 the oracle is as good at scale 0.1 as at 1
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed is another world (default: 1)"
    )
    parser.add_argument(
        "--drift",
        type=float,
        default=0.0,
        help="daily step of a topic's quality in its standard deviations; moods then persist (default: 0)",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    if not 0 <= args.drift <= 10:
        parser.error(f"--drift must lie between 0 and 10, not {args.drift}")
    if not 0.001 <= args.scale <= 20:
        parser.error(f"--scale must lie between 0.001 and 20, not {args.scale}")
    if args.seed < 0:
        parser.error(f"--seed must not be negative, it is {args.seed}")
    if Path(args.out).exists() and not Path(args.out).is_dir():
        parser.error(f"{args.out} is a file; name a folder to write into")
    with redirect_stdout(None if args.quiet else sys.stdout):
        generate(args.out, args.scale, args.seed, args.drift)


if __name__ == "__main__":
    with user_errors():
        main()
