"""Mathematical answers. Plain numbers are compared exactly and in place; the rest goes to math-verify in a worker."""

import re
from fractions import Fraction
from typing import Any

from r1kit.rewards.hedging import hedged

MAX_CHARACTERS = 1000
_MAX_DIGITS = 60
_MAX_DEPTH = 25

_NUMBER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?)")
_LEAD = re.compile(r"^(?:so |thus,? |therefore,? )?(?:the )?(?:final )?answer(?: is)?:?\s+", re.IGNORECASE)
_DECORATION = re.compile(r"\\?\$|\\[!,]|\^\{?\\circ\}?|\\?%|°|£|€|¥")
_UNIT = re.compile(r"(?:\\(?:text|mbox|mathrm)\{[^{}]*\}|(?:\s*\b[A-Za-z]{2,}\b){1,3}|[\u4e00-\u9fff]{1,4})\s*$")
_SCALE = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|squared|cubed|half|halves|thirds?|quarters?|fourths?|fifths?|"
    r"times|and|to|plus|minus|over|pi|sqrt|sin|cos|tan|log|ln|exp|mod)\b|[万亿千百十半之又和]",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text|textbf|mbox|mathrm)\s*\{([^{}]*)\}")
_SEGMENT = re.compile(r"\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_ARROW = re.compile(
    r"\\(?:implies|iff|to|quad|qquad|(?:Long|long)?(?:Right|right|Leftright|leftright)arrow)\b|=>|->|[;\n]"
)
_EQUALS = re.compile(r"(?<![<>!\\])=")
_TWO_NUMBERS = re.compile(r"(?<![0-9])(?![0-9]{1,3}(?:\s[0-9]{3})+(?![0-9]))[0-9.]+(?:\s|\\[ ;:])+[0-9]")
_LIST = re.compile(r",(?![0-9]{3}(?![0-9]))|\\[{}]")
_PROSE = re.compile(r"[A-Za-z]{3,}")


def judge_in_place(answer: str, gold: str) -> tuple[float, str] | None:
    """The verdict where it takes no algebra, in time linear in the answer's length; else None."""
    if not gold.strip():
        return 0.0, "the gold answer is empty"
    if len(answer) > MAX_CHARACTERS:
        return 0.0, "too long for a mathematical answer"
    if hedged(answer, gold):
        return 0.0, "hedged"
    if _depth(answer) > _MAX_DEPTH:
        return 0.0, "nested too deeply"
    if _TWO_NUMBERS.search(answer) and "\\" not in answer.replace("\\ ", "") and not _TWO_NUMBERS.search(gold):
        return 0.0, "more than one number"
    if len(gold) <= MAX_CHARACTERS and (expected := number(gold)) is not None:
        found = number(answer)
        if found is not None:
            return (1.0, "right") if found == expected else (0.0, "wrong")
    return None


def number(text: str) -> Fraction | None:
    """The value of a plain decimal number, thousands separators, currency, per cent, degrees and a unit set aside."""
    text = _DECORATION.sub("", _LEAD.sub("", _unboxed(text.strip()))).replace("{,}", ",").strip().rstrip(".").strip()
    unit = _UNIT.search(text)
    if unit and not _SCALE.search(unit.group()):
        text = text[: unit.start()].strip()
    match = _NUMBER.fullmatch(text.replace("\u2212", "-").replace("- ", "-"))
    if not match or not match[2] or len(match[2]) > _MAX_DIGITS:
        return None
    value = Fraction(match[2].replace(",", ""))
    return -value if match[1] == "-" else value


def _depth(text: str) -> int:
    """How deeply brackets of any kind are nested, closed or not."""
    deepest = depth = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _unboxed(text: str) -> str:
    if len(text) > 4 and text.startswith("**") and text.endswith("**"):
        text = text[2:-2].strip()
    if text.startswith("\\boxed{") and text.endswith("}"):
        return text[len("\\boxed{") : -1]
    return text


def load(_payload: dict[str, Any]) -> None:
    """Import what judging needs, once, in the process that workers are forked from."""
    import math_verify  # noqa: F401  (it takes half a second; only workers need it)


def judge(payload: dict[str, Any]) -> tuple[float, str]:
    """1 if the answer is the gold value or expression. Runs in a worker: expressions may never finish."""
    from math_verify import verify

    answer, gold = _expression(payload["answer"]), _expression(payload["gold"])
    if not _verifiable(gold):
        return 0.0, "the gold answer is prose, not mathematics"
    if _plain(answer) == _plain(gold):
        return 1.0, "right"
    if _ARROW.search(answer) and not _ARROW.search(gold):
        return 0.0, "more than one statement"
    if len(_EQUALS.findall(answer)) > max(1, len(_EQUALS.findall(gold))):
        return 0.0, "more than one equation"
    if number(gold) is not None and _LIST.search(answer):
        return 0.0, "more than one value"
    expected, found = _parse(gold), _parse(answer)
    if not found:
        return 0.0, "not a mathematical expression"
    if _false_equation(found[0]):
        return 0.0, "a false equation"
    right = verify(expected, found, timeout_seconds=None)
    return (1.0, "right") if right else (0.0, "wrong")


def _expression(text: str) -> str:
    """The mathematics of an answer: unboxed, out of its sentence, without dollar signs."""
    text = _LEAD.sub("", text.strip()).strip()
    text = _unboxed(text)
    segments = [next(filter(None, groups)) for groups in _SEGMENT.findall(text)]
    if len(segments) == 1 and not re.search(r"[0-9=]", _SEGMENT.sub("", text)):
        text = segments[0]
    return _unboxed(text.strip().rstrip(".").strip())


def _plain(text: str) -> str:
    """For literal comparison: no spaces, no text commands, one spelling of fractions."""
    text = _TEXT.sub(r"\1", text).replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    return re.sub(r"\s+|\\[!,;: ]|\\?\$|\\?%|\^\{?\\circ\}?", "", text).casefold()


def _verifiable(gold: str) -> bool:
    """Whether a gold answer is mathematics or a label, not a sentence."""
    return len(gold) <= MAX_CHARACTERS and len(_PROSE.findall(re.sub(r"\\[A-Za-z]+", " ", _TEXT.sub("", gold)))) <= 2


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    return parse(f"\\boxed{{{text}}}", [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None)  # pyright: ignore[reportArgumentType]  (the worker keeps time)


def _false_equation(found: Any) -> bool:
    """Whether the answer equates two different numbers, of which one may be the right one."""
    from sympy import Eq

    if not isinstance(found, Eq) or found.free_symbols:
        return False
    left, right = found.args
    return not left.equals(right)  # pyright: ignore[reportAttributeAccessIssue]  (sympy is untyped here)
