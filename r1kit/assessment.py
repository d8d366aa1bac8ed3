"""What a reward model is worth on pairs that it was not trained on, and how much of that is length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from r1kit.statistics import (
    CalibrationBin,
    agreement,
    calibration_bins,
    calibration_error,
    clustered_share,
    correlation,
)


@dataclass(frozen=True)
class JudgedPair:
    """Two responses to one prompt as a reward model scored them."""

    first: float
    second: float
    lengths: tuple[int, int]
    """Tokens of each response, of what is read of it."""
    first_preferred: bool

    @property
    def logit(self) -> float:
        """Log-odds that the first response is the preferred one (Bradley and Terry, Biometrika 1952)."""
        return self.first - self.second

    @property
    def margin(self) -> float:
        """Score of the preferred response less the other's."""
        return self.logit if self.first_preferred else -self.logit

    @property
    def excess(self) -> int:
        """Length of the preferred response less the other's."""
        first, second = self.lengths
        return first - second if self.first_preferred else second - first


@dataclass(frozen=True)
class Assessment:
    """The figures, the bins of the calibration plot, and the scores that they are of."""

    metrics: dict[str, float]
    calibration: tuple[CalibrationBin, ...]
    pairs: tuple[JudgedPair, ...]


def assess(pairs: Sequence[JudgedPair], *, pairwise: bool) -> Assessment:
    """Figures on held-out pairs; the order within each pair changes none of them, but for which bin a comparison is in.

    `agreement` with its 95 % interval: share of pairs whose preferred response scores higher, ties half.
    `calibration_error`, `log_loss`: of the predicted probability that the first response is the preferred one
    (`pairwise`), or that a response is harmless, each alone; for these also `accuracy`.

    Length, over the pairs whose responses differ in it:
    `length_agreement`: what always preferring the longer response would reach; `longer_preferred`: how often people
    preferred it; `longer_scored_higher`: how often the model does; `length_bias`: the second less the first, 0 where
    the model likes length as much as people do. `agreement_longer` and `agreement_shorter`: agreement where the longer
    and where the shorter response is preferred. `length_correlation`: of the differences of score and of length within
    pairs, so that the prompts have no part in it.

    Raises:
        ValueError: without pairs.
    """
    right = agreement([pair.margin for pair in pairs], [0.0] * len(pairs)).tolist()
    share = clustered_share(right, 1)
    outcomes = [pair.first_preferred for pair in pairs]
    logits = [pair.logit for pair in pairs]
    if not pairwise:
        logits = [pair.first for pair in pairs] + [pair.second for pair in pairs]
        outcomes = outcomes + [not first for first in outcomes]
    log_odds = torch.tensor(logits, dtype=torch.float64)
    target = torch.tensor(outcomes, dtype=torch.float64)
    probabilities = log_odds.sigmoid().tolist()
    metrics = {
        "agreement": share.value,
        "agreement_low": share.low,
        "agreement_high": share.high,
        "num_heldout_pairs": float(len(pairs)),
        "margin": sum(pair.margin for pair in pairs) / len(pairs),
        "log_loss": float(functional.binary_cross_entropy_with_logits(log_odds, target)),
        "calibration_error": calibration_error(probabilities, outcomes),
    }
    if not pairwise:
        metrics["accuracy"] = float(((log_odds > 0) == (target > 0.5)).double().mean())
    return Assessment(metrics | _length(pairs, right), calibration_bins(probabilities, outcomes), tuple(pairs))


def _length(pairs: Sequence[JudgedPair], right: Sequence[float]) -> dict[str, float]:
    """What length alone would reach, and how much the model is led by it."""
    margins, excesses = [pair.margin for pair in pairs], [float(pair.excess) for pair in pairs]
    baseline = agreement(excesses, [0.0] * len(pairs))
    metrics = {
        "length_agreement": float(baseline.mean()),
        "length_correlation": correlation(margins + [-m for m in margins], excesses + [-e for e in excesses]),
    }
    longer = [value for value, excess in zip(right, excesses, strict=True) if excess > 0]
    shorter = [value for value, excess in zip(right, excesses, strict=True) if excess < 0]
    for name, values in (("agreement_longer", longer), ("agreement_shorter", shorter)):
        if values:
            metrics[name] = sum(values) / len(values)
    if uneven := len(longer) + len(shorter):
        metrics["longer_preferred"] = len(longer) / uneven
        metrics["longer_scored_higher"] = (sum(longer) + len(shorter) - sum(shorter)) / uneven
        metrics["length_bias"] = metrics["longer_scored_higher"] - metrics["longer_preferred"]
    return metrics
