"""Laws of the intervals and measures."""

import math

import numpy as np
import pytest

from r1kit.statistics import (
    agreement,
    bootstrap_mean,
    calibration_bins,
    calibration_error,
    clustered_share,
    correlation,
    wilson,
)


def test_wilson_agrees_with_the_printed_value():
    # 81 of 263, Brown, Cai and DasGupta (2001) style check against the closed formula by hand
    interval = wilson(81 / 263, 263)
    assert interval.low == pytest.approx(0.2553, abs=2e-4)
    assert interval.high == pytest.approx(0.3662, abs=2e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_certainty_is_never_claimed_from_few_trials(share: float):
    interval = wilson(share, 20)
    assert interval.high - interval.low > 0.1
    assert interval.low <= share <= interval.high


def test_one_sample_a_problem_is_wilsons_interval():
    means = [1.0] * 30 + [0.0] * 20
    expected = wilson(0.6, 50)
    found = clustered_share(means, 1)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_more_samples_of_the_same_problems_never_count_as_more_problems():
    alike = clustered_share([1.0] * 30 + [0.0] * 20, 16)
    apart = clustered_share([0.6] * 50, 16)
    assert alike.high - alike.low == pytest.approx(wilson(0.6, 50).high - wilson(0.6, 50).low)
    assert apart.high - apart.low == pytest.approx(wilson(0.6, 800).high - wilson(0.6, 800).low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chances = rng.beta(2, 2, size=60)  # mean one half
        interval = clustered_share((rng.binomial(4, chances) / 4).tolist(), 4)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_bootstrap_is_fixed_by_its_seed_and_close_to_the_normal_interval():
    values = np.random.default_rng(1).normal(0.3, 1, 400).tolist()
    first = bootstrap_mean(values, "x")
    assert first == bootstrap_mean(values, "x")
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert first.high - first.low == pytest.approx(2 * half, rel=0.1)


def test_a_constant_has_no_width_and_no_correlation():
    interval = bootstrap_mean([0.5] * 10)
    assert (interval.low, interval.high) == (0.5, 0.5)
    assert correlation([1, 1, 1], [1, 2, 3]) == 0.0
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)


def test_calibration_error_is_zero_where_predictions_come_true():
    assert calibration_error([0.25] * 4, [True, False, False, False]) == pytest.approx(0.0)
    assert calibration_error([0.95] * 10, [False] * 10) == pytest.approx(0.95)


def test_bins_hold_every_prediction_once_and_their_interval_is_wilsons():
    probabilities = [0.0, 0.05, 0.1, 0.55, 0.99, 1.0]
    bins = calibration_bins(probabilities, [False, True, False, True, True, True])
    assert [(round(b.low, 9), b.count) for b in bins] == [(0.0, 2), (0.1, 1), (0.5, 1), (0.9, 2)]
    assert bins[0].predicted == pytest.approx(0.025) and bins[0].happened == wilson(0.5, 2)


def test_a_tie_is_half_an_agreement():
    assert agreement([1.0, 0.0, 2.0], [0.0, 1.0, 2.0]).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("call", [lambda: wilson(1.2, 5), lambda: wilson(0.5, 0), lambda: clustered_share([], 1)])
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError):
        call()
