"""Tells an answer that commits itself from one that keeps several ways open."""

import re

_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly|probably|not)\b|\\(?:lor|vee|neg|lnot)\b|或", re.IGNORECASE)


def hedged(answer: str, gold: str) -> bool:
    """Whether the answer names alternatives, or negates, where the gold answer does not.

    "A or B or C" contains the right letter and is wrong all the same.
    """
    if answer.strip() == gold.strip():
        return False
    allowed = {match.lower() for match in _HEDGE.findall(gold)}
    return any(match.lower() not in allowed for match in _HEDGE.findall(answer)) or answer.count("\\boxed") > 1
