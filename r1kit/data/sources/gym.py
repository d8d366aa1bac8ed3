"""Procedural problems of reasoning-gym in its own words, with its own scorers (arXiv 2505.24760)."""

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any

from r1kit.chat import response
from r1kit.data.config import Kind, SourceEntry
from r1kit.data.source import Generate, Source
from r1kit.random import derive_seed
from r1kit.rows import Problem, SftRow

LICENCE = "Apache-2.0"
_SIZE = 10_000_000


def _source(dataset: str, chain: Callable[[Any], str] | None = None, **options: Sequence[float]) -> Source:
    """One data set of reasoning-gym; its options are those of its configuration.

    Args:
        chain: solves an entry step by step, in words.
    """
    name = f"gym_{dataset}"

    def entries(seed: int, entry: SourceEntry) -> Iterator[tuple[int, Any]]:
        import reasoning_gym  # takes two seconds; most profiles' sources do not need it

        chosen = {option: allowed[0] for option, allowed in options.items()} | entry.options
        # It seeds entry i with seed + i: neighbouring seeds would give the same problems again.
        far_apart = derive_seed("gym", dataset, seed) % 2**48
        items = reasoning_gym.create_dataset(dataset, seed=far_apart, size=_SIZE, **chosen)
        return ((index, items[index]) for index in range(_SIZE))

    def problems(seed: int, limit: int, entry: SourceEntry) -> Iterator[Problem]:
        for index, item in islice(entries(seed, entry), limit):
            yield Problem(
                id=f"{name}/{seed}-{index}",
                source=name,
                licence=LICENCE,
                prompt=item["question"],
                verifier="gym",
                answer=str(item["answer"]),
                benchmark=entry.benchmark,
                meta=json.dumps({"dataset": dataset, "entry": item}, sort_keys=True),
            )

    def benchmarks(seed: int, limit: int, entry: SourceEntry) -> Iterator[Problem]:
        return problems(seed, limit, entry.model_copy(update={"benchmark": entry.benchmark or name}))

    def chains(seed: int, limit: int, entry: SourceEntry) -> Iterator[SftRow]:
        assert chain
        for index, item in islice(entries(seed, entry), limit):
            yield SftRow(
                id=f"{name}/chain-{seed}-{index}",
                source=name,
                licence=LICENCE,
                prompt=item["question"],
                response=response(chain(item), str(item["answer"])),
                kind="chain",
            )

    generators: dict[Kind, Generate] = {"problems": problems, "benchmarks": benchmarks}
    if chain:
        generators["chains"] = chains
    return Source(
        name=name,
        licence=LICENCE,
        generators=generators,
        options=options,
        revision=f"reasoning-gym {version('reasoning-gym')}",
        note="made from the seed",
    )


def _add_up(entry: Any) -> str:
    """`Start with 74. 74 - 15 = 59. 59 + 25 = 84.`"""
    first, *rest = entry["metadata"]["expression"].split()
    total, steps = int(first), [f"Start with {first}."]
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(term) if sign == "+" else total - int(term)
        steps.append(f"{total} {sign} {term} = {after}.")
        total = after
    return " ".join(steps)


def _count_legs(entry: Any) -> str:
    """`An ant has 6 legs, 2 of them have 12: 12 so far.` for each animal."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    total, steps = 0, []
    for animal, count in entry["metadata"]["animals"].items():
        legs = ANIMALS[animal]
        total += count * legs
        steps.append(f"One {animal} has {legs} legs, {count} x {legs} = {count * legs}, so far {total}.")
    return " ".join(steps)


def _count_letters(entry: Any) -> str:
    """`s 1, t 1, r 1, e 1, s 2` after the letter that is looked for."""
    wanted = entry["metadata"]["target_letter"]
    total, steps = 0, []
    for letter in "".join(entry["metadata"]["span"]):
        total += letter.lower() == wanted
        steps.append(f"{letter} {total}")
    return f"Spell it and count {wanted}: " + ", ".join(steps) + "."


GYM = (
    _source("chain_sum", _add_up, min_terms=(2, 20), max_terms=(3, 20), min_digits=(1, 9), max_digits=(2, 9)),
    _source(
        "leg_counting",
        _count_legs,
        min_animals=(2, 20),
        max_animals=(4, 20),
        min_instances=(1, 20),
        max_instances=(3, 20),
    ),
    _source("letter_counting", _count_letters, min_words=(1, 20), max_words=(3, 20)),
    _source("gcd", min_numbers=(2, 5), max_numbers=(2, 5), min_value=(1, 1000), max_value=(100, 100000)),
)
"""Easy by default: a pair of numbers is the range that an option may be set to, its start the default."""
