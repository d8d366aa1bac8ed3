"""Near-duplicates within one set of texts, however many: 0.5 KB a text, found at the end."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from r1kit.data.texts import NUM_HASHES, Hashes, Vocabulary, bands, sketch

_BAND_ROWS = 8
"""Twelve bands of eight: texts of similarity 0.9 share one with a chance of 0.999, of 0.6 with 0.18."""
_MIN_WORDS = 8
_READ_CHARACTERS = 4000
"""What lies behind is not looked at: texts that begin alike for so long are duplicates."""


class NearDuplicates:
    """Texts as sketches, in the order in which they came."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()
        self._sketches: list[NDArray[np.uint32]] = []
        self._bands: list[Hashes] = []
        self._numbers: list[int] = []

    def add(self, numbers: Sequence[int], texts: Sequence[str]) -> None:
        """Take more texts.

        Args:
            numbers: what each is called.
        """
        read = [self._vocabulary.read(text[:_READ_CHARACTERS]) for text in texts]
        chosen = [place for place, text in enumerate(read) if len(text.words) >= _MIN_WORDS]
        if not chosen:
            return
        sketches = np.stack([sketch(read[place].shingles(numbers_alike=False)) for place in chosen])
        self._sketches.append((sketches >> np.uint64(16)).astype(np.uint32))
        self._bands.append(bands(sketches, _BAND_ROWS))
        self._numbers += [numbers[place] for place in chosen]

    def pairs(self, min_similarity: float) -> Iterator[tuple[int, int, float]]:
        """Each text with an earlier one that is so similar to it: its number, the other's, the estimate."""
        if not self._numbers:
            return
        sketches, all_bands = np.concatenate(self._sketches), np.concatenate(self._bands)
        best = np.full(len(sketches), -1, np.int64)
        shares = np.zeros(len(sketches))
        for band in all_bands.T:
            order = np.argsort(band, kind="stable")
            heads = np.r_[True, band[order][1:] != band[order][:-1]]
            first = order[np.maximum.accumulate(np.where(heads, np.arange(len(order)), 0))]
            later, earlier = order[~heads], first[~heads]
            for start in range(0, len(later), 1 << 16):
                own, other = later[start : start + (1 << 16)], earlier[start : start + (1 << 16)]
                alike = (sketches[own] == sketches[other]).sum(1) / NUM_HASHES
                better = alike > shares[own]
                shares[own[better]], best[own[better]] = alike[better], other[better]
        for place in np.flatnonzero(shares >= min_similarity):
            yield self._numbers[place], self._numbers[best[place]], float(shares[place])
