"""The audit names everything back to base and notices every alteration."""

import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from r1kit.promotion import PromotionConfig
from r1kit.rows import Problem, SftRow, write_rows
from tasks.approvals import approve
from tasks.artifacts import describe, local_path
from tasks.audit import AuditReport, audit, touched_by, whereabouts
from tasks.audit_view import render
from tasks.evidence import build_evidence
from tasks.ledger import environment, open_ledger
from tasks.lineage import ancestry, resolve_model
from tasks.promotion import promote, rollback
from tasks.register import register
from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.recipe import Recipe, approver, artifact

SETTINGS = PromotionConfig(approvals={"staging": 1, "production": 0})
"""Of promotion: one approval to staging, none to production."""


@pytest.fixture
def staged(tracked: Workspace, tmp_path: Path) -> Workspace:
    """A workspace whose staging and production hold an approved model."""
    key = approver(tmp_path)
    shutil.copy(tmp_path / "approvers", tracked.root / "approvers")
    Recipe(tracked).make()
    register(tracked, run="run-1")
    approve(tracked, "r1", "staging", approver="alice@example.org", key=key)
    for to in ("staging", "production"):
        promote(tracked, "r1", to, settings=SETTINGS)
    return tracked


def text(report: AuditReport) -> str:
    page = io.StringIO()
    Console(file=page, width=200).print(render(report))
    return page.getvalue()


def test_a_sound_model_is_told_back_to_base(staged: Workspace) -> None:
    report = audit(staged, "production")
    assert report.sound, report.problems
    assert [step.title for step in report.steps] == ["base", "data", "prefer → r1"]
    assert report.steps[2].inputs.keys() == {"model", "problems"} and report.steps[2].config == {"steps": 1}
    assert [record.kind for record in report.data] == ["problems"] and report.data[0].validated
    assert report.signature == "verified" and report.holds == ("staging", "production")
    assert [(a.approver, a.environment, a.fault) for a in report.approvals] == [("alice@example.org", "staging", None)]
    assert [place.what for place in report.places] == [
        "registered as r1kit-candidate/1", "promoted to r1kit-staging/1", "promoted to r1kit-production/1",
    ]  # fmt: skip
    assert report.evaluation["arithmetic"] == {"n": 200, "score": 0.8}
    shown = text(report)
    for word in ("sound", "prefer → r1", "problems", "validated", "alice@example.org", "signature verified"):
        assert word in shown
    assert AuditReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("model", "the model: .* was altered"),
        ("data", "data: .*problems.parquet was altered"),
        ("parent", "base: .*base was altered"),
        ("ledger", "does not follow from"),
        ("approvers", "the list of approvers .* is gone"),
        ("key", "the signature does not hold"),
    ],
)
def test_every_alteration_is_found(staged: Workspace, what: str, problem: str) -> None:
    model = local_path(resolve_model("production", staged).artifact.uri)
    assert model is not None
    made = staged.root / "made" / "run-1"
    {
        "model": lambda: (model / "config.json").write_text("{ }"),
        "data": lambda: (made / "problems.parquet").write_text("other"),
        "parent": lambda: (made / "base" / "extra").write_text(""),
        "ledger": lambda: _append(staged.ledger_dir / "00000004.json", " "),
        "approvers": lambda: (staged.root / "approvers").unlink(),
        "key": lambda: shutil.rmtree(staged.keys_dir),
    }[what]()
    report = audit(staged, "production")
    assert any(re.search(problem, line) for line in report.problems), report.problems
    assert "problems" in text(report)


def test_a_cut_off_ledger_is_found(staged: Workspace) -> None:
    last = open_ledger(staged).head().sequence
    for sequence in (last, last - 1, last - 2):
        (staged.ledger_dir / f"{sequence:08d}.json").unlink()
    assert "ledger entry 10, which its checkpoint signed, is gone" in open_ledger(staged).verify()
    assert any("r1kit-production/1 was made after ledger entry" in line for line in audit(staged, "r1").problems)


def test_aliases_follow_the_ledger(staged: Workspace) -> None:
    client = client_of(staged)
    client.delete_registered_model_alias("r1kit-production", "current")
    report = audit(staged, "r1")
    assert report.problems == ("r1kit-production@current is unset in MLflow, but 1 by the ledger",)
    assert report.repaired == ("r1kit-production@current was unset, is 1 by the ledger",)
    assert str(client.get_registered_model("r1kit-production").aliases["current"]) == "1"
    assert audit(staged, "r1").sound


def test_an_unregistered_model_is_told_too(workspace: Workspace) -> None:
    Recipe(workspace).make(validated=False)
    report = audit(workspace, "r1")
    assert report.signature == "none" and report.name == ""
    assert report.problems == ("problems: never validated as these bytes",)
    assert "never registered" in text(report)


def test_a_step_that_was_resumed_elsewhere_claims_no_bits(workspace: Workspace) -> None:
    recipe = Recipe(workspace)
    model = recipe.make()
    assert all(step.exact for step in audit(workspace, "r1").steps) and "bit-exact" not in text(audit(workspace, "r1"))
    line = "goes on after step 20 of 60, not claimed to be bit-exact: after step 20 threads was 2, now 1"
    metrics, facts = {"resumed": 1.0, "resumed_elsewhere": 1.0}, {"said": [line]}
    recipe.stage("prefer", {}, {"model": model}, metrics=metrics, facts=facts)
    report = audit(workspace, "r1")
    assert [(step.stage, step.exact) for step in report.steps] == [("prefer", False)] and report.steps[0].said == (
        line,
    )
    assert "not claimed to be bit-exact" in text(report) and "threads was 2, now 1" in text(report)
    entries = open_ledger(workspace).entries()
    found = resolve_model("r1", workspace)
    evidence = build_evidence(entries, "r1", found.artifact, ancestry(entries, found.artifact, found.run))
    assert [step["exact"] for step in evidence["lineage"]] == [False]


def test_which_models_a_data_set_touches(staged: Workspace) -> None:
    digest = audit(staged, "r1").data[0].digest
    touched = touched_by(staged, digest[:20])
    assert touched.found == (f"problems {digest}",)
    assert [model.model for model in touched.models] == [
        "r1 of run run-1", "r1kit-candidate/1", "r1kit-staging/1", "r1kit-production/1",
    ]  # fmt: skip
    assert touched.models[0].path == (f"problems {digest}", "prefer → r1 (entry 4)")
    assert [model.holds for model in touched.models] == [(), (), ("staging",), ("production",)]
    with pytest.raises(ValueError, match="knows no artifact"):
        touched_by(staged, "ffff")


def test_replaced_data_are_found_in_the_cache(workspace: Workspace, tmp_path: Path) -> None:
    place, cache = tmp_path / "problems.parquet", tmp_path / "cache" / "ab"
    cache.mkdir(parents=True)
    (cache / "cdef").write_text("old")
    (cache / "0123").write_text("odd")
    place.write_text("old")
    old = describe(place, "problems")
    assert whereabouts(old, workspace, tmp_path / "cache") == (old, None)
    place.write_text("new")
    found, wrong = whereabouts(old, workspace, tmp_path / "cache")
    assert found.path == cache / "cdef" and wrong is None
    assert "was altered" in str(whereabouts(old, workspace, tmp_path / "none")[1])


def test_rolling_back_is_told(staged: Workspace) -> None:
    old = audit(staged, "r1").digest
    Recipe(staged, "run-2").make(weights="newer")
    register(staged, run="run-2")
    free = PromotionConfig(approvals={"staging": 0})
    promote(staged, "r1", "staging", settings=free)
    rollback(staged, "staging", actor="bob")
    newer, older = audit(staged, "r1"), audit(staged, "staging")
    assert older.digest == old and older.holds == ("staging", "production")
    assert newer.holds == () and newer.sound, newer.problems
    assert newer.places[-1].what == "rolled back from staging in favour of r1kit-staging/1"
    assert newer.places[-1].who == "bob"


def _append(path: Path, extra: str) -> None:
    path.write_text(path.read_text() + extra)


def test_a_verdict_that_came_after_training_is_none(workspace: Workspace) -> None:
    recipe = Recipe(workspace)
    recipe.make(validated=False)
    data = open_ledger(workspace).entries()[0].entry.outputs[0].artifact
    verdict = describe(workspace.root / "made" / "run-1" / "r1-evaluation.json", "validation")
    recipe.stage("validate", {"problems": data}, {"validation": verdict})
    (problem,) = audit(workspace, "r1", asked=("validated",)).problems
    assert re.search("validated only after ledger entry 3 had trained on it, by entry 6", problem), problem


def test_approvals_are_held_to_the_keys_of_then(staged: Workspace, tmp_path: Path) -> None:
    file = staged.root / "approvers"
    text_then = file.read_text()
    file.write_text(text_then.replace("alice@example.org ", 'alice@example.org valid-before="20200101Z" '))
    report = audit(staged, "production", asked=("approved",))
    (approval,) = report.approvals
    assert approval.fault is None, "it held by the list of then"
    assert approval.since and "may not sign" in approval.since
    assert len(report.problems) == 1 and "the list of approvers" in report.problems[0]
    facts = open_ledger(staged).entries()[approval.sequence - 1].entry.facts
    assert facts["approvers"] == text_then and facts["approvers_digest"] == approval.approvers_digest


def test_what_is_not_asked_is_not_looked_at(staged: Workspace) -> None:
    (local_path(resolve_model("production", staged).artifact.uri) or staged.root).joinpath("config.json").write_text(
        "{ }"
    )
    for question in ("trained", "validated", "approved", "rebuildable"):
        assert audit(staged, "production", asked=(question,)).sound
    assert not audit(staged, "production", asked=("altered",)).sound


def test_rows_code_and_judges_are_followed(workspace: Workspace) -> None:
    """Two generations: rows sampled from a model, which teach another, by a judge trained from the first."""
    recipe, rows = Recipe(workspace), workspace.root / "rows"
    problem = Problem(id="a/1", source="a", licence="MIT", prompt="1 + 1?", verifier="math", answer="2")
    sampled = SftRow(
        id="reject/a/1@x/0", source="reject", licence="MIT", parents=("a/1",), prompt="1 + 1?", response="it is 2",
        kind="chain",
    )  # fmt: skip
    write_rows(rows / "problems.parquet", [problem], Problem)
    write_rows(rows / "curated.parquet", [sampled], SftRow)
    problems, curated = describe(rows / "problems.parquet", "problems"), describe(rows / "curated.parquet", "sft_rows")
    base, dev2, small, alone, judge, r1 = (
        artifact(rows / name, "model", name) for name in ("base", "dev2", "small", "alone", "judge", "r1")
    )
    recipe.stage("data", {}, {"problems": problems})
    recipe.stage("base", {}, {"model": base})
    recipe.stage("reason", {"model": base, "problems": problems}, {"model": dev2})
    recipe.stage("reject", {"model": dev2}, {"curated": curated})
    recipe.stage("distill", {"curated": curated}, {"model": small}, "small")
    recipe.stage("distill", {}, {"model": alone}, "alone")
    recipe.stage("reward_models", {}, {"reward_model": judge}, "helpful")
    recipe.stage("prefer", {"model": alone, "helpful": judge}, {"model": r1})

    def reached(what: str) -> list[str]:
        return [model.model.removesuffix(" of run run-1") for model in touched_by(workspace, what).models]

    assert reached("dev2") == ["dev2", "distill-small"] and reached(dev2.digest[7:15]) == ["dev2", "distill-small"]
    assert reached("a/1") == reached("1 + 1?") == ["dev2", "distill-small"]
    assert reached("it is 2") == reached("reject/a/1@x/0") == ["distill-small"]
    assert reached("base") == ["base", "dev2", "distill-small"] and reached("helpful") == ["r1"]
    commit = environment()["commit"]
    assert not commit or reached(commit[:10]) == ["base", "dev2", "distill-small", "distill-alone", "r1"]
    (path,) = [model.path for model in touched_by(workspace, "dev2").models if "small" in model.model]
    assert [step.split(" (")[0] for step in path[1:]] == ["reject", "distill[small] → distill-small"]
