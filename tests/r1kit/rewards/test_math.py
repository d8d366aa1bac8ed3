"""Mathematical answers: the gold and what equals it score 1, everything that keeps a way open scores 0."""

import time
from fractions import Fraction

import pytest

from r1kit import chat
from r1kit.rewards import VerifierPool
from r1kit.rewards.math import judge_in_place, number
from tests.r1kit.rewards.problems import judged, problem

EQUAL = {
    "18": ["18", "18.0", "$18", "\\$18", "18 dollars", "18 eggs per day", "18 tomatoes", "18 persons", "\\boxed{18}",
    "018",
           "+18", "18.", "$18$", "\\(18\\)", "x = 18", "18 元", "18小包", "18\\text{ cm}", "18\\%", "36/2", "18^\\circ",
           "\\frac{36}{2}", "The answer is 18", "the final answer is: 18.", "3 \\cdot 6", "**18**"],
    "1800": ["1,800", "$1,800.00", "1{,}800", "1\\,800", "1 800", "1.8\\times 10^3"],
    "-5": ["-5", "\u22125", "- 5", "x=-5", "-5.00"],
    "\\frac{1}{2}": ["1/2", "0.5", ".5", "\\frac12", "\\dfrac{1}{2}", "\\frac{2}{4}", "2^{-1}"],
    "(3,\\frac{\\pi}{2})": ["(3, \\pi/2)", "\\left(3,\\frac{\\pi}{2}\\right)"],
    "x^2+2x+1": ["(x+1)^2", "x^2 + 2x + 1", "1+2x+x^2"],
    "\\sqrt{8}": ["2\\sqrt{2}", "\\sqrt8"],
    "1,2": ["2,1", "\\{1,2\\}", "1, 2"],
    "\\text{Evelyn}": ["Evelyn", "\\text{Evelyn}"],
}  # fmt: skip
OPEN = {
    "3": ["3 or 4", "4 or 3", "3, 4", "3 4", "4 3", "x=3, x=4", "\\boxed{3}\\boxed{4}", "3 = 4", "not 3",
    "\\{3,4\\}", "3; 4",
          "3\n4", "3 \\quad 4", "3 and 4", "either 3 or 4", "\\pm 3", "3 \\pm 1", "2 < x < 4", "(-\\infty,\\infty)",
          "3 (or 4)",
          "\\text{3 or 4}", "3|4", "[3,4]", "(3,4)", "3 \\text{ and } 4", "3-4", "maybe 3", "1,2,3",
          "x \\in \\{1,2,3\\}",
          "x \\ge 3", "3 \\lor 4", "\\{3\\} \\cup \\{4\\}", "3或4", "3、4", "3，4", "3和4", "3 & 4", "3\\\\4", "3 to 4",
          "3..4",
          "3 or more", "at least 3", "less than 4", "\\begin{cases}3\\\\4\\end{cases}", "3 \\ne 4", "3 \\to 4",
          "3 \\Rightarrow 4", "x = 3 or x = 4", "3 (not 4)", "3 \\text{ possibly}", "3 = 3 = 4", "x", "\\mathbb{R}",
          "3 apples and 4 pears", "3 apples, 4 pears", "3 hundred", "3 dozen", "3 million"],
    "\\frac{1}{2}": ["\\frac{1}{2} or \\frac{1}{3}", "\\frac{1}{2}, \\frac{1}{3}", "\\frac12=\\frac13", "\\pm\\frac12",
                     "[\\frac12,\\frac13]", "\\frac12\\quad\\frac13", "1/2 1/3", "1/2/3"],
    "x+1": ["x+1 or x+2", "x+1, x+2", "x+1 = x+2", "\\{x+1,x+2\\}", "x+1; x+2"],
    "1,2": ["1,2,3", "1 or 2", "1", "2", "1,2 or 3", "2,3"],
    "(1,2)": ["(1,2) or (2,1)", "(2,1)", "1"],
}  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), [(gold, answer) for gold, answers in EQUAL.items() for answer in answers])
def test_what_equals_the_gold_scores_1(pool: VerifierPool, gold: str, answer: str) -> None:
    assert judged(pool, "math", gold, answer).score == 1


@pytest.mark.parametrize(
    "gold", [*EQUAL, *OPEN, "0", "10^{12}", "x \\in [0,1)", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "14:30"]
)
def test_the_gold_scores_1(pool: VerifierPool, gold: str) -> None:
    assert judged(pool, "math", gold, gold).score == 1


@pytest.mark.parametrize(("gold", "answer"), [(gold, answer) for gold, answers in OPEN.items() for answer in answers])
def test_several_answers_score_0(pool: VerifierPool, gold: str, answer: str) -> None:
    assert judged(pool, "math", gold, answer).score == 0


@pytest.mark.parametrize(("gold", "answer"), [("18", "17"), ("18", "181"), ("18", "1.8"), ("1800", "1,8"), ("-5", "5"),
    ("x^2+2x+1", "x^2+2x"), ("\\frac{1}{2}", "\\frac{1}{3}"), ("18", "eighteen hundred"), ("0.5",
    "0.5000001")])  # fmt: skip
def test_other_values_score_0(pool: VerifierPool, gold: str, answer: str) -> None:
    assert judged(pool, "math", gold, answer).score == 0


def test_a_gold_that_is_prose_or_empty_verifies_nothing(pool: VerifierPool) -> None:
    prose = "the set of all real numbers that are not negative"
    assert judged(pool, "math", prose, prose).score == 0
    assert judged(pool, "math", " ", "18").score == 0


HOSTILE = (
    "10^{10^{10^{10}}}", "99999999!", "((9!)!)!", "9^{9^{9^{9}}}-9^{9^{9^{9}}}", "\\binom{10^9}{5\\cdot 10^8}",
    "\\sum_{n=1}^{10^{100}} n^{n}", "(1+x)^{99999}", "[" * 900, "(" * 400 + "1" + ")" * 400, "{" * 900,
    "\\frac{" * 150 + "1" + "}{2}" * 150, "\\left(" * 150, "1" * 999, "x_" * 450, "\\frac{1}{0}", "\\log(0)",
)  # fmt: skip


def test_hostile_expressions_cost_their_deadline_at_most_and_nobody_elses_verdict() -> None:
    gold = problem("math", "\\frac{1}{2}")
    completions = [chat.response("so", text) for hostile in HOSTILE for text in (hostile, "\\frac{2}{4}")]
    with VerifierPool(workers=1, deadline_seconds=1.5) as quick:
        verdicts = quick.verify([gold] * len(completions), completions)
    assert [verdict.score for verdict in verdicts] == [0, 1] * len(HOSTILE)
    assert max(verdict.seconds for verdict in verdicts) < 1.5 + 2
    late = {text for text, verdict in zip(HOSTILE, verdicts[::2], strict=True) if "no verdict" in verdict.reason}
    assert "10^{10^{10^{10}}}" in late and "99999999!" in late and "[" * 900 not in late


@pytest.mark.parametrize("text", ["[" * 10**6, "1," * 10**6, "1" * 10**6, "1 " * 10**6, "=" * 10**6, "a " * 10**6])
def test_long_answers_are_refused_at_once(text: str) -> None:
    started = time.monotonic()
    assert judge_in_place(text, "18") == (0.0, "too long for a mathematical answer")
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("text",
    ["1" * 1000, "1," * 500, "1 " * 500, " " * 1000, "a " * 500, "aa" * 500, "$" * 1000, "- " * 500,
    "1,111" * 200, "\\text{" * 160, "." * 1000, "1.1" * 333, "or" * 500])  # fmt: skip
def test_judging_in_place_is_quick_whatever_the_answer(text: str) -> None:
    started = time.monotonic()
    judge_in_place(text[:1000], "18")
    number(text[:1000])
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(("text", "value"), [("1,234.50", Fraction(2469, 2)), ("-0.1", Fraction(-1, 10)), ("5 000",
    None),
    ("2**3", None), ("1,23", None), ("", None), (".", None), ("3x", None), ("1/2", None),
    ("1" * 61, None)])  # fmt: skip
def test_numbers_are_exact(text: str, value: Fraction | None) -> None:
    assert number(text) == value
