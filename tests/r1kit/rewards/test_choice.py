"""Labels: however one is wrapped it counts, more than one never does."""

import pytest

from r1kit.rewards.choice import judge


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "B)", "\\boxed{B}", "**B**", "The answer is B",
    "B) the second one", "B. by hand, i.e. slowly",
    "\\text{(B)}", "$B$", "Answer: (B).", "option B"])  # fmt: skip
def test_a_label_counts_however_it_is_wrapped(answer: str) -> None:
    assert judge(answer, "B")[0] == judge(answer, "(B)")[0] == 1


@pytest.mark.parametrize("answer", ["A or B or C", "A, B", "B, C", "A B", "A/B", "(A) (B)", "B) or C)", "B C",
    "not B", "A", "",
    "B (or maybe C)", "either B", "ABCD", "B) this C) that", "\\boxed{A}\\boxed{B}", "B and C", "A\nB", "Bob",
    "B" * 201,
    "B) one (C) two", "B. C.", "B: C", "[A, B, C, D]"])  # fmt: skip
def test_hedged_or_several_labels_score_0(answer: str) -> None:
    assert judge(answer, "B")[0] == 0


@pytest.mark.parametrize("gold", ["A", "(C)", "True", "yes", "not plausible", "invalid", "A or B"])
def test_the_gold_scores_1(gold: str) -> None:
    assert judge(gold, gold)[0] == 1


@pytest.mark.parametrize(("gold", "answer"), [("True", "False"), ("True", "True or False"), ("valid", "invalid"),
    ("yes", "yes and no"),
    ("yes", "not yes"), ("valid", "not valid")])  # fmt: skip
def test_the_opposite_scores_0(gold: str, answer: str) -> None:
    assert judge(answer, gold)[0] == 0


def test_a_gold_that_is_no_label_verifies_nothing() -> None:
    assert judge("", "")[0] == judge("x" * 201, "x" * 201)[0] == 0
