"""Texts as numbers: a hash a word, a hash for each run of ten words, and sketches that tell how alike two texts are."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1kit.data.normalise import words

GRAM = 10
"""Words of a run (arXiv 2501.12948, supplementary: 10-grams)."""
NUM_HASHES = 96
"""Numbers of a MinHash sketch (Broder 1997): of each the chance to be equal is the Jaccard similarity of two sets."""
_MIN_TELLING_WORDS = 4
"""A run with fewer words that are no numbers says nothing."""
_MAX_KNOWN_WORDS = 1 << 20

Hashes = NDArray[np.uint64]

_dice = np.random.default_rng(20250122)
_FACTORS = _dice.integers(0, 1 << 63, GRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_PERMUTATIONS = _dice.integers(0, 1 << 63, (NUM_HASHES, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_NUMBER = np.uint64(_dice.integers(1 << 63))


@dataclass(frozen=True)
class Text:
    """One text's words."""

    words: Sequence[bytes]
    exact: Hashes
    """[n] a hash a word."""
    masked: Hashes
    """[n] the same, but all numbers alike."""

    @property
    def num_telling(self) -> int:
        """Different words that are no numbers."""
        return len(distinct(self.masked[self.masked != _NUMBER]))

    @property
    def numbers(self) -> Hashes:
        """[k] its words that are numbers, each as often as it stands there, in an order of their own."""
        return np.sort(self.exact[self.masked == _NUMBER])

    def grams(self, masked: bool) -> Hashes:
        """[n - 9] a hash for each run of ten words; 0 for a run of little but numbers, which says nothing."""
        values = self.masked if masked else self.exact
        count = len(values) - GRAM + 1
        if count <= 0:
            return np.zeros(0, np.uint64)
        result = np.zeros(count, np.uint64)
        for place, factor in enumerate(_FACTORS):
            result += values[place : place + count] * factor
        telling = np.concatenate([[0], np.cumsum(self.masked != _NUMBER)])
        result[telling[GRAM:] - telling[:-GRAM] < _MIN_TELLING_WORDS] = 0
        return result

    def run(self, start: int, length: int = GRAM) -> str:
        """Words from a place on, as a person reads them."""
        return b" ".join(self.words[start : start + length]).decode()

    def shingles(self, numbers_alike: bool = True) -> Hashes:
        """[k] the set of its words and of its pairs of neighbours, sorted."""
        values = self.masked if numbers_alike else self.exact
        return distinct(np.concatenate([values, values[:-1] * _FACTORS[0] + values[1:] * _FACTORS[1]]))


class Vocabulary:
    """Words seen, with their hashes: a word's is computed once."""

    def __init__(self) -> None:
        self._clear()

    def read(self, text: str) -> Text:
        """The words of a text."""
        found = words(text)
        if len(self._codes) > _MAX_KNOWN_WORDS:
            self._clear()
        codes = self._codes
        try:  # most texts have no word that is new
            places = np.fromiter(map(codes.__getitem__, found), np.int64, len(found))
        except KeyError:
            self._learn(set(found).difference(codes))
            places = np.fromiter(map(codes.__getitem__, found), np.int64, len(found))
        return Text(found, self._exact[places], self._masked[places])

    def _learn(self, new_words: Iterable[bytes]) -> None:
        for word in new_words:
            code = self._codes[word] = len(self._codes)
            if code == len(self._exact):
                self._exact, self._masked = (np.concatenate([table, table]) for table in (self._exact, self._masked))
            value = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
            self._exact[code] = value
            self._masked[code] = _NUMBER if word[:1].isdigit() else value

    def _clear(self) -> None:
        self._codes: dict[bytes, int] = {}
        self._exact: Hashes = np.zeros(1024, np.uint64)
        self._masked: Hashes = np.zeros(1024, np.uint64)


def distinct(values: Hashes) -> Hashes:
    """[k] the values that there are, sorted."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def join(texts: Iterable[Text]) -> Text:
    """Texts one after another."""
    parts = list(texts)
    if len(parts) == 1:
        return parts[0]
    found = list(chain.from_iterable(text.words for text in parts))
    return Text(found, np.concatenate([t.exact for t in parts]), np.concatenate([t.masked for t in parts]))


def sketch(shingles: Hashes) -> Hashes:
    """[96] MinHash of a set that is not empty."""
    return ((shingles * _PERMUTATIONS) >> np.uint64(16)).min(1)


def bands(sketches: Hashes, rows: int) -> NDArray[Any]:
    """[..., 96 / rows] a hash a band of a sketch: texts that are alike share one with high probability."""
    parts = sketches.reshape(*sketches.shape[:-1], -1, rows)
    factors = np.arange(1, 2 * rows, 2, dtype=np.uint64) * _FACTORS[2]
    places = np.arange(parts.shape[-2], dtype=np.uint64) * _FACTORS[3]
    return (parts * factors).sum(-1, dtype=np.uint64) + places
