"""Programs, judged by unit tests: finding the one program of an answer."""

import re

MAX_CHARACTERS = 100_000

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


def program(text: str) -> str | None:
    """The program of an answer: its one code block, or the whole text where there is none; None for several."""
    if "```" not in text:
        return text.strip("\n") or None
    blocks = _FENCE.findall(text)
    return blocks[0] if len(blocks) == 1 and blocks[0].strip() else None
