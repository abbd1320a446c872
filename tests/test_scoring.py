"""The scores against slow, obvious versions of them."""
import numpy as np
import pytest

from common import scoring


def auc_of_pairs(labels, scores):
    """Share of (positive, negative) pairs in the right order, a tie counting half."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    return np.mean([(p > n) + 0.5 * (p == n) for p in positives for n in negatives])


def uauc_of_loop(labels, scores, groups):
    """As the contest's own evaluation does: user by user, users of one class left out."""
    values = [
        auc_of_pairs(labels[groups == user], scores[groups == user])
        for user in np.unique(groups) if len(np.unique(labels[groups == user])) == 2
    ]
    return np.mean(values)


@pytest.mark.parametrize("levels", [3, 50, 10**9])  # from many ties to none
def test_auc_and_uauc_match_loops_over_pairs(levels):
    rng = np.random.default_rng(levels)
    groups = rng.integers(0, 30, 900) * 7
    labels = (rng.random(900) < np.where(groups % 2, 0.02, 0.3)).astype(np.uint8)
    scores = rng.integers(0, levels, 900).astype(np.float64)
    shuffled = rng.permutation(900)
    assert abs(scoring.auc(labels, scores) - auc_of_pairs(labels, scores)) < 1e-12
    expected = uauc_of_loop(labels, scores, groups)
    assert abs(scoring.uauc(labels, scores, groups) - expected) < 1e-12
    assert abs(scoring.uauc(labels[shuffled], scores[shuffled], groups[shuffled]) - expected) < 1e-12


def test_users_of_one_class_are_left_out_and_no_user_left_is_nan():
    labels, scores, groups = np.array([1, 0, 1, 1, 0]), np.array([2.0, 1, 5, 6, 7]), np.array([3, 3, 4, 4, 5])
    assert scoring.uauc(labels, scores, groups) == 1.0
    assert np.isnan(scoring.uauc(np.ones(5), scores, groups))
    assert np.isnan(scoring.auc(np.zeros(5), scores))


def test_equal_scores_of_two_users_are_no_tie():
    labels, scores, groups = np.array([0, 1, 0, 1]), np.array([1.0, 2, 2, 3]), np.array([0, 0, 1, 1])
    assert scoring.uauc(labels, scores, groups) == 1.0


def test_a_score_of_the_user_alone_has_a_uauc_of_one_half():
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 50, 2000), rng.random(2000) < 0.2
    assert scoring.uauc(labels, groups.astype(float), groups) == 0.5


def test_weighted_score_is_the_contests():
    values = {"read_comment": 0.1, "like": 0.2, "click_avatar": 0.3, "forward": 0.4}
    weights = {"read_comment": 4, "like": 3, "click_avatar": 2, "forward": 1}
    assert scoring.weighted(values, weights) == pytest.approx((0.4 + 0.6 + 0.6 + 0.4) / 10)


def test_log_loss_is_in_float64_from_logits_and_survives_large_ones():
    labels, logits = np.array([1, 0, 1, 0]), np.array([3.0, -2, -30, 30], np.float32)
    expected = np.mean([np.log1p(np.exp(-3.0)), np.log1p(np.exp(-2.0)), 30, 30])
    assert scoring.score(labels, logits)["logloss"] == pytest.approx(expected, rel=1e-9)


def test_a_task_without_positives_scores_nan_not_an_error():
    scores = scoring.score(np.zeros(4, np.uint8), np.arange(4.0), np.zeros(4, int))
    assert np.isnan(scores["auc"]) and np.isnan(scores["uauc"]) and np.isfinite(scores["logloss"])


def test_calibration_is_the_positives_foretold_over_those_that_came():
    labels, logits = np.array([1, 0, 0, 0]), np.log(np.array([0.6, 0.2, 0.1, 0.1]) / (1 - np.array([0.6, 0.2, 0.1, 0.1])))
    assert scoring.calibration(labels, logits) == pytest.approx(1.0)
    assert scoring.calibration(labels, logits + 100) == pytest.approx(4.0)
    assert np.isnan(scoring.calibration(np.zeros(4), logits))
