"""Problems of reasoning-gym: what its own scorers accept, and nothing else."""

import re
from typing import Any

import pytest

from r1kit.chat import parse
from r1kit.data.config import Kind, SourceEntry
from r1kit.data.records import Placed
from r1kit.data.source import Source
from r1kit.data.sources.gym import GYM
from r1kit.rewards import VerifierPool, check_gold


def rows(source: Source, kind: Kind = "problems", seed: int = 5, limit: int = 4, **options: int) -> list[Any]:
    entry = SourceEntry(source=source.name, limit=limit, options=dict(options))
    found = [item.row for item in source.rows(kind, entry, [], seed) if isinstance(item, Placed)]
    assert len(found) == limit
    return found


def test_gold_scores_one_and_another_answer_less() -> None:
    with VerifierPool() as pool:
        problems = [row for source in GYM for row in rows(source)]
        assert all(verdict.score == 1 for verdict in check_gold(pool, problems))
        wrong = pool.verify(problems, ["<think> so </think> <answer> 987654 </answer>"] * len(problems))
        assert all(verdict.score < 1 for verdict in wrong)  # its scorers give the form of an answer a little


@pytest.mark.parametrize("source", GYM, ids=lambda source: source.name)
def test_the_same_seed_gives_the_same_problems_and_another_others(source: Source) -> None:
    assert rows(source) == rows(source)
    assert {row.prompt for row in rows(source)} != {row.prompt for row in rows(source, seed=6)}


def test_options_are_the_data_sets_own() -> None:
    chain_sum = GYM[0]
    assert all(
        row.prompt.count(" + ") + row.prompt.count(" - ") == 4 for row in rows(chain_sum, min_terms=5, max_terms=5)
    )
    with pytest.raises(ValueError, match=r"gym_chain_sum has no option 'terms'"):
        rows(chain_sum, terms=5)
    with pytest.raises(ValueError, match=r"min_terms of gym_chain_sum is 50"):
        rows(chain_sum, min_terms=50)


def test_benchmark_rows_carry_the_sources_name() -> None:
    assert {row.benchmark for row in rows(GYM[1], "benchmarks")} == {GYM[1].name}


def test_chains_end_in_the_right_answer() -> None:
    for source in (source for source in GYM if "chains" in source.kinds):
        for problem, row in zip(rows(source, limit=30), rows(source, "chains", limit=30), strict=True):
            parsed = parse(row.response)
            assert row.prompt == problem.prompt and parsed.well_formed and parsed.answer == problem.answer
            assert re.findall(r"-?\d+", parsed.think or "")[-1] == problem.answer
