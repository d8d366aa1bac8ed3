"""Mathematical answers. What takes no algebra is judged in place, in microseconds; math-verify has the rest."""

import re
from functools import cache, lru_cache
from typing import Any

from r1kit.rewards import choice
from r1kit.rewards.cost import too_expensive
from r1kit.rewards.hedging import hedged
from r1kit.rewards.latex import differ
from r1kit.rewards.quantity import quantity, same, split_unit, unwrapped

MAX_CHARACTERS = 1000
_MAX_DEPTH = 25
_RIGHT, _WRONG = (1.0, "right"), (0.0, "wrong")

_LEAD = re.compile(r"^(?:so |thus,? |therefore,? )?(?:the )?(?:final )?answer(?: is)?:?\s+", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mbox|mathrm)\s*\{([^{}]*)\}")
_SEGMENT = re.compile(r"\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_ARROW = re.compile(
    r"\\(?:implies|iff|to|quad|qquad|(?:Long|long)?(?:Right|right|Leftright|leftright)arrow)\b|=>|->|[;\n]"
)
_EQUALS = re.compile(r"(?<![<>!\\])=")
_TWO_NUMBERS = re.compile(r"(?<![0-9])(?![0-9]{1,3}(?:\s[0-9]{3})+(?![0-9]))[0-9.]+(?:\s|\\[ ;:])+[0-9]")
_LIST = re.compile(r",(?![0-9]{3}(?![0-9]))|\\[{}]")
_AND = re.compile(r",?\s*\\(?:text|mbox)\s*\{\s*,?\s*and\s*\},?|,?\s+and\s+")
_OR = re.compile(r",|\\(?:text|mbox)\s*\{\s*(?:or|and)\s*\}|\b(?:or|and)\b|\\lor\b")
_SOLUTION = re.compile(r"\s*([A-Za-z])\s*=([^=]+)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_PROSE = re.compile(r"[A-Za-z]{3,}")
_WORDS = re.compile(r"[A-Za-z]+(?:[ ,-]+[A-Za-z0-9]+)*")
_BASED = re.compile(r"([0-9A-Z]+(?:\.[0-9A-Z]+)?)_\{?([0-9]+)\}?")


def judge_in_place(answer: str, gold: str) -> tuple[float, str] | None:
    """The verdict where it takes no algebra, in time linear in the answer's length; else None."""
    if not gold.strip():
        return 0.0, "the gold answer is empty"
    if len(answer) > MAX_CHARACTERS:
        return 0.0, "too long for a mathematical answer"
    if _CONTROL.search(answer):
        return 0.0, "control characters in the answer"
    if not _verifiable(gold):
        return 0.0, "the gold answer is prose, not mathematics"
    expected, found = _gold(gold), _expression(answer)
    if _plain(found) == _plain(expected):
        return _RIGHT
    solutions = _solutions(found, expected)
    if solutions is None and hedged(answer, gold):
        return 0.0, "hedged"
    if _depth(answer) > _MAX_DEPTH:
        return 0.0, "nested too deeply"
    found = solutions or found
    return _by_value(found, expected) or _by_form(found, expected) or _by_size(found, expected)


def _by_value(found: str, expected: str) -> tuple[float, str] | None:
    """Numbers, numbers in another base, words: exactly right or wrong."""
    wanted = quantity(expected)
    if wanted and (given := quantity(found)):
        return _RIGHT if same(given, wanted) else _WRONG
    digits, other_digits = _based(expected), _based(found)
    if digits or other_digits:
        number, other = digits or (expected, ""), other_digits or (found, "")
        bases = {number[1], other[1]} - {""}
        return _RIGHT if number[0] == other[0] and len(bases) == 1 else _WRONG
    label = _label(expected) if _TEXT.fullmatch(expected.rstrip(" .,")) else ""
    if len(label) == 1:
        return choice.judge(found.strip(" .,"), label)
    if _WORDS.fullmatch(label):
        return _RIGHT if _parts(_label(found)) == _parts(label) else _WRONG
    return None


def _by_form(found: str, expected: str) -> tuple[float, str] | None:
    """More than was asked for, or another kind of thing."""
    if _TWO_NUMBERS.search(found) and "\\" not in found.replace("\\ ", "") and not _TWO_NUMBERS.search(expected):
        return 0.0, "more than one number"
    if _ARROW.search(found) and not _ARROW.search(expected):
        return 0.0, "more than one statement"
    if len(_EQUALS.findall(found)) > max(1, len(_EQUALS.findall(expected))):
        return 0.0, "more than one equation"
    if _LIST.search(found) and quantity(expected):
        return 0.0, "more than one value"
    sets = [text.removeprefix("\\left").startswith("\\{") for text in (found, expected)]
    pairs = [
        text.removeprefix("\\left").startswith(("(", "[")) and text.endswith((")", "]")) for text in (found, expected)
    ]
    if (sets[0] and pairs[1]) or (sets[1] and pairs[0]):
        return 0.0, "a set is no tuple and no interval"
    units = split_unit(found, known=True)[1], split_unit(expected, known=True)[1]
    if units[0] and units[1] and units[0] != units[1]:
        return 0.0, "another unit"
    return None


def _by_size(found: str, expected: str) -> tuple[float, str] | None:
    """What can be told by putting numbers in; what is too much to compute."""
    one, other = split_unit(found, known=True)[0], split_unit(expected, known=True)[0]
    if differ(one, other):
        return _WRONG
    return (0.0, "too expensive to judge") if too_expensive(one, other) else None


def _depth(answer: str) -> int:
    """How deeply brackets of any kind are nested, closed or not."""
    deepest = depth = 0
    for letter in answer:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return deepest


_WARM = (
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"),
    ("(1,2]", "1 < x \\le 2"),
    ("\\{1,x\\}", "\\{x,1\\}"),
    ("(1,\\pi)", "(1, -\\pi)"),
    ("(-\\infty,2)\\cup(3,\\infty)", "(3,\\infty)\\cup(-\\infty,2)"),
    ("x^2-1", "(x-1)(x+1)"),
    ("y=2x+1", "y - 2x = 1"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\4&3\\end{pmatrix}"),
    ("3+2i", "2i-3"),
    ("\\sin x", "\\cos^2 x"),
)
"""Gold and answer of the common kinds: what is computed for one is remembered for all of its kind."""


@cache
def _warm_up() -> None:
    for gold, answer in _WARM:
        judge({"gold": gold, "answer": answer})


def load(_payload: dict[str, Any]) -> None:
    """Import what judging needs, and fill its caches, once, in the process that workers are forked from."""
    _warm_up()


def judge(payload: dict[str, Any]) -> tuple[float, str]:
    """1 if the answer is the gold expression. Runs in a worker, behind `judge_in_place`: algebra may never finish."""
    from math_verify import verify

    expected, found = _gold(payload["gold"]), _expression(payload["answer"])
    found = _solutions(found, expected) or found
    wanted, given = _parse_gold(expected), _parse(found)
    if not given:
        return 0.0, "not a mathematical expression"
    if _false_equation(given[0]):
        return 0.0, "a false equation"
    right = verify(wanted, given, timeout_seconds=None, allow_set_relation_comp=True)
    return _RIGHT if right else _WRONG


def _expression(text: str) -> str:
    """The mathematics of an answer: unboxed, out of its sentence, without dollar signs."""
    text = unwrapped(_LEAD.sub("", text.strip()))
    segments = [next(filter(None, groups)) for groups in _SEGMENT.findall(text)]
    if len(segments) == 1 and not re.search(r"[0-9=]", _SEGMENT.sub("", text)):
        text = segments[0]
    return unwrapped(text.strip().rstrip(".").strip())


_gold = lru_cache(maxsize=4096)(_expression)


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    """For literal comparison: no spaces, no text commands, one spelling of fractions and of the empty set."""
    text = _TEXT.sub(r"\1", text).replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\[dt]frac", r"\\frac", text).replace("\\varnothing", "\\emptyset").replace("\\{\\}", "\\emptyset")
    text = re.sub(r"\b([ap])\.m\b\.?", r"\1m", text)
    return re.sub(r"\s+|\\[!,;: ]|\\?\$|\\?%|\^\{?\\circ\}?", "", text).casefold()


@lru_cache(maxsize=4096)
def _verifiable(gold: str) -> bool:
    """Whether a gold answer is mathematics or a label, not a sentence."""
    return len(gold) <= MAX_CHARACTERS and len(_PROSE.findall(re.sub(r"\\[A-Za-z]+", " ", _TEXT.sub("", gold)))) <= 2


def _solutions(found: str, expected: str) -> str | None:
    """`x = 1 or x = -2` as the list `1,-2`, where the gold answer is a list as long; else None."""
    if "=" not in found or "=" in expected:
        return None
    matches = [_SOLUTION.fullmatch(part) for part in _OR.split(found)]
    names = {match[1] if match else "" for match in matches}
    if len(matches) < 2 or len(names) > 1 or "" in names or len(matches) != len(_AND.sub(",", expected).split(",")):
        return None
    return ",".join(match[2].strip() for match in matches if match)


def _based(text: str) -> tuple[str, str] | None:
    match = _BASED.fullmatch(_TEXT.sub(r"\1", text).replace(" ", ""))
    return (match[1], match[2]) if match else None


def _label(text: str) -> str:
    return " ".join(_TEXT.sub(r"\1", text).replace("$", "").strip(" .,:*()").casefold().split())


def _parts(label: str) -> list[str]:
    """A label's letters where it is a list of them, in one order; else the label."""
    parts = re.split(r"[ ,]+(?:and )?", label)
    return sorted(parts) if all(len(part) == 1 for part in parts) else [label]


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    text = _AND.sub(",", split_unit(text, known=True)[0])
    return parse(f"\\boxed{{{text}}}", [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)  # pyright: ignore[reportArgumentType]  (the worker keeps time)


_parse_gold = lru_cache(maxsize=64)(_parse)


def _false_equation(found: Any) -> bool:
    """Whether the answer equates two different numbers, of which one may be the right one."""
    from sympy import Eq

    if not isinstance(found, Eq) or found.free_symbols:
        return False
    left, right = found.args
    return not left.equals(right)  # pyright: ignore[reportAttributeAccessIssue]  (sympy is untyped here)
