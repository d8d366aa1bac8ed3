"""Evidence of a model: what it was made from, how it was examined, whether its data were let through."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact
from tasks.ledger import Recorded
from tasks.lineage import Ancestry, evaluation_of, origin, validation_of

FORMAT = "r1kit evidence 1"
UNTRAINED = ("data", "validate", "evaluate")
"""Stages that train on nothing: their inputs need no verdict."""

Scores = dict[str, dict[str, float]]
"""Benchmark → problem id → mean score over the samples."""


@dataclass(frozen=True)
class Examined:
    """The scores of one evaluation."""

    accuracy: Scores
    """Shares of right answers, on benchmarks that a rule can check."""
    preference: Scores
    """The reward models' scores, on general prompts."""
    response_tokens: dict[str, float] = field(default_factory=dict)
    """Mean length of a completion per benchmark, in tokens."""
    format_rate: dict[str, float] = field(default_factory=dict)
    """Share of well-formed completions per benchmark."""


def build_evidence(entries: Sequence[Recorded], model: str, artifact: Artifact, behind: Ancestry) -> dict[str, Any]:
    """The evidence document of a model. The same model made the same way gives the same document.

    Raises ValueError where the lineage has a gap.
    """
    if behind.missing:
        lost = behind.missing[0]
        raise ValueError(f"the ledger does not say where {lost.kind} {lost.digest[:19]}… came from; run again")
    examined = evaluation_of(entries, artifact.digest)
    data = training_data(behind)
    verdicts = {a.digest: validation_of(entries, a.digest) for a in data}
    return {
        "format": FORMAT,
        "model": model,
        "model_digest": artifact.digest,
        "evaluation_digest": examined[1].digest if examined else "",
        "data": [
            {"kind": a.kind, "digest": a.digest, "validation_digest": verdict[1].digest if verdict else ""}
            for a in data
            for verdict in [verdicts[a.digest]]
        ],
        "lineage": [_step(recorded, origin(entries, recorded)) for recorded in behind.steps],
    }


def training_data(behind: Ancestry) -> list[Artifact]:
    """The prepared data sets that training stages of this lineage took, each once."""
    made_by_data = {
        edge.artifact.digest for step in behind.steps if step.entry.job == "data" for edge in step.entry.outputs
    }
    found: dict[str, Artifact] = {}
    for step in behind.steps:
        if step.entry.job not in UNTRAINED:
            found |= {e.artifact.digest: e.artifact for e in step.entry.inputs if e.artifact.digest in made_by_data}
    return list(found.values())


def unvalidated(entries: Sequence[Recorded], behind: Ancestry) -> list[Artifact]:
    """Data sets of the lineage that no validation let through as exactly these bytes."""
    return [artifact for artifact in training_data(behind) if validation_of(entries, artifact.digest) is None]


def read_evaluation(path: Path) -> Examined:
    """Scores per problem from an evaluation.json. Raises ValueError where the file has none."""
    file = path / "evaluation.json" if path.is_dir() else path
    try:
        examined = extract_scores(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not an evaluation that can be read: {error}") from error
    if not examined.accuracy:
        raise ValueError(f"{file} holds no scores per problem")
    return examined


def extract_scores(document: Mapping[str, Any]) -> Examined:
    """Scores per problem from the JSON of an `r1kit.evaluation.Evaluation`."""
    accuracy: Scores = {}
    preference: Scores = {}
    for problem in document["problems"]:
        checked = document["benchmarks"][problem["benchmark"]]["pass_at_1"] is not None
        scores = (accuracy if checked else preference).setdefault(problem["benchmark"], {})
        scores[problem["id"]] = float(problem["score"])
    means = {
        figure: {name: float(b[figure]) for name, b in document["benchmarks"].items() if figure in b}
        for figure in ("response_tokens", "format_rate")
    }
    return Examined(accuracy, preference, **means)


def is_exact(metrics: Mapping[str, Any]) -> bool:
    """Whether a stage with these metrics claims the bits of an uninterrupted run: none of its trainings was resumed in
    other surroundings (`resume.METRICS`)."""
    return not any(value for name, value in metrics.items() if name.endswith("resumed_elsewhere"))


def _step(recorded: Recorded, ran: Recorded) -> dict[str, Any]:
    entry, facts = recorded.entry, recorded.entry.facts
    return {
        "stage": entry.job,
        "instance": entry.instance,
        **{name: facts.get(name) for name in ("key", "code_digest", "config_digest", "seed")},
        "runtime": ran.entry.facts.get("runtime"),
        "exact": is_exact(facts.get("metrics", {})),
        "inputs": {edge.role: edge.artifact.digest for edge in entry.inputs},
        "outputs": {edge.role: edge.artifact.digest for edge in entry.outputs},
    }
