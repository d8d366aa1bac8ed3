"""Intervals and measures of agreement: how sure a figure is."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1kit.random import generator
from r1kit.schema import Section

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
_RESAMPLES = 4000
_RESAMPLES_AT_ONCE = 250


class Interval(Section):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(share: float, n: float) -> Interval:
    """Wilson's interval of a share seen in `n` independent trials (Wilson, JASA 1927).

    Args:
        share: in [0, 1].
        n: trials; need not be a whole number (an effective sample size).

    Raises:
        ValueError: for a share outside [0, 1] or no trial.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share must lie in [0, 1], not {share}")
    if n <= 0:
        raise ValueError("an interval needs at least one trial")
    z2 = Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return Interval(value=share, low=min(low, share), high=max(high, share))


def clustered_share(means: Sequence[float], per_cluster: int) -> Interval:
    """Interval of the mean over clusters (problems) of a share seen in `per_cluster` trials each (samples).

    Wilson's interval at the effective sample size p(1-p) / Var(mean), where the variance is that between
    problems (Korn and Graubard, Survey Methodology 1998): samples of one problem are not independent evidence
    about other problems. With one sample a problem it is Wilson's interval itself, and unlike a bootstrap it
    keeps its width where every problem is right or every one wrong.

    Args:
        means: share per cluster, each in [0, 1].
        per_cluster: trials in each cluster.
    """
    values = np.asarray(means, dtype=np.float64)
    if values.size == 0:
        raise ValueError("an interval needs at least one problem")
    share = min(1.0, max(0.0, float(values.mean())))
    variance = float(values.var()) / values.size
    most = values.size * per_cluster
    effective = share * (1 - share) / variance if variance > 0 else (values.size if share in (0, 1) else most)
    return wilson(share, min(float(most), max(float(values.size), effective)))


def bootstrap_mean(values: Sequence[float], *seed: int | str) -> Interval:
    """Mean with the percentile interval of a bootstrap over the values (Efron 1979); the seed fixes it.

    Raises:
        ValueError: without values.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("an interval needs at least one value")
    rng = generator("bootstrap", *seed)
    means = np.concatenate([
        data[rng.integers(data.size, size=(_RESAMPLES_AT_ONCE, data.size))].mean(1)
        for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE)
    ])  # fmt: skip
    low, high = np.quantile(means, (0.025, 0.975))
    value = float(data.mean())
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where either does not vary."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.size != b.size:
        raise ValueError(f"a correlation needs as many values on both sides, not {a.size} and {b.size}")
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))


class CalibrationBin(Section):
    """Predictions of about the same probability, and what came of them."""

    low: float
    high: float
    """The probabilities that fall into it."""
    count: int
    predicted: float
    """Mean probability."""
    happened: Interval
    """Share that came true, with Wilson's interval."""


def calibration_bins(
    probabilities: Sequence[float], outcomes: Sequence[bool], bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """The points of a reliability diagram: bins of equal width, those without a prediction left out.

    Raises:
        ValueError: without predictions.
    """
    predicted = np.asarray(probabilities, dtype=np.float64)
    happened = np.asarray(outcomes, dtype=np.float64)
    if predicted.size == 0:
        raise ValueError("a calibration needs at least one prediction")
    places = np.minimum((predicted * bins).astype(int), bins - 1)
    found = []
    for place in np.unique(places):
        inside = places == place
        count = int(inside.sum())
        found.append(
            CalibrationBin(
                low=place / bins,
                high=(place + 1) / bins,
                count=count,
                predicted=float(predicted[inside].mean()),
                happened=wilson(float(happened[inside].mean()), count),
            )
        )
    return tuple(found)


def calibration_error(probabilities: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error (Guo et al., arXiv 1706.04599, eq. 3): mean gap between what was predicted and
    what happened, over bins of equal width, weighted by their size."""
    found = calibration_bins(probabilities, outcomes, bins)
    return sum(bin_.count * abs(bin_.predicted - bin_.happened.value) for bin_ in found) / len(probabilities)


def agreement(chosen: Sequence[float], rejected: Sequence[float]) -> NDArray[Any]:
    """Per pair 1 where the chosen one scores higher, 0 where lower, a half for a tie."""
    difference = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    return (np.sign(difference) + 1) / 2
