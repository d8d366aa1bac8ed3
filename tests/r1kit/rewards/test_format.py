"""The format reward: one chain, one answer, also where the template has opened the chain already."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.rewards import format_reward

GOOD = "<think> 3 plus 4 makes 7 </think> <answer> 7 </answer>"
BAD = (
    "", "7", "<answer> 7 </answer>", "<think> 7 </think>", "<think> </think> <answer> 7 </answer>",
    "<think> a </think> <answer> </answer>", GOOD + GOOD, GOOD + " and more", "well: " + GOOD,
    "<think> a </think> so <answer> 7 </answer>", "<think> <think> a </think> <answer> 7 </answer>",
    "<answer> 7 </answer> <think> a </think>", "<think> a <answer> 7 </answer> </think>",
    "<think> a </think> <answer> 7 </answer> <answer> 8 </answer>", "<think> a </think> <answer> 7",
    "<think> a <answer> 7 </answer>", "<THINK> a </THINK> <ANSWER> 7 </ANSWER>",
    "<think> a </think></think> <answer> 7 </answer>",
)  # fmt: skip


def inside(text: str) -> str:
    """What is left for the model to write where the template has opened the chain."""
    return text.removeprefix("<think>")


@pytest.mark.parametrize("text", [GOOD, f"\n{GOOD}\n", GOOD.replace(" ", "\n"), "<think>a</think><answer>7</answer>"])
def test_one_chain_and_one_answer_score_1(text: str) -> None:
    assert format_reward(text) == format_reward(inside(text.strip()), opens_think=True) == 1


@pytest.mark.parametrize("text", BAD)
def test_anything_else_scores_0(text: str) -> None:
    assert format_reward(text) == 0


@pytest.mark.parametrize("text", [inside(text) for text in BAD if text.startswith("<think>")])
def test_anything_else_scores_0_where_the_template_opened_the_chain(text: str) -> None:
    assert format_reward(text, opens_think=True) == 0


def test_a_chain_opened_twice_scores_0() -> None:
    assert format_reward(GOOD, opens_think=True) == 0


PARTS = ("<think>", "</think>", "<answer>", "</answer>", "text", " ")


@pytest.mark.parametrize("length", range(7))
def test_of_all_orders_of_tags_and_text_one_scores_1(length: int) -> None:
    """Chain, then answer, text in both, white space alone between them and around: nothing else, however arranged."""
    for parts in itertools.product(PARTS, repeat=length):
        text = "".join(parts)
        right = re.fullmatch(r" *<think>[tex ]*text[tex ]*</think> *<answer>[tex ]*text[tex ]*</answer> *", text)
        assert format_reward(text) == float(bool(right)), text


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_what_the_template_has_written_makes_no_difference(rest: str) -> None:
    assert format_reward(f"<think>{rest}") == format_reward(rest, opens_think=True)
