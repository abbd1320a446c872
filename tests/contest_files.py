"""The contest's files made by hand, for tests of what reads them."""

import os

from common.columns import FEED_INFO, USER_ACTION
from common.command import InputError
from common.contest import read_source
from common.source import Source

import numpy as np
from hypothesis import HealthCheck, settings

CASES = int(os.environ.get("CASES", "100"))
FUZZ = settings(
    max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LOG = f"""{",".join(USER_ACTION)}
5,100,1,1,1,0,0,12000,13000,0,0,0,0
5,101,1,1,0,0,1,3000,20,0,0,0,0
5,100,2,2,0,0,0,500,20,0,0,0,0
9,100,2,1,1,0,0,60000,90000,0,0,1,0
9,102,2,1,0,0,0,0,20,1,0,0,0
5,102,3,1,0,0,0,25000,25000,0,1,0,1
9,100,3,2,1,0,0,800,900,0,0,0,0
12,103,3,1,0,1,1,10,20,0,0,0,1
"""
FEEDS = f"""{",".join(FEED_INFO)}
103,7,20000,1 2,,,5.0,,,,3,3 0.9;8 0.00000011,,,
100,7,20,7,,,5.0,6.0,40;41,40,1;2;1,1 0.8,,,
101,8,,8,,,,,41,,,,,,
102,7,60.5,9,,,4.0,6.0,,,2;9,2 0.5;9 0.4,,,
"""
VECTORS = np.random.default_rng(0).normal(size=(4, 8)).round(8)
EMBEDDINGS = "feedid,feed_embedding\n" + "".join(
    f"{100 + row},{' '.join(f'{v:.8f}' for v in vector)} \n" for row, vector in enumerate(VECTORS)
)
TEST = "userid,feedid,device\n9,100,1\n77,999,2\n"
TABLES = {"user_action.csv": LOG, "feed_info.csv": FEEDS, "test_a.csv": TEST}
FILES = {**TABLES, "feed_embeddings.csv": EMBEDDINGS}


def contents(place):
    """All that is read of a folder or zip, as lists."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items() if key != "place"}
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        # NaN, which is not equal to itself, as a number that no file has
        return (
            np.where(np.isnan(value), -77, value).tolist()
            if isinstance(value, np.ndarray)
            else value
        )

    return plain(read_source(Source.of_contest(place), lambda stage, told: None))


def refusal(place, **changed):
    """The sentence that refuses a folder or zip, in which these files are changed for a while."""
    before = {name: (place / name).read_bytes() for name in changed if (place / name).exists()}
    for name, content in changed.items():
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    sentence = ""
    try:
        contents(place)
    except InputError as error:  # of which no name stays, or its frames would keep a zip open
        sentence = str(error)
    for name in changed:
        (place / name).write_bytes(before[name]) if name in before else (place / name).unlink()
    assert sentence, "nothing was refused"
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 500, sentence
    assert str(place) in sentence
    return sentence
