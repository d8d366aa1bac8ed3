"""The figures of an evaluation, typed for the exports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

RATES = ("response_tokens", "format_rate", "truncated_share", "one_language_rate", "reflection_rate")


@dataclass(frozen=True)
class Figure:
    """A mean, with its 95 % interval where there is one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Score:
    """The model on one benchmark."""

    benchmark: str
    n: int
    """Problems; 0 where the evaluation does not say."""
    k: int
    """Completions of each."""
    pass_at_1: Figure | None
    """None where no rule can check the answers."""
    cons_at_k: Figure | None
    preference: Figure | None
    """Mean score by the reward models."""
    rates: Mapping[str, float]
    """Those of RATES that the evaluation has."""


def read_scores(evaluation: Mapping[str, Any]) -> Iterator[Score]:
    """The scores of every benchmark in evaluation.json; none of an empty document."""
    for name, scores in (evaluation.get("benchmarks") or {}).items():
        yield Score(
            str(name),
            int(scores.get("n") or 0),
            int(scores.get("k") or 1),
            _figure(scores.get("pass_at_1")),
            _figure(scores.get("cons_at_k")),
            _figure(scores.get("preference")),
            {rate: float(scores[rate]) for rate in RATES if isinstance(scores.get(rate), int | float)},
        )


def _figure(stated: Mapping[str, Any] | None) -> Figure | None:
    if not stated or stated.get("value") is None:
        return None
    return Figure(float(stated["value"]), stated.get("low"), stated.get("high"))
