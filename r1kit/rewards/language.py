"""The language consistency reward: words of the target language over all words (arXiv 2501.12948, section 2.3.2)."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1kit.rows import Language

_NEUTRAL = re.compile(r"</?(?:think|answer)>|\\[A-Za-z]+|https?://\S+")
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002ebef]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['\u2019][A-Za-z]+)?")
_OTHER = re.compile(r"[\u0370-\u1fff\u3040-\u30ff\uac00-\ud7af]+")
_DETECT_FROM_WORDS = 40
_CHINESE_CODES = frozenset({"zh", "zh-Hant"})


def language_share(text: str, target: Language) -> float:
    """Share of the words that are in the target language; 1 where there are no words.

    A Chinese character counts as a word. Digits, signs, LaTeX commands, tags, single Latin letters and short capitals
    (variables, spelled letters, segments) count for neither side. Scripts alone tell Chinese from English; where an
    English text is long enough to judge, other languages of its script are found with CLD2.
    """
    text = _NEUTRAL.sub(" ", text)
    chinese, other = len(_CHINESE.findall(text)), len(_OTHER.findall(text))
    words = _LATIN.findall(text)
    latin = len(words) - sum(count for word, count in Counter(words).items() if _names_something(word))
    total = chinese + latin + other
    if total == 0:
        return 1.0
    if target == "zh":
        return chinese / total
    foreign = _foreign_share(words) if latin >= _DETECT_FROM_WORDS else 0.0
    return latin * (1.0 - foreign) / total


def _names_something(word: str) -> bool:
    """Whether a Latin word is a variable, a spelled letter, a segment AB or an abbreviation: at home everywhere."""
    return len(word) == 1 or (len(word) <= 4 and word.isupper())


def _foreign_share(words: list[str]) -> float:
    """Share of a text in Latin script, by bytes, that is surely in a language other than English."""
    import pycld2  # compiled, and needed for long texts only

    try:
        reliable, _, details = pycld2.detect(" ".join(words), isPlainText=True, bestEffort=False)
    except pycld2.error:
        return 0.0
    known = [(code, percent) for _, code, percent, _ in details if code != "un"]
    foreign = sum(percent for code, percent in known if code != "en" and code not in _CHINESE_CODES)
    return foreign / 100 if reliable else 0.0
