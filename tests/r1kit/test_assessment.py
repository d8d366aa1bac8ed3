"""Laws of the figures on held-out pairs: the order within pairs tells nothing, and a love of length is found."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.assessment import JudgedPair, assess

scores = st.floats(-8, 8).map(lambda value: round(value, 3))
lengths = st.integers(1, 40)
pairs_ = st.lists(
    st.builds(JudgedPair, scores, scores, st.tuples(lengths, lengths), st.booleans()), min_size=1, max_size=30
)


def swapped(pair: JudgedPair) -> JudgedPair:
    first, second = pair.lengths
    return JudgedPair(pair.second, pair.first, (second, first), not pair.first_preferred)


@given(pairs_)
def test_swapping_the_responses_negates_the_logit_and_changes_no_figure(pairs: list[JudgedPair]) -> None:
    turned = [swapped(pair) for pair in pairs]
    for before, after in zip(pairs, turned, strict=True):
        assert (after.logit, after.margin, after.excess) == (-before.logit, before.margin, before.excess)
    for pairwise in (True, False):
        figures, others = (assess(rows, pairwise=pairwise).metrics for rows in (pairs, turned))
        # A probability on the edge of a bin, as a tie's, may fall to the other side of it.
        del figures["calibration_error"], others["calibration_error"]
        assert figures == pytest.approx(others)


@given(pairs_, st.booleans())
def test_every_prediction_is_in_one_bin_and_the_error_is_theirs(pairs: list[JudgedPair], pairwise: bool) -> None:
    found = assess(pairs, pairwise=pairwise)
    count = sum(bin_.count for bin_ in found.calibration)
    assert count == len(pairs) * (1 if pairwise else 2)
    assert all(bin_.low - 1e-9 <= bin_.predicted <= bin_.high + 1e-9 for bin_ in found.calibration)
    gaps = sum(bin_.count * abs(bin_.predicted - bin_.happened.value) for bin_ in found.calibration)
    assert found.metrics["calibration_error"] == pytest.approx(gaps / count)


def made(number: int = 400, longer_preferred: float = 0.5) -> list[JudgedPair]:
    """Pairs without scores whose preferred response is the longer one in a share of them."""
    dice = random.Random(3)
    rows = []
    for _ in range(number):
        short, long = sorted(dice.sample(range(5, 60), 2))
        first_longer = dice.random() < 0.5
        preferred_longer = dice.random() < longer_preferred
        sides = (long, short) if first_longer else (short, long)
        rows.append(JudgedPair(0.0, 0.0, sides, first_longer == preferred_longer))
    return rows


@pytest.mark.parametrize("longer_preferred", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("pairwise", [True, False])
def test_a_model_that_loves_length_is_found_out(longer_preferred: float, pairwise: bool) -> None:
    pairs = [replace(p, first=p.lengths[0] / 9, second=p.lengths[1] / 9) for p in made(400, longer_preferred)]
    figures = assess(pairs, pairwise=pairwise).metrics
    assert figures["longer_scored_higher"] == 1.0 and figures["length_correlation"] == pytest.approx(1.0)
    assert figures["agreement"] == figures["length_agreement"] == figures["longer_preferred"]
    assert figures["length_bias"] == pytest.approx(1 - figures["longer_preferred"])
    assert (figures["agreement_longer"], figures["agreement_shorter"]) == (1.0, 0.0)


@pytest.mark.parametrize("longer_preferred", [0.3, 0.7])
def test_a_model_that_is_always_right_has_no_bias_whatever_people_prefer(longer_preferred: float) -> None:
    pairs = [replace(p, first=1.0 if p.first_preferred else -1.0) for p in made(400, longer_preferred)]
    figures = assess(pairs, pairwise=True).metrics
    assert figures["agreement"] == 1.0 and figures["length_bias"] == pytest.approx(0.0)


def test_a_model_blind_to_length_is_as_good_either_way() -> None:
    dice = random.Random(5)
    pairs = [replace(p, first=dice.random(), second=dice.random()) for p in made(4000, 0.7)]
    figures = assess(pairs, pairwise=True).metrics
    assert figures["longer_scored_higher"] == pytest.approx(0.5, abs=0.03)
    assert figures["length_bias"] == pytest.approx(-0.2, abs=0.03)
    assert figures["length_correlation"] == pytest.approx(0.0, abs=0.05)


def test_equal_lengths_say_nothing_of_length() -> None:
    figures = assess([JudgedPair(1.0, 0.0, (7, 7), True)], pairwise=True).metrics
    assert "length_bias" not in figures and figures["length_agreement"] == 0.5 and figures["length_correlation"] == 0


def test_without_pairs_there_is_nothing_to_say() -> None:
    with pytest.raises(ValueError):
        assess([], pairwise=True)
