"""Rewards and filters that only read the text."""

import re

from r1kit.chat import parse
from r1kit.rows import Language

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]{2,}")


def format_reward(completion: str, opens_think: bool = False) -> float:
    """1 for exactly one think block followed by exactly one answer block."""
    return float(parse(completion, opens_think).well_formed)


def language_share(text: str, target: Language) -> float:
    """Share of words in the target language: Latin words and Chinese characters count, the rest is neutral."""
    chinese, latin = len(_CHINESE.findall(text)), len(_LATIN_WORD.findall(text))
    if chinese + latin == 0:
        return 1.0
    return (chinese if target == "zh" else latin) / (chinese + latin)


def repetition_share(text: str, size: int = 8) -> float:
    """Share of word n-grams that occurred before."""
    words = text.split()
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def readable(completion: str, language: Language, opens_think: bool = False) -> str | None:
    """Why a completion is not fit to learn from, or None."""
    think = parse(completion, opens_think).think or ""
    if language_share(think, language) < 0.98:
        return "mixed languages"
    if "```" in think:
        return "code block in the chain"
    if repetition_share(think) > 0.3:
        return "repetition"
    if any(len(paragraph) > 4000 for paragraph in think.split("\n")):
        return "very long paragraph"
    return None
