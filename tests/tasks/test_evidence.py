"""Evidence is read from what the stages really write."""

from pathlib import Path

import pytest

from r1kit.evaluation import Evaluation, EvaluationConfig, ProblemScore, Scores
from r1kit.statistics import Interval
from tasks.evidence import read_evaluation, training_data, unvalidated
from tasks.ledger import open_ledger
from tasks.lineage import ancestry
from tasks.workspace import Workspace
from tests.tasks.recipe import Recipe, artifact


def scores(*, checked: bool) -> Scores:
    interval = Interval(value=0.5, low=0.4, high=0.6)
    return Scores(
        n=2, k=1, pass_at_1=interval if checked else None, cons_at_k=None, preference=None if checked else interval,
        response_tokens=3, truncated_share=0, format_rate=1, thinking_rate=1, language_rate=None,
        one_language_rate=None, reflection_rate=0, tokens=6,
    )  # fmt: skip


def test_scores_of_a_real_evaluation(tmp_path: Path) -> None:
    evaluation = Evaluation(
        model="r1", seed=0, config=EvaluationConfig.model_validate({}), overall=scores(checked=True),
        benchmarks={"sums": scores(checked=True), "general": scores(checked=False)},
        problems=(
            ProblemScore(id="a", benchmark="sums", score=1.0),
            ProblemScore(id="b", benchmark="sums", score=0.25),
            ProblemScore(id="c", benchmark="general", score=-2.0),
        ),
        transcripts=(), seconds=1, seconds_per_million_tokens=1,
    )  # fmt: skip
    (tmp_path / "evaluation.json").write_text(evaluation.model_dump_json())
    for place in (tmp_path, tmp_path / "evaluation.json"):
        examined = read_evaluation(place)
        assert examined.accuracy == {"sums": {"a": 1.0, "b": 0.25}}
        assert examined.preference == {"general": {"c": -2.0}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"problems": [], "benchmarks": {}}'])
def test_what_is_no_evaluation_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match=r"evaluation\.json"):
        read_evaluation(tmp_path)


def test_data_are_validated_by_their_bytes(workspace: Workspace) -> None:
    recipe = Recipe(workspace)
    model = recipe.make(validated=False)
    entries = open_ledger(workspace).entries()
    behind = ancestry(entries, model)
    assert [artifact.kind for artifact in training_data(behind)] == ["problems"]
    assert unvalidated(entries, behind) == training_data(behind)
    Recipe(workspace, "run-2").make()
    assert unvalidated(open_ledger(workspace).entries(), behind) == training_data(behind), "those are other bytes"
    verdict = artifact(recipe.root / "verdict.json", "validation", '{"success": true}')
    recipe.stage("validate", {"problems": training_data(behind)[0]}, {"validation": verdict})
    assert unvalidated(open_ledger(workspace).entries(), behind) == []
