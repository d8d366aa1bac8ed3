"""How much of a text says again what it said before."""

import re

_WORD = re.compile(r"[\u3400-\u9fff]|\w+")
_SAME_SIGN = re.compile(r"(\S)(?:\s*\1){19,}")
_RUN_WORDS = 12


def repetition_share(text: str) -> float:
    """Share of a text that repeats, between 0 and 1; 0 for short texts.

    Counted are words (Chinese characters) in a run of twelve that occurred before, or else characters in a run of
    twenty equal signs, whichever share is larger. A loop of any short period approaches 1; human solutions with their
    recurring formulae stay below 0.3 in 99 of 100 cases. Time and space are linear in the text's length.
    """
    signs = sum(len(match.group()) for match in _SAME_SIGN.finditer(text)) / max(1, len(text))
    words = _WORD.findall(text)
    if len(words) < 2 * _RUN_WORDS:
        return signs
    seen: set[tuple[str, ...]] = set()
    repeated = covered_to = 0
    for start in range(len(words) - _RUN_WORDS + 1):
        run = tuple(words[start : start + _RUN_WORDS])
        if run in seen:
            repeated += start + _RUN_WORDS - max(start, covered_to)
            covered_to = start + _RUN_WORDS
        seen.add(run)
    return max(signs, repeated / len(words))
