"""Rules by stage and by environment: each refusal names the gate, the figure, the limit and the way out."""

from pathlib import Path
from typing import Any

import pytest

from r1kit.promotion import PromotionConfig, Rules, load_operations
from tasks.gc import collect
from tasks.ledger import open_ledger
from tasks.promotion import check, promote
from tasks.question import Gate
from tasks.register import register
from tasks.workspace import REPOSITORY, Workspace
from tests.tasks.promoted import FREE, LAST_RUN, candidate
from tests.tasks.recipe import BENCHMARK, Recipe, artifact


def settings(**options: Any) -> PromotionConfig:
    return PromotionConfig.model_validate({**FREE.model_dump(exclude_unset=True), **options})


def closed(workspace: Workspace, own: PromotionConfig, to: Any = "staging", reference: str = "r1") -> list[Gate]:
    return [gate for gate in check(workspace, reference, to, settings=own) if not gate.passed]


@pytest.mark.parametrize(
    ("rules", "made", "gate", "figure", "limit", "advice"),
    [
        ({"stages": ["reason", "prefer"]}, {}, "stages", "without reason", "reason, prefer", "stages."),
        ({"exact": True}, {"metrics": {"resumed_elsewhere": 1.0}}, "exact", "prefer went on", "to the bit", "exact"),
        ({"alarms": {"kl": 3}}, {"metrics": {"longest_watch_kl": 3.0}}, "alarm", "3 steps with the sign kl",
         "3 in a row", "watch.kl_steps"),
        ({}, {"metrics": {"part/longest_watch_truncated": 20.0}}, "alarm", "sign truncated", "20 in a row",
         "promotion.alarms"),
        ({"min_problems": 201}, {}, "evaluation", "200 problems", "at least 201", "more problems"),
        ({"floors": {BENCHMARK: 0.9}}, {}, "floor", "is 0.800 (n = 200)", "at least 0.900", "floors"),
        ({"max_length_growth": 1.5}, {"correct": 0.5, "response_tokens": 40.0}, "reward hacking",
         "responses of 40 tokens, 20 by its parent", "at most 1.5 times", "max_length_growth"),
        ({}, {"correct": 0.3, "format_rate": 1.0}, "reward hacking", "format +0.100, pass@1 -0.200",
         "+0.020", "format"),
    ],
)  # fmt: skip
def test_a_rule_refuses(
    tracked: Workspace, rules: dict[str, Any], made: dict[str, Any], gate: str, figure: str, limit: str, advice: str
) -> None:
    candidate(tracked, stored=False, **made)
    (found,) = closed(tracked, settings(**rules))
    assert found.name == gate and figure in found.figure and limit in found.limit and advice in found.advice
    generous = {
        "max_length_growth": 2,
        "max_format_gain": 0.2,
        "alarms": {"kl": 4, "truncated": 21},
        "min_problems": 200,
    }
    assert closed(tracked, settings(**generous)) == []


def test_longer_answers_that_are_better_are_no_sign(tracked: Workspace) -> None:
    candidate(tracked, stored=False, correct=0.8, response_tokens=400.0)
    assert closed(tracked, settings()) == []


def test_rules_of_an_environment_and_of_a_stage(tracked: Workspace) -> None:
    own = settings(
        floors={"a": 0.1, "b": 0.2},
        made_by={"distill": {"floors": {"b": 0.3}, "exact": True}},
        environments={"production": {"floors": {"c": 0.4}, "exact": False, "min_problems": 7}},
    )
    assert own.rules("staging", "prefer").floors == {"a": 0.1, "b": 0.2}
    both = own.rules("production", "distill")
    assert both.floors == {"a": 0.1, "b": 0.3, "c": 0.4} and not both.exact and both.min_problems == 7
    assert own.rules("staging", "distill").exact and type(both) is Rules
    candidate(tracked, stored=False)
    stricter = settings(environments={"production": {"floors": {BENCHMARK: 0.9}}})
    promote(tracked, "r1", "staging", settings=stricter)
    assert [gate.name for gate in closed(tracked, stricter, "production")] == ["floor"]


def test_time_in_staging(tracked: Workspace) -> None:
    candidate(tracked, stored=False)
    waiting = settings(min_staging_hours=1.0)
    promote(tracked, "r1", "staging", settings=waiting)
    (found,) = closed(tracked, waiting, "production")
    assert (found.name, found.figure) == ("time", "staging has had it for 0.00 hours") and "wait" in found.advice
    assert closed(tracked, settings(min_staging_hours=1e-9), "production") == []


def test_too_few_problems_shared_with_the_holder(tracked: Workspace) -> None:
    candidate(tracked, stored=False)
    promote(tracked, "r1", "staging", settings=settings())
    recipe = Recipe(tracked, "run-2")
    model = recipe.make(weights="run-2")
    recipe.evaluate(model, 1.0, problems=50)
    register(tracked, run="run-2")
    assert closed(tracked, settings(min_problems=50)) == []
    names = [(gate.name, gate.figure) for gate in closed(tracked, settings(min_problems=51))]
    assert names == [("evaluation", "50 problems"), ("comparison", "50 problems shared with r1kit-staging/1 (r1)")]


def test_a_lineage_that_was_deleted_is_refused(tracked: Workspace) -> None:
    candidate(tracked, "run-1")
    candidate(tracked, "run-2")
    collect(tracked, LAST_RUN)
    # The same model made again, but not what it was made from.
    recipe = Recipe(tracked, "run-1", stored=True)
    base = next(r.entry.input("model") for r in open_ledger(tracked).entries() if r.entry.job == "prefer")
    assert base is not None
    problems = artifact(recipe.root / "problems.parquet", "problems", "problems of run-1")
    verdict = artifact(recipe.root / "validation.json", "validation", "{}")
    recipe.stage("validate", {"problems": problems}, {"validation": verdict})
    again = recipe._model(
        "prefer", {"model": base, "problems": problems}, artifact(recipe.root / "r1", "model", "run-1")
    )
    recipe.evaluate(again, 0.8)
    reference = register(tracked, run="run-1")
    found = closed(tracked, settings(), reference=f"{reference.name}/{reference.version}")
    assert [gate.name for gate in found] == ["lineage"] and "`r1 gc` deleted model of base" in found[0].figure


def test_settings_are_read_without_the_machine_learning(tmp_path: Path) -> None:
    pipeline = REPOSITORY / "pipeline.yaml"
    assert load_operations(pipeline, "tiny").promotion.floors == {"leg_counting": 0.6, "letter_counting": 0.6}
    assert load_operations(pipeline, None, ["gc.keep_runs=2"]).gc.keep_runs == 2
    with pytest.raises(ValueError, match="only settings of promotion and gc matter"):
        load_operations(pipeline, None, ["zero.steps=3"])
    with pytest.raises(ValueError, match=r"promotion.flors is not a setting; .*'floors'"):
        load_operations(pipeline, None, ["promotion.flors={}"])
    with pytest.raises(ValueError, match=r"promotion.made_by"):
        load_operations(pipeline, None, ["promotion.made_by={nonsense: {exact: true}}"])
