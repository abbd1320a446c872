"""The scores against slow, obvious versions of them."""

from types import SimpleNamespace

from common import scores

import numpy as np
import pytest
from scipy.special import expit


def auc_of_pairs(labels, values):
    """Share of (positive, negative) pairs in the right order, a tie counting half."""
    pairs = [(p, n) for p in values[labels == 1] for n in values[labels == 0]]
    return np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs])


def uauc_of_loop(labels, values, groups):
    """As the contest's own evaluation does: user by user, users of one class left out."""
    by_user = [(labels[groups == user], values[groups == user]) for user in np.unique(groups)]
    return np.mean([auc_of_pairs(*rows) for rows in by_user if len(np.unique(rows[0])) == 2])


@pytest.mark.parametrize("levels", [3, 50, 10**9])  # from many ties to none
def test_the_scores_of_each_task_match_loops_over_pairs(levels):
    rng = np.random.default_rng(levels)
    groups = rng.integers(0, 30, 900) * 7
    rates = np.where(groups % 2, 0.02, 0.3)
    rows = {task: (rng.random(900) < rates).astype(np.uint8) for task in ("like", "forward")}
    logits = {task: rng.integers(0, levels, 900).astype(np.float64) for task in rows}
    table = scores.score_tasks(rows, logits, groups)
    for task, labels in rows.items():
        assert list(table[task]) == ["auc", "uauc", "logloss", "calibration"]
        assert abs(table[task]["auc"] - auc_of_pairs(labels, logits[task])) < 1e-12
        assert abs(table[task]["uauc"] - uauc_of_loop(labels, logits[task], groups)) < 1e-12
    assert "uauc" not in scores.score_tasks(rows, logits)["like"]


def test_users_of_one_class_are_left_out_and_one_class_alone_is_nan():
    values = np.array([2.0, 1, 5, 6, 7])
    groups = np.array([3, 3, 4, 4, 5])
    assert scores.uauc(np.array([1, 0, 1, 1, 0]), values, groups) == 1.0
    assert np.isnan(scores.uauc(np.array([1, 1, 0, 0, 1]), values, groups))
    groups_meet = (np.array([0, 1, 0, 1]), np.array([1.0, 2, 2, 3]), np.array([0, 0, 1, 1]))
    assert scores.uauc(*groups_meet) == 1.0  # equal scores of two users are no tie
    alone = scores.score(np.zeros(5), values, groups)
    assert [name for name, value in alone.items() if np.isfinite(value)] == ["logloss"]
    with pytest.raises(ValueError, match="NaN"):  # which would be sorted, and rank the last rows
        scores.auc([0, 1, 0], [0.2, np.nan, 0.1])


def test_log_loss_and_calibration_are_in_float64_and_survive_large_logits():
    logits = np.array([3.0, -2, -30, 800], np.float32)
    expected = np.mean([np.log1p(np.exp(-3.0)), np.log1p(np.exp(-2.0)), 30, 800])
    row = scores.score(np.array([1, 0, 1, 0]), logits)
    assert row["logloss"] == pytest.approx(expected, rel=1e-12)
    assert row["calibration"] == pytest.approx(expit([3.0, -2, -30, 800]).sum() / 2, rel=1e-12)


def test_yardsticks_are_the_users_past_on_the_rows_day_and_the_true_probabilities():
    history = {"table": "user", "daily": True, "columns": ["other", "like"]}
    past = np.arange(12, dtype=np.float16).reshape(2, 3, 2)  # (days, users, columns)
    data = SimpleNamespace(
        meta={"features": {"user_history": history}},
        tables={"user": {"user_history": past}},
        tasks={"like": 1},
        valid={"day": np.array([1, 0, 1]), "user": np.array([2, 0, 1])},
        log_odds={"like": -3.0}.get,
    )
    data.valid["true_like"] = np.array([0.1, 0.5, 0.9], np.float32)
    marks = scores.yardsticks(data, data.valid)
    assert marks["user's past rate"]["like"].tolist() == [8.0, -2.0, 6.0]
    np.testing.assert_allclose(expit(marks["oracle"]["like"]), [0.1, 0.5, 0.9], rtol=1e-6)
    history["daily"] = False
    assert list(scores.yardsticks(data, data.valid)) == ["oracle"]
