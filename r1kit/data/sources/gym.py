"""Procedural problems of reasoning-gym in its own words, with its own scorers (arXiv 2505.24760)."""

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from r1kit.data.config import SourceEntry
from r1kit.data.source import Source
from r1kit.random import derive_seed
from r1kit.rows import Problem

LICENCE = "Apache-2.0"
_SIZE = 10_000_000


def _source(dataset: str, **options: Sequence[float]) -> Source:
    """One data set of reasoning-gym; its options are those of its configuration."""

    def problems(seed: int, limit: int, entry: SourceEntry) -> Iterator[Problem]:
        import reasoning_gym  # takes two seconds; most profiles' sources do not need it

        chosen = {name: allowed[0] for name, allowed in options.items()} | entry.options
        # It seeds entry i with seed + i: neighbouring seeds would give the same problems again.
        far_apart = derive_seed("gym", dataset, seed) % 2**48
        items = reasoning_gym.create_dataset(dataset, seed=far_apart, size=_SIZE, **chosen)
        for index in range(limit):
            item = items[index]
            yield Problem(
                id=f"gym_{dataset}/{seed}-{index}",
                source=f"gym_{dataset}",
                licence=LICENCE,
                prompt=item["question"],
                verifier="gym",
                answer=str(item["answer"]),
                benchmark=entry.benchmark,
                meta=json.dumps({"dataset": dataset, "entry": item}, sort_keys=True),
            )

    def benchmarks(seed: int, limit: int, entry: SourceEntry) -> Iterator[Problem]:
        named = entry.model_copy(update={"benchmark": entry.benchmark or f"gym_{dataset}"})
        return problems(seed, limit, named)

    return Source(
        name=f"gym_{dataset}",
        licence=LICENCE,
        generators={"problems": problems, "benchmarks": benchmarks},
        options=options,
        revision=f"reasoning-gym {version('reasoning-gym')}",
        note="made from the seed",
    )


GYM = (
    _source("chain_sum", min_terms=(2, 20), max_terms=(3, 20), min_digits=(1, 9), max_digits=(2, 9)),
    _source("leg_counting", min_animals=(2, 20), max_animals=(4, 20), min_instances=(1, 20), max_instances=(3, 20)),
    _source("letter_counting", min_words=(1, 20), max_words=(3, 20)),
    _source("gcd", min_numbers=(2, 5), max_numbers=(2, 5), min_value=(1, 1000), max_value=(100, 100000)),
)
"""Easy by default: a pair of numbers is the range that an option may be set to, its start the default."""
