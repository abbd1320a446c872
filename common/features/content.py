"""What users, feeds and devices are: ids, lists of tags and keywords, length.

An id has a code of its own if at least `min_count` training rows have it. The length of a video is
log(1 + seconds) in standard deviations.
"""

from common.columns import FEED_IDS, KEYWORD_LISTS, TAG_LISTS
from common.csvs import MISSING
from common.features import Feature
from common.features.ids import distinct, encode, rows_of, vocabulary
from common.pickles import OTHER

import numpy as np

ABOUT = "ids, lists and lengths"
LISTS = {"tag": TAG_LISTS, "keyword": KEYWORD_LISTS}  # vocabulary: the lists that share it


def features(past, made):
    found = ids_of_users_and_devices(past) | ids_of_feeds(past) | lists_of_feeds(past)
    about = {"daily": False, "default": False}
    found["videoplayseconds"] = Feature("dense", "feed", past.lengths[:, None], **about)
    return found


def ids_of_users_and_devices(past):
    ids = np.concatenate([[MISSING], past.user_ids])
    known = vocabulary(ids, past.user_rows, past.min_count)
    devices = distinct(past.device)
    device = rows_of(past.device[past.train], devices)
    counts = np.bincount(device, minlength=len(devices) + 1)[1:]
    return {
        "userid": id_feature("userid", "user", ids, known),
        "device": Feature(
            "id", None, vocabulary="device", known=vocabulary(devices, counts, past.min_count)
        ),
    }


def ids_of_feeds(past):
    raw = {"feedid": np.concatenate([[MISSING], past.feed_ids])}
    raw |= {name: past.of_feeds(past.info[name], MISSING) for name in FEED_IDS}
    return {
        name: id_feature(name, "feed", ids, vocabulary(ids, past.feed_rows, past.min_count))
        for name, ids in raw.items()
    }


def id_feature(name, table, ids, known):
    """The Feature of raw ids, a row of the table each; the table's unknown row is an OTHER."""
    codes = encode(ids, known)
    if name in ("userid", "feedid"):
        codes[0] = OTHER
    return Feature("id", table, codes, vocabulary=name, known=known)


def lists_of_feeds(past):
    """Tags and keywords, manual and machine; both lists of a subject share its vocabulary."""
    found = {}
    for subject, names in LISTS.items():
        owners = {name: np.repeat(past.info_rows, past.info[name][1]) for name in names}
        items = np.concatenate([past.info[name][0] for name in names])
        counts = past.feed_rows[np.concatenate(list(owners.values()))]
        known = vocabulary(items, counts, past.min_count)
        for name in names:
            values, lengths = past.info[name]
            offsets = np.cumsum(past.of_feeds(lengths, 0))
            column = {
                "values": encode(values[np.argsort(owners[name], kind="stable")], known),
                "offsets": np.concatenate([[0], offsets]).astype(np.int32),
            }
            manual = name.startswith("manual")
            found[name] = Feature("list", "feed", column, subject, known, default=manual)
    return found
