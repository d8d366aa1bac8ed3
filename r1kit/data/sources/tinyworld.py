"""The world of profile `tiny`, made on the spot (r1kit/tinyworld.py)."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from r1kit import tinyworld
from r1kit.data.config import SourceEntry
from r1kit.data.records import AnyRow, split
from r1kit.data.source import Source
from r1kit.rows import PreferencePair, Problem, SftRow

_HELDOUT_SHARE = 0.2
_AnyRow = TypeVar("_AnyRow", bound=AnyRow)


def _ours(rows: Iterable[_AnyRow]) -> Iterator[_AnyRow]:
    """Rows under the name that the table of sources has."""
    for row in rows:
        yield row.model_copy(update={"source": "tinyworld", "id": f"tinyworld/{row.id}"})


def _pretrain(seed: int, limit: int, _entry: SourceEntry) -> Iterator[SftRow]:
    return _ours(tinyworld.pretrain(seed, limit))


def _problems(seed: int, limit: int, _entry: SourceEntry) -> Iterator[Problem]:
    return _ours(tinyworld.problems(seed, limit))


def _benchmarks(seed: int, limit: int, entry: SourceEntry) -> Iterator[Problem]:
    # Each task is a benchmark of its own and keeps its name, whatever the entry's: one would hide the other.
    return _ours(tinyworld.problems(seed, limit, entry.benchmark or "tinyworld"))


def _chains(seed: int, limit: int, _entry: SourceEntry) -> Iterator[SftRow]:
    return _ours(tinyworld.chains(seed, limit))


def _instructions(seed: int, limit: int, _entry: SourceEntry) -> Iterator[SftRow]:
    return _ours(tinyworld.instructions(seed, limit))


def _preferences(seed: int, limit: int, _entry: SourceEntry) -> Iterator[PreferencePair]:
    for pair in _ours(tinyworld.preferences(seed, limit)):
        # The world has few general prompts, so a split by place would have the same pairs on both sides.
        yield pair.model_copy(update={"split": split(pair.prompt, _HELDOUT_SHARE)})


TINYWORLD = Source(
    name="tinyworld",
    licence=tinyworld.LICENCE,
    generators={
        "pretrain": _pretrain,
        "problems": _problems,
        "chains": _chains,
        "instructions": _instructions,
        "preferences": _preferences,
        "benchmarks": _benchmarks,
    },
    revision="r1kit/tinyworld.py",
    note="made from the seed by r1kit and reasoning-gym",
)
