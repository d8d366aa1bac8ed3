"""Mathematical answers: the gold and what equals it score 1, everything that keeps a way open scores 0."""

import itertools
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.rewards import VerifierPool
from r1kit.rewards.cost import too_expensive
from r1kit.rewards.latex import differ
from r1kit.rewards.math import judge_in_place
from r1kit.rewards.quantity import quantity, same
from tests.r1kit.rewards.problems import judged

EQUAL = {
    "18": ["18", "18.0", "$18", "\\$18", "18 dollars", "18 eggs per day", "18 tomatoes", "18 persons", "\\boxed{18}",
           "018", "+18", "18.", "$18$", "\\(18\\)", "x = 18", "18 元", "18小包", "18\\text{ cm}", "18\\%", "36/2",
           "18^\\circ", "\\frac{36}{2}", "The answer is 18", "the final answer is: 18.", "3 \\cdot 6", "**18**"],
    "1800": ["1,800", "$1,800.00", "1{,}800", "1\\,800", "1 800", "1.8\\times 10^3", "1,\\!800"],
    "-5": ["-5", "\u22125", "- 5", "x=-5", "-5.00"],
    "\\frac{1}{2}": ["1/2", "0.5", ".5", "\\frac12", "\\dfrac{1}{2}", "\\frac{2}{4}", "2^{-1}", "50\\%"],
    "\\frac{7}{2}": ["3\\frac{1}{2}", "3 1/2", "3.5", "7/2"],
    "18\\%": ["18", "0.18", "18%", "18 percent"],
    "18\\text{ cm}": ["18", "18 cm", "18 centimeters", "0.18\\text{ m}", "180 mm"],
    "18 \\text{ cm}^2": ["18 square cm", "18\\text{ cm}^2", "18 cm^{2}", "18", "0.0018 m^2"],
    "54\\text{ cents}": ["\\$0.54", "54 cents", "54"],
    "2\\sqrt{3}\\text{ miles}": ["2\\sqrt{3}", "\\sqrt{12} miles"],
    "(3,\\frac{\\pi}{2})": ["(3, \\pi/2)", "\\left(3,\\frac{\\pi}{2}\\right)"],
    "x^2+2x+1": ["(x+1)^2", "x^2 + 2x + 1", "1+2x+x^2"],
    "\\sqrt{8}": ["2\\sqrt{2}", "\\sqrt8"],
    "1,2": ["2,1", "\\{1,2\\}", "1, 2", "x = 1, x = 2", "x=1 \\text{ or } x=2", "1 \\text{ and } 2"],
    "\\{1,2,3\\}": ["\\{3,2,1\\}", "\\left\\{1, 2, 3\\right\\}"],
    "\\emptyset": ["\\varnothing", "\\{\\}"],
    "[1,2)": ["[1, 2)", "1 \\le x < 2", "x \\in [1,2)"],
    "(-\\infty,2)\\cup(3,\\infty)": ["(3,\\infty)\\cup(-\\infty,2)", "x \\in (-\\infty,2)\\cup(3,\\infty)"],
    "x \\ge 3": ["[3,\\infty)", "3 \\le x"],
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}": ["\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}",
        "\\begin{pmatrix} 1.0 & 2 \\\\ 3 & \\frac{8}{2} \\end{pmatrix}"],
    "\\text{Evelyn}": ["Evelyn", "\\text{Evelyn}", "evelyn."],
    "\\text{(C)}": ["C", "(C)", "\\text{C}", "(C) 12"],
    "\\text{A, B}": ["B,A", "A and B"],
    "1011_2": ["1011_{2}", "1011"],
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
    "(1,2)": ["(1,2) or (2,1)", "(2,1)", "1", "[1,2]", "\\{1,2\\}"],
    "[1,2)": ["(1,2)", "[1,2]", "(1,2]", "1 < x < 2"],
    "\\{1,2\\}": ["\\{1\\}", "\\{1,2,3\\}", "(1,2)", "[1,2]"],
    "(-\\infty,2)\\cup(3,\\infty)": ["(-\\infty,2]\\cup(3,\\infty)", "(-\\infty,2)", "(-\\infty,\\infty)"],
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}": ["\\begin{pmatrix}1&2\\\\4&3\\end{pmatrix}", "1,2,3,4",
        "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"],
    "18\\text{ cm}": ["18 inches", "18 cm^2", "18 m", "18 kg"],
    "18\\%": ["1.8", "0.018", "1800"],
    "18": ["0.18", "180\\%"],
    "54\\text{ cents}": ["54 dollars", "\\$54"],
    "1011_2": ["1011_3", "11", "1010"],
    "\\text{A, B}": ["A", "A, B, C", "A or B"],
    "\\text{(C)}": ["B", "(B) or (C)", "B, C"],
    "\\text{even}": ["odd", "even or odd", "neither"],
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
    quantity(text[:1000])
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(("text", "value"), [("1,234.50", Fraction(2469, 2)), ("-0.1", Fraction(-1, 10)),
    ("5 000", 5000), ("2**3", None), ("1,23", None), ("", None), (".", None), ("3x", None), ("1/2", Fraction(1, 2)),
    ("-3\\frac{1}{2}", Fraction(-7, 2)), ("31/2", Fraction(31, 2)), ("1/0", None), ("1/2/3", None), ("3 4", None),
    ("1.8\\times 10^{3}", 1800), ("9\\times 10^{999}", None), ("1" * 200, None)])  # fmt: skip
def test_numbers_are_exact(text: str, value: Fraction | None) -> None:
    found = quantity(text)
    assert (found.value if found else None) == value


NUMBERS = ["0", "-3", "2/7", "0.125", "12.5%", "1e", "x", "18 cm", "1 m", "\\frac{-5}{3}", "1,000", "3\\frac{1}{2}"]


def test_equality_has_no_direction() -> None:
    for one, other in itertools.product(NUMBERS, NUMBERS):
        a, b = quantity(one), quantity(other)
        if a and b:
            assert same(a, b) == same(b, a) and same(a, a)
        assert differ(one, other) == differ(other, one) and not differ(one, one)


EXPRESSIONS = [
    "x^2-1", "2\\sqrt{3}", "\\frac{\\pi}{4}", "(1,2)", "\\{1,2\\}", "1,2", "3+4i",
    "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
]  # fmt: skip


def test_only_what_differs_is_refuted() -> None:
    """Lists, tuples and sets of the same values are left to algebra."""
    alike = {"(1,2)", "\\{1,2\\}", "1,2"}
    for one, other in itertools.product(EXPRESSIONS, EXPRESSIONS):
        assert differ(one, other) == (one != other and not {one, other} <= alike), (one, other)


@pytest.mark.parametrize(("one", "other"), [("x^2-1", "(x-1)(x+1)"), ("\\sqrt{12}", "2\\sqrt{3}"), ("(1+i)^2", "2i"),
    ("\\frac12x", "\\frac{x}{2}"), ("1,2", "2,1"), ("12\\text{ and }13", "12,13"), ("1{,}000x", "1000x"),
    ("e^{2}", "e^2"),
    ("f(x)", "x f"), ("x^10", "x^{10}"), ("1/2x", "x/2"), ("\\sin x", "y"), ("9^{9^9}", "9^{9^{9}}"), ("x_1", "x_2"),
    ("\\frac{1}{0}", "2"), ("2\\frac{1}{2}", "1"), ("a=2", "b=3"), ("1<x", "2<x")])  # fmt: skip
def test_equal_or_doubtful_expressions_are_not_refuted(one: str, other: str) -> None:
    assert not differ(one, other)


PARTS = [
    *(
        "1",
        "11",
        "111,",
        " ",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "\\frac",
        "\\sqrt",
        "^",
        "_",
        "x",
        "ab",
        " and ",
        "\\text{",
    ),
    *(
        "$",
        "\\$",
        "=",
        "!",
        "\\!",
        ",",
        "\\\\",
        "&",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "%",
        "°",
        " cm",
        "\\pi",
        "+",
    ),
    *("-", "/", "\n", "，", "万", "\\left", "\\{", "\\}", "<", ".", "\\binom", "\\cdot", "i", "e", "or"),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=40).map("".join), st.sampled_from(list(EQUAL)))
def test_whatever_is_judged_in_place_gets_a_verdict_or_goes_to_algebra(text: str, gold: str) -> None:
    verdict = judge_in_place(text, gold)
    assert verdict is None or (verdict[0] in (0.0, 1.0) and verdict[1])
    if text.strip() and "hedged" not in str(judge_in_place(text, text)):
        assert judge_in_place(text, text) in ((1.0, "right"), (0.0, "the gold answer is prose, not mathematics"))


@pytest.mark.parametrize("text", ["2^{1000}", "1024", "\\binom{10}{3}", "5!", "(x+1)^5", "e^{x^2}", "x^{2n}",
    "2^{2^{10}}",
    "\\sqrt[3]{2}", "x^{2024}+1", "\\frac{20!}{10!}", "(n-1)!"])  # fmt: skip
def test_ordinary_expressions_are_not_too_expensive(text: str) -> None:
    assert not too_expensive(text, "1")


def test_an_answer_may_leave_undone_what_the_gold_does() -> None:
    assert too_expensive("\\sum_{n=1}^{9} n", "45") and not too_expensive("\\sum_{n=1}^{9} n", "\\sum_{k=1}^{9} k")
