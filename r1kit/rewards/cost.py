"""Refuses, by its size alone, an expression whose value nobody should try to compute.

Algebra may take for ever over a dozen signs. What is refused here costs microseconds instead of a deadline; whatever
slips through still has its deadline.
"""

import re

from r1kit.rewards.latex import scalar

_MAX_OPERATIONS = 150
_MAX_DIGITS = 300
_MAX_EXPONENT = 10_000
_MAX_DEGREE = 60
"""Of sums with variables that are raised to a power, all exponents together."""
_MAX_ARGUMENT_DIGITS = 3
"""Of factorials and binomials."""

_OPERATION = re.compile(r"[-+*/^_=<>,&!]|\\[A-Za-z]+|\\\\")
_UNDONE = re.compile(r"\\(?:sum|prod|int|iint|iiint|oint|lim|limsup|liminf|bigcup|bigcap|coprod)(?![A-Za-z])")
_DIGITS = re.compile(r"[0-9]+")
_LARGE_ROOT = re.compile(r"\\sqrt\s*\[[^\]]*[0-9]{3}")
_FACTORIAL = re.compile(r"(?<!\\)!(?!=)")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_CLOSING = {")": "(", "}": "{", "]": "["}
_OPENING = {opening: closing for closing, opening in _CLOSING.items()}


def too_expensive(answer: str, gold: str) -> bool:
    """Whether an answer is not worth its algebra, judged beside what the gold answer itself needs."""
    if _UNDONE.search(answer) and not _UNDONE.search(gold):
        return True
    if len(_OPERATION.findall(answer)) > max(_MAX_OPERATIONS, 2 * len(_OPERATION.findall(gold))):
        return True
    if any(len(digits) > _MAX_DIGITS for digits in _DIGITS.findall(answer)) or _LARGE_ROOT.search(answer):
        return True
    return _large_arguments(answer) or _large_powers(answer)


def _large_arguments(text: str) -> bool:
    """Factorials and binomials of anything but small numbers and short sums."""
    operands = [_before(text, match.start()) for match in _FACTORIAL.finditer(text)]
    for match in re.finditer(r"\\[dt]?binom|\\choose", text):
        operands += _groups(text, match.end())
    return any(
        "^" in operand
        or "!" in operand
        or any(len(digits) > _MAX_ARGUMENT_DIGITS for digits in _DIGITS.findall(operand))
        for operand in operands
    )


def _large_powers(text: str) -> bool:
    degree = 0.0
    for place, sign in enumerate(text):
        if sign != "^":
            continue
        exponent, base = _after(text, place + 1), _before(text, place)
        value = scalar(exponent)
        if value is None:
            number = not _LETTER.search(exponent) and _DIGITS.search(exponent)
            if (number and re.search(r"[\^!]|binom", exponent)) or re.search("[0-9]{5}", exponent):
                return True
            continue
        if abs(value) > _MAX_EXPONENT:
            return True
        if re.search(r"[A-Za-z]", base) and re.search(r"[-+]", base):
            degree += abs(value)
    return degree > _MAX_DEGREE


def _before(text: str, place: int) -> str:
    """The number, letter or group that ends before a place."""
    end = place
    while end and text[end - 1].isspace():
        end -= 1
    start = end - 1
    if start >= 0 and text[start] in _CLOSING:
        depth = 0
        while start >= 0:
            depth += (text[start] in _CLOSING) - (text[start] in _OPENING)
            if depth == 0:
                break
            start -= 1
    else:
        while start > 0 and text[start].isdigit() and text[start - 1].isdigit():
            start -= 1
    return text[max(start, 0) : end]


def _after(text: str, place: int) -> str:
    """The group or the sign that begins at a place, without its braces; of a bare number all digits."""
    groups = _groups(text, place)
    if groups:
        return groups[0]
    match = re.compile(r"\s*(-?[0-9]+|\\[A-Za-z]+|.)?", re.DOTALL).match(text, place)
    return match[1] or "" if match else ""


def _groups(text: str, place: int) -> list[str]:
    """The groups in braces, at most two, that follow a place at once."""
    found = []
    while len(found) < 2:
        while place < len(text) and text[place].isspace():
            place += 1
        if place >= len(text) or text[place] != "{":
            break
        depth, end = 0, place
        while end < len(text):
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
            if depth == 0:
                break
        found.append(text[place + 1 : end - 1])
        place = end
    return found
