"""Does a text overlap with a benchmark? Equal texts, and 10-grams that only one benchmark question has."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from r1kit.data.normalise import normalise, words
from r1kit.rows import Problem

SIZE = 10
"""Words of a shared run that count as overlap (arXiv 2501.12948, supplementary: 10-grams)."""
MAX_ROWS_OF_A_PHRASE = 2
"""A run of words in more benchmark rows than this is a phrase, and tells nothing of any one of them."""


class BenchmarkIndex:
    """Benchmark questions and solutions, ready to be asked about any text.

    Departure from the paper: runs that many rows share do not count. Every AIME question ends on "where m and n are
    relatively prime positive integers", and every word-sorting task begins alike; taken at its word, the rule would
    drop thousands of unrelated rows (the false alarms seen elsewhere on templated questions). For the same reason
    the problems of procedural generators count as whole texts only. As the authors say, paraphrases escape.
    """

    def __init__(self, problems: Iterable[Problem], ngrams: bool = True) -> None:
        self._exact: dict[str, str] = {}
        self._grams: dict[int, str] = {}
        num_rows: Counter[int] = Counter()
        for problem in problems:
            found: set[int] = set()
            for text in (problem.prompt, problem.solution):
                if same := normalise(text):
                    self._exact.setdefault(same, problem.id)
                if ngrams and problem.verifier != "gym":
                    found.update(_grams(words(text)))
            num_rows.update(found)
            for gram in found:
                self._grams.setdefault(gram, problem.id)
        for gram, count in num_rows.items():
            if count > MAX_ROWS_OF_A_PHRASE:
                del self._grams[gram]

    def overlap(self, text: str, ngrams: bool = True) -> str | None:
        """The id of a benchmark row that the text repeats, or None.

        Args:
            ngrams: also look for parts; off for texts that follow a generator's template.
        """
        if (same := self._exact.get(normalise(text))) is not None:
            return same
        if ngrams and self._grams:
            for gram in _grams(words(text)):
                if (row := self._grams.get(gram)) is not None:
                    return row
        return None


def _grams(text: Sequence[str]) -> Iterable[int]:
    for start in range(len(text) - SIZE + 1):
        run = " ".join(text[start : start + SIZE])
        yield int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big")
