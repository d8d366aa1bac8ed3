"""Loops are found, chains of steps that differ are not, in linear time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.rewards import repetition_share

CHAIN = "\n".join(f"Step {n}: we take {n} and add {n * n + 1}, which makes {n * n + n + 1}." for n in range(60))


@pytest.mark.parametrize("period", [1, 2, 3, 7, 20])
def test_a_loop_approaches_1(period: int) -> None:
    text = " ".join(f"word{n}" for n in range(period)) + " "
    shares = [repetition_share(text * times) for times in (30, 100, 1000)]
    assert shares == sorted(shares) and shares[-1] > 0.95


@pytest.mark.parametrize("text", ["", "one", "one two " * 3, CHAIN])
def test_ordinary_text_does_not_repeat(text: str) -> None:
    assert repetition_share(text) < 0.05


@pytest.mark.parametrize("text", ["!" * 500, "- " * 500, "=" * 40, "。" * 100, "哈" * 300])
def test_runs_of_one_sign_are_loops(text: str) -> None:
    assert repetition_share(text) > 0.9


@settings(deadline=None)
@given(st.lists(st.sampled_from(["seven", "加", "!", "so we add", "7"]), max_size=200).map(" ".join))
def test_the_share_is_a_share_and_saying_it_twice_raises_it(text: str) -> None:
    share, twice = repetition_share(text), repetition_share(f"{text} {text}")
    assert 0 <= share <= 1 and 0 <= twice <= 1
    if len(text.split()) > 24:
        assert twice >= 0.4


def test_half_a_loop_is_half() -> None:
    words = len(CHAIN.split())
    assert 0.3 < repetition_share(CHAIN + " again" * words) < 0.7


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "a " * 300_000, "! " * 300_000, "[" * 10**6, "ab" * 300_000, " " * 10**6, "!" + " " * 10**6]
)
def test_time_is_linear(text: str) -> None:
    started = time.monotonic()
    assert 0 <= repetition_share(text) <= 1
    assert time.monotonic() - started < 10
