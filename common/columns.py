"""The columns and tasks of the WeChat Big Data Challenge 2021, each name written once."""

# the contest's score
TASK_WEIGHTS = {"read_comment": 4, "like": 3, "click_avatar": 2, "forward": 1}
FINAL_ROUND_WEIGHTS = {**TASK_WEIGHTS, "favorite": 1, "comment": 1, "follow": 1}
TASKS = tuple(TASK_WEIGHTS)
ACTIONS = tuple(FINAL_ROUND_WEIGHTS)  # every 0/1 action of the contest's log
OTHER_ACTIONS = ("click", "long_view")  # those of other apps' logs
EVERY_ACTION = (*ACTIONS, *OTHER_ACTIONS)

USER_ACTION = tuple(
    "userid feedid date_ device read_comment comment like play stay click_avatar forward follow "
    "favorite".split()
)
FEED_INFO = tuple(
    "feedid authorid videoplayseconds description ocr asr bgm_song_id bgm_singer_id "
    "manual_keyword_list machine_keyword_list manual_tag_list machine_tag_list description_char "
    "ocr_char asr_char".split()
)
FEED_EMBEDDINGS = ("feedid", "feed_embedding")
TEST = ("userid", "feedid", "device")
TESTS = ("test_a", "test_b")  # files without labels

FEED_IDS = ("authorid", "bgm_song_id", "bgm_singer_id")  # id columns of FEED_INFO beside feedid
TAG_LISTS = ("manual_tag_list", "machine_tag_list")  # one vocabulary
KEYWORD_LISTS = ("manual_keyword_list", "machine_keyword_list")  # one vocabulary
