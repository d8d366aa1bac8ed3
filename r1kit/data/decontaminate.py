"""Benchmark problems against training rows and samples: what may be trained on."""

from collections.abc import Iterable

from r1kit.data.overlap import Held, Overlap, OverlapIndex
from r1kit.data.records import AnyRow
from r1kit.rows import PreferencePair, Problem


class BenchmarkIndex:
    """Benchmark questions and solutions, ready to be asked about any row.

    Departures from the paper (arXiv 2501.12948, supplementary: 10-grams alone): near-duplicates and questions with
    other numbers are found too. Runs of words that many benchmark rows share do not count: every AIME question ends on
    "where m and n are relatively prime positive integers", and taken at its word the rule would drop thousands of
    unrelated rows. For the same reason the problems of procedural generators count as whole texts only.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._index = OverlapIndex(
            Held(problem.id, name, text, whole=problem.verifier == "gym")
            for problem in problems
            for name, text in (("prompt", problem.prompt), ("solution", problem.solution))
            if text
        )

    def overlap(self, row: AnyRow, whole: bool = False) -> Overlap | None:
        """What of the benchmarks a row repeats, with the proof; None if nothing.

        Args:
            whole: look at whole texts only; for rows that follow a generator's template.
        """
        return self._index.find(texts_of(row), whole)

    def sampled(self, response: str) -> str | None:
        """What of the benchmarks a model's answer repeats, in words."""
        found = self._index.find({"response": response})
        return None if found is None else str(found)


def texts_of(row: AnyRow) -> dict[str, str]:
    """What of a training row could be a benchmark's, by field."""
    if isinstance(row, Problem):
        return {"prompt": row.prompt, "solution": row.solution}
    if isinstance(row, PreferencePair):
        return {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
    return {"prompt": row.prompt, "response": row.response}
