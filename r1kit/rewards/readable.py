"""The filter of cold-start data and rejection sampling: is a completion fit to be learned from?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from r1kit.chat import parse
from r1kit.rewards.language import language_share
from r1kit.rewards.repetition import repetition_share

if TYPE_CHECKING:
    from r1kit.rows import Language

MIN_LANGUAGE_SHARE = {"en": 0.98, "zh": 0.85}  # Chinese prose keeps foreign names in Latin script
MAX_REPETITION_SHARE = 0.3
MAX_PARAGRAPH_CHARACTERS = 3000


def readable(completion: str, language: Language, opens_think: bool = False) -> str | None:
    """Why a completion is not fit to learn from; None if it is (arXiv 2501.12948, section 2.3.3).

    Its chain (the whole text where there is none) must keep to one language, not repeat itself, hold no code block
    and no very long paragraph, nor any control character.
    """
    parsed = parse(completion, opens_think)
    text = parsed.think if parsed.think is not None else completion
    if any((ord(letter) < 32 and letter not in "\n\r\t") or letter == "\ufffd" for letter in completion):
        return "broken characters"
    if language_share(text, language) < MIN_LANGUAGE_SHARE[language]:
        return "mixed languages"
    if repetition_share(text) > MAX_REPETITION_SHARE:
        return "repetition"
    if parsed.think is not None and "```" in text:
        return "code block in the chain"
    if any(len(line) > MAX_PARAGRAPH_CHARACTERS for line in text.splitlines()):
        return "very long paragraph"
    return None
