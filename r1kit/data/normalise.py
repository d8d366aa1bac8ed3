"""When two texts are the same, and which words a text is made of."""

import re
import unicodedata

_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3400-\u9fff\uf900-\ufaff]+")


def normalise(text: str) -> str:
    """One spelling for texts that differ in case, white space or Unicode form alone."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Runs of letters and digits of the normalised text; each Chinese character is a word."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
