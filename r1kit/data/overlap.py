"""Which benchmark text does a text repeat? Whole, by a run of ten words, with other numbers, or in other words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from r1kit.data.normalise import normalise
from r1kit.data.texts import GRAM, Hashes, Text, Vocabulary, bands, distinct, join, sketch

Method = Literal["exact", "10-gram", "renumbered", "near-duplicate", "reworded"]

MAX_ROWS_OF_A_PHRASE = 2
"""A run of words in more benchmark rows than this is a phrase, and tells nothing of any one of them."""
MIN_SHARE = 0.3
"""Of a benchmark text's runs of ten words, so many must be there: one alone is most often a figure of speech."""
MIN_RUN_WORDS = 20
"""Or one run must be as long as this, whatever its share."""
MIN_RENUMBERED_SHARE = 0.7
"""Of a benchmark text's runs with all numbers alike, so many must be there."""
MIN_RENUMBERED_RUNS = 4
MIN_SIMILARITY = 0.45
"""Jaccard similarity of words and pairs of words, rare ones weighing more, from which texts are near-duplicates."""
MIN_TELLING_WORDS = 12
"""A text with fewer different words is too short to have near-duplicates."""
MIN_REWORDED_SIMILARITY = 0.25
"""From which texts with the very same numbers are one text in other words."""
MIN_REWORDED_NUMBERS = 2
_BAND_ROWS = 3
_MIN_SKETCH = 22
"""So many of a sketch's 96 numbers must agree before two texts are compared; a third agree at the least similarity."""


@dataclass(frozen=True)
class Held:
    """A benchmark's text."""

    row: str
    """Id of its row."""
    field: str
    text: str
    whole: bool = False
    """It counts as a whole only, because its parts are a template's."""


@dataclass(frozen=True)
class Overlap:
    """A text that repeats a benchmark's, and the proof."""

    field: str
    """Of the row looked at; several joined by + where the text is spread over them."""
    benchmark: str
    """Id of the benchmark row."""
    benchmark_field: str
    method: Method
    share: float
    """Of the benchmark's text: runs of ten words found, or Jaccard similarity; 1 where it is equal."""
    text: str
    """What they share, shortened; for a near-duplicate the benchmark's own words."""

    def __str__(self) -> str:
        share = "" if self.method == "exact" else f", {self.share:.0%}"
        return f"{self.benchmark} ({self.benchmark_field}, {self.method}{share}): {self.text[:120]!r}"


class OverlapIndex:
    """Benchmark texts, ready to be asked about any other."""

    def __init__(self, held: Iterable[Held]) -> None:
        self._held = list(held)
        self._vocabulary = Vocabulary()
        self._exact: dict[str, int] = {}
        for place, text in enumerate(self._held):
            if same := normalise(text.text):
                self._exact.setdefault(same, place)
        self._most_parts = max((same.count(" ") + 1 for same in self._exact), default=0)
        read = {place: self._vocabulary.read(text.text) for place, text in enumerate(self._held) if not text.whole}
        rows = {name: number for number, name in enumerate(dict.fromkeys(text.row for text in self._held))}
        row_of = np.array([rows[text.row] for text in self._held], np.int64)
        self._grams = _Table({place: distinct(text.grams(masked=False)) for place, text in read.items()}, row_of)
        self._masked = _Table({place: distinct(text.grams(masked=True)) for place, text in read.items()}, row_of)
        self._near = _Near({p: text for p, text in read.items() if text.num_telling >= MIN_TELLING_WORDS})

    def find(self, fields: Mapping[str, str], whole: bool = False) -> Overlap | None:
        """What of the benchmarks a row's fields repeat, alone or one after the other; None if nothing.

        Args:
            fields: name → text, in the order in which they are read.
            whole: only as whole texts, for rows that follow a generator's template.
        """
        filled = {name: text for name, text in fields.items() if text.strip()}
        if (same := self._by_spelling(filled)) or whole or not filled or not (self._near or self._grams):
            return same
        read = {name: self._vocabulary.read(text) for name, text in filled.items()}
        joined = join(read.values())
        return self._by_runs(read, joined) or self._by_likeness({**read, _joined(read): joined})

    def _by_spelling(self, fields: Mapping[str, str]) -> Overlap | None:
        """The whole of a text."""
        # Texts of more parts than any benchmark's have are most of all characters: they need not be spelled out.
        most = self._most_parts
        spelled = {name: normalise(t) for name, t in fields.items() if len(t.split(None, most)) <= most}
        if len(spelled) == len(fields) > 1:
            spelled[_joined(fields)] = " ".join(filter(None, spelled.values()))
        for name, text in spelled.items():
            if (place := self._exact.get(text)) is not None:
                return self._overlap(name, place, "exact", 1.0, self._held[place].text)
        return None

    def _by_runs(self, read: Mapping[str, Text], text: Text) -> Overlap | None:
        """A long run of the same words, or of the same but for numbers."""
        grams = text.grams(masked=False)
        for place, hits in self._grams.owners(grams):
            share, (start, length) = self._grams.share(grams[hits], place), _longest(hits)
            if share >= MIN_SHARE or length >= MIN_RUN_WORDS:
                return self._overlap(_where(read, start, length), place, "10-gram", share, text.run(start, length))
        masked = text.grams(masked=True)
        for place, hits in self._masked.owners(masked):
            share, start = self._masked.share(masked[hits], place), int(hits[0])
            if share >= MIN_RENUMBERED_SHARE and self._masked.size(place) >= MIN_RENUMBERED_RUNS:
                return self._overlap(_where(read, start, GRAM), place, "renumbered", share, text.run(start))
        return None

    def _by_likeness(self, texts: Mapping[str, Text]) -> Overlap | None:
        """Mostly the same words, in whatever order; fewer where all numbers are the same."""
        for name, text in texts.items():
            if (alike := self._near.find(text)) is not None:
                place, share = alike
                method = "near-duplicate" if share >= MIN_SIMILARITY else "reworded"
                return self._overlap(name, place, method, share, self._held[place].text)
        return None

    def _overlap(self, name: str, place: int, method: Method, share: float, text: str) -> Overlap:
        held = self._held[place]
        return Overlap(name, held.row, held.field, method, share, " ".join(text.split())[:400])


class _Table:
    """Runs of words → the texts that have them."""

    def __init__(self, grams: Mapping[int, Hashes], row_of: NDArray[np.int64]) -> None:
        owners = np.repeat(np.array(list(grams), np.int32), [len(own) for own in grams.values()])
        values = np.concatenate([*grams.values(), np.zeros(0, np.uint64)])
        order = np.lexsort((owners, values))
        values, owners = values[order], owners[order]
        keep = values != 0
        values, owners = values[keep], owners[keep]
        _, start, inverse = np.unique(values, return_index=True, return_inverse=True)
        new_row = np.r_[True, row_of[owners[1:]] != row_of[owners[:-1]]] if len(owners) else np.zeros(0, bool)
        new_row[start] = True
        rows = np.bincount(inverse, new_row)[inverse] if len(values) else np.zeros(0)
        keep = rows <= MAX_ROWS_OF_A_PHRASE
        self._values, self._owners = values[keep], owners[keep]
        self._sizes = np.bincount(self._owners, minlength=len(row_of))
        bits = min(26, max(12, int(np.log2(len(self._values) + 1)) + 6))
        self._shift = np.uint64(64 - bits)
        self._there = np.zeros(1 << bits, bool)
        self._there[self._values >> self._shift] = True

    def __bool__(self) -> bool:
        return len(self._values) > 0

    def size(self, place: int) -> int:
        """Different runs of a text that are not phrases."""
        return int(self._sizes[place])

    def share(self, hits: Hashes, place: int) -> float:
        """How much of a text's runs these are."""
        return len(distinct(hits)) / self.size(place)

    def owners(self, grams: Hashes) -> list[tuple[int, NDArray[np.int64]]]:
        """Texts with any of these runs, those with the most first, and the places of the runs."""
        places = self._hits(grams)
        if not len(places):
            return []
        low, high = (np.searchsorted(self._values, grams[places], side) for side in ("left", "right"))
        counts = high - low
        offsets = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        owners, where = self._owners[np.repeat(low, counts) + offsets], np.repeat(places, counts)
        order = np.argsort(owners, kind="stable")
        found = np.split(where[order], np.flatnonzero(np.diff(owners[order])) + 1)
        names = np.unique(owners).tolist()
        return sorted(zip(names, found, strict=True), key=lambda item: (-len(item[1]), item[0]))

    def _hits(self, grams: Hashes) -> NDArray[np.int64]:
        """Places of the runs that are there."""
        maybe = np.flatnonzero(self._there[grams >> self._shift]) if len(self._values) else np.zeros(0, np.int64)
        if not len(maybe):
            return maybe
        at = np.searchsorted(self._values, grams[maybe])
        at[at == len(self._values)] = 0
        return maybe[(self._values[at] == grams[maybe]) & (grams[maybe] != 0)]


class _Near:
    """Sets of shingles by their sketches, and by the numbers of their texts."""

    def __init__(self, texts: Mapping[int, Text]) -> None:
        self._sets = sets = {place: text.shingles() for place, text in texts.items()}
        self._buckets: dict[int, list[int]] = {}
        self._largest = max(map(len, sets.values()), default=0)
        self._known, counts = np.unique(np.concatenate([*sets.values(), np.zeros(0, np.uint64)]), return_counts=True)
        self._rarity = np.log(1 + len(sets) / np.append(counts, 30))
        self._sketches = {place: sketch(shingles) for place, shingles in sets.items()}
        for place, own in self._sketches.items():
            for band in bands(own, _BAND_ROWS).tolist():
                self._buckets.setdefault(band, []).append(place)
        self._by_numbers: dict[bytes, list[int]] = {}
        for place, text in texts.items():
            if len(numbers := text.numbers) >= MIN_REWORDED_NUMBERS:
                self._by_numbers.setdefault(numbers.tobytes(), []).append(place)

    def __bool__(self) -> bool:
        return bool(self._sets)

    def find(self, text: Text) -> tuple[int, float] | None:
        """The most similar text's number and how similar it is, where that is enough."""
        if not self._sets or len(text.words) * MIN_SIMILARITY > self._largest or text.num_telling < MIN_TELLING_WORDS:
            return None
        shingles = text.shingles()
        own = sketch(shingles)
        near = {p for band in bands(own, _BAND_ROWS).tolist() for p in self._buckets.get(band, ())}
        near = [place for place in sorted(near) if np.count_nonzero(self._sketches[place] == own) >= _MIN_SKETCH]
        best = self._closest(shingles, near)
        if best is not None and best[1] >= MIN_SIMILARITY:
            return best
        best = self._closest(shingles, self._by_numbers.get(text.numbers.tobytes(), ()))
        return best if best is not None and best[1] >= MIN_REWORDED_SIMILARITY else None

    def _closest(self, shingles: Hashes, places: Iterable[int]) -> tuple[int, float] | None:
        """Which of these texts is the most similar, and how similar it is."""
        found = [(self._similarity(shingles, self._sets[place]), -place) for place in places]
        return (-max(found)[1], max(found)[0]) if found else None

    def _similarity(self, one: Hashes, other: Hashes) -> float:
        """Jaccard similarity, each shingle weighing as much as it is rare among the benchmarks."""
        shared = self._weight(np.intersect1d(one, other, assume_unique=True))
        return shared / (self._weight(one) + self._weight(other) - shared)

    def _weight(self, shingles: Hashes) -> float:
        at = np.searchsorted(self._known, shingles)
        at[at == len(self._known)] = 0
        known = self._known[at] == shingles
        return float(self._rarity[np.where(known, at, -1)].sum())


def _longest(places: NDArray[np.int64]) -> tuple[int, int]:
    """Where the longest stretch of neighbouring runs begins, and how many words it has."""
    stretches = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    best = max(stretches, key=len)
    return int(best[0]), len(best) + GRAM - 1


def _joined(fields: Iterable[str]) -> str:
    return "+".join(fields)


def _where(read: Mapping[str, Text], start: int, length: int) -> str:
    """The fields that a run of words lies in, where they stand one after another."""
    found, end = [], 0
    for name, text in read.items():
        begin, end = end, end + len(text.words)
        if begin < start + length and start < end:
            found.append(name)
    return _joined(found)
