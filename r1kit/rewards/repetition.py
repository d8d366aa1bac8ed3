"""How much of a text says again what it said before."""

import re

_PIECE = re.compile(r"[\u3400-\u9fff]|\w+|[^\w\s]")
_SIZE = 8


def repetition_share(text: str) -> float:
    """Share of the text's pieces that lie in a run of eight which occurred before; 0 for short texts.

    Pieces are words, Chinese characters and signs. A loop of any period approaches 1; a chain of steps that differ in
    their numbers stays near 0. Time and space are linear in the text's length.
    """
    pieces = _PIECE.findall(text)
    if len(pieces) < 2 * _SIZE:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = covered_to = 0
    for start in range(len(pieces) - _SIZE + 1):
        run = tuple(pieces[start : start + _SIZE])
        if run in seen:
            repeated += start + _SIZE - max(start, covered_to)
            covered_to = start + _SIZE
        seen.add(run)
    return repeated / len(pieces)
