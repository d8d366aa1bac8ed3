"""A stage's key names everything that its result depends on and nothing else; what runs leaves its edge."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from r1kit.config import Config, load
from tasks.artifacts import Artifact, describe
from tasks.code import code_digest
from tasks.ledger import open_ledger
from tasks.notes import StageNotes, finite, write_atomically
from tasks.stage import (
    StageContext,
    StageOutput,
    StagePlan,
    StageResult,
    faults,
    forget_workdir,
    plan_stage,
    record_reuse,
    refuse_unvalidated,
    run_stage,
    workdir_of,
)
from tasks.tracking import client_of
from tasks.workspace import REPOSITORY, Workspace

PIPELINE = REPOSITORY / "pipeline.yaml"
PLANNED = (
    ("data", ""), ("validate", ""), ("base", ""), ("zero", ""), ("cold_start", ""), ("reason", ""), ("reject", ""),
    ("refine", ""), ("reward_models", "helpful"), ("reward_models", "harmless"), ("prefer", ""), ("distill", "twin"),
    ("distill", "half"), ("rl_student", "twin"), ("evaluate", "dev1"), ("evaluate", "r1"),
)  # fmt: skip
INPUT = Artifact(kind="model", uri="file:///a", digest="sha256:" + "a" * 64, size_bytes=1)


def keys(*overrides: str) -> dict[str, str]:
    config = load(PIPELINE, "tiny", overrides)
    return {
        f"{stage}-{variant}".rstrip("-"): plan_stage(stage, config, {"model": INPUT}, variant).key
        for stage, variant in PLANNED
    }


@pytest.fixture(autouse=True)
def digest_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code's digests are test_code's subject; here each is computed once, and stays while others edit the code."""
    monkeypatch.setattr("tasks.stage.code_digest", DIGEST)


DIGEST = functools.cache(code_digest)
ALL = {f"{stage}-{variant}".rstrip("-") for stage, variant in PLANNED}


def test_the_same_question_has_the_same_key_and_another_another() -> None:
    assert keys() == keys()
    assert len(set(keys().values())) == len(PLANNED)


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("seed=77", ALL),
        ("zero.steps=7", {"zero", "rl_student-twin"}),
        ("zero.rewards.format=0.37", {"zero", "rl_student-twin"}),
        ("zero.sampling.temperature=0.37", {"zero", "rl_student-twin"}),
        ("cold_start.zero_prompts=7", {"cold_start"}),
        ("cold_start.sft.epochs=7", {"cold_start"}),
        ("reason.steps=7", {"reason"}),
        ("reject.prompts=7", {"reject"}),
        ("refine.epochs=7", {"refine"}),
        ("reward_models.helpful.epochs=7", {"reward_models-helpful"}),
        ("reward_models.harmless.epochs=7", {"reward_models-harmless"}),
        ("prefer.preference_last_steps=7", {"prefer"}),
        ("distill.students.1.sft.epochs=7", {"distill-half"}),
        ("distill.students.0.sft.epochs=7", {"distill-twin", "rl_student-twin"}),
        ("evaluate.samples_per_problem=7", {"evaluate-dev1", "evaluate-r1"}),
        ("base.epochs=7", {"base"}),
        ("system=be brief", ALL - {"data", "validate"}),
        ("model.scratch.num_layers=7", {"base"}),
        ("model.dtype=bfloat16", ALL - {"data", "validate"}),
        ("data.problems.0.limit=7", {"data"}),
        ("zero.watch.kl_limit=7", set()),
        ("zero.watch.nonfinite_steps=null", set()),
        ("zero.checkpoint_every_steps=7", set()),
        ("base.checkpoints_kept=7", set()),
        ("reward_models.helpful.watch.nonfinite_steps=7", set()),
        ("distill.students.0.sft.checkpoint_max_share=0.7", set()),
        ("runtime.threads=7", set()),
        ("runtime.verifier_workers=7", set()),
        ("runtime.verifier_deadline_seconds=77", set()),
        ("promotion.max_regression=0.1", set()),
        ("schedule.timezone=CET", set()),
        ("stages.rl_student=true", set()),
        ("name=other", set()),
        ("data.mirror=/elsewhere", set()),
    ],
)  # fmt: skip
def test_a_setting_changes_the_keys_of_the_stages_that_read_it(override: str, stages: set[str]) -> None:
    before, after = keys(), keys(override)
    assert {stage for stage in ALL if before[stage] != after[stage]} == stages


@pytest.mark.parametrize(
    ("inputs", "same"),
    [
        ({"model": INPUT}, True),
        ({"model": INPUT.model_copy(update={"uri": "s3://elsewhere/b"})}, True),
        ({"model": INPUT.model_copy(update={"digest": "sha256:" + "b" * 64})}, False),
        ({"other": INPUT}, False),
        ({"model": INPUT, "problems": INPUT}, False),
        ({}, False),
    ],
)
def test_inputs_count_by_role_and_bytes_not_by_place(inputs: Mapping[str, Artifact], same: bool) -> None:
    config = load(PIPELINE)
    assert (plan_stage("zero", config, inputs).key == plan_stage("zero", config, {"model": INPUT}).key) == same


def test_code_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_stage("zero", load(PIPELINE), {})
    monkeypatch.setattr("tasks.stage.code_digest", lambda module: "sha256:" + "c" * 64)
    assert plan_stage("zero", load(PIPELINE), {}).key != before.key


class Watcher:
    """Hears what stages say."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.said: list[Any] = []

    def step(self, name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self.steps.append((name, step, total, dict(metrics)))

    def say(self, name: str, message: str) -> None:
        self.said.append((name, message))


def plan(inputs: Mapping[str, Artifact] | None = None, steps: int = 3) -> StagePlan:
    return plan_stage("zero", Config.model_validate({"zero": {"steps": steps}}), inputs or {})


def body(context: StageContext) -> StageOutput:
    """Counts to three, and writes a model."""
    for step in range(1, 4):
        context.log(step, 3, {"loss": 1 / step})
    context.say("done")
    (context.workdir / "model").mkdir(exist_ok=True)
    (context.workdir / "model" / "weights").write_text(context.key)
    return StageOutput({"model": ("model", context.workdir / "model")}, {"loss": 0.5}, {"table": [1, float("nan")]})


def run(workspace: Workspace, made: StagePlan, call=body, watcher: Watcher | None = None) -> StageResult:
    return run_stage(made, workspace, watcher or Watcher(), "run-1", call=call)


def statuses(workspace: Workspace) -> list[str]:
    return [recorded.entry.status for recorded in open_ledger(workspace).entries()]


def test_a_stage_that_ran_leaves_outputs_curves_and_an_edge(tracked: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("bytes")
    watcher, made = Watcher(), plan({"problems": describe(source, "problems")})
    result = run(tracked, made, watcher=watcher)
    assert faults(result) == [] and result.outputs["model"].path is not None
    assert (result.outputs["model"].path / "weights").read_text() == made.key
    assert watcher.steps == [("zero", step, 3, {"loss": 1 / step}) for step in (1, 2, 3)]
    assert watcher.said == [("zero", "done")]
    notes = StageNotes(made.key, tracked)
    assert [line["step"] for line in notes.read()] == [1, 2, 3]
    assert json.loads(notes.details.read_text()) == {"table": [1, "NaN"]}
    (recorded,) = open_ledger(tracked).entries()
    assert recorded.entry.status == "ran" and recorded.entry.output("model") == result.outputs["model"]
    assert recorded.entry.facts["said"] == ["done"]
    assert client_of(tracked).get_run(result.mlflow_run_id).info.status == "FINISHED"
    record_reuse(made, result, tracked, "run-2")
    assert statuses(tracked) == ["ran", "reused"]
    assert StageResult.model_validate_json(result.model_dump_json()) == result
    forget_workdir(made.key, tracked)
    assert not workdir_of(made.key, tracked).exists() and faults(result) == []


def test_altered_and_missing_bytes_of_a_result_are_faults(tracked: Workspace) -> None:
    result = run(tracked, plan())
    model = result.outputs["model"].path
    assert model is not None
    weights = model / "weights"
    weights.write_text("something else")
    assert len(faults(result)) == 1 and "altered" in faults(result)[0]
    weights.unlink()
    weights.parent.rmdir()
    assert len(faults(result)) == 1 and "missing" in faults(result)[0]


def test_a_stage_does_not_start_on_altered_inputs(tracked: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("bytes")
    made = plan({"problems": describe(source, "problems")})
    source.write_text("other")
    with pytest.raises(ValueError, match=r"problems: .*input was altered"):
        run(tracked, made, call=lambda context: pytest.fail("it ran"))


def test_a_failed_stage_is_recorded_with_its_reason(tracked: Workspace) -> None:
    def fail(context: StageContext) -> StageOutput:
        context.log(1, 3, {"loss": 1.0})
        raise ValueError("the learning rate is too high")

    with pytest.raises(ValueError, match="too high"):
        run(tracked, plan(), call=fail)
    (recorded,) = open_ledger(tracked).entries()
    assert recorded.entry.status == "failed" and "too high" in str(recorded.entry)
    assert [line["step"] for line in StageNotes(plan().key, tracked).read()] == [1]


def test_an_interrupted_stage_goes_on_in_the_same_workdir_and_tracked_run(tracked: Workspace) -> None:
    seen: list[bool] = []

    def interrupted(context: StageContext) -> StageOutput:
        context.log(1, 3, {"loss": 9.0})
        context.log(2, 3, {"loss": 9.0})
        (context.workdir / "checkpoint").write_text("step 2")
        raise KeyboardInterrupt

    def resumed(context: StageContext) -> StageOutput:
        seen.append((context.workdir / "checkpoint").read_text() == "step 2")
        return body(context)

    with pytest.raises(KeyboardInterrupt):
        run(tracked, plan(), call=interrupted)
    assert statuses(tracked) == [], "it neither ran nor failed"
    open_runs = client_of(tracked).search_runs([e.experiment_id for e in client_of(tracked).search_experiments()])
    result = run(tracked, plan(), call=resumed)
    assert seen == [True] and result.mlflow_run_id == open_runs[0].info.run_id
    lines = StageNotes(plan().key, tracked).read()
    assert [(line["step"], line["metrics"]["loss"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_line_cut_off_by_a_kill_is_not_a_step(workspace: Workspace) -> None:
    notes = StageNotes("sha256:abc", workspace)
    notes.step(1, 2, {"loss": float("nan")})
    notes.close()
    with notes.metrics.open("a") as stream:
        stream.write('{"step": 2, "total": 2, "metr')
    assert [(line["step"], line["metrics"]) for line in notes.read()] == [(1, {"loss": None})]


def test_data_that_validation_has_not_seen_are_refused(tmp_path: Path) -> None:
    def result(inputs: Mapping[str, Artifact], outputs: Mapping[str, Artifact]) -> StageResult:
        return StageResult(stage="data", key="k", code_digest="c", config_digest="d", seed=0, inputs=dict(inputs),
                           outputs=dict(outputs), metrics={}, seconds=0)  # fmt: skip

    data, passed = result({}, {"problems": INPUT}), result({"problems": INPUT}, {})
    other = result({"problems": INPUT.model_copy(update={"digest": "sha256:" + "b" * 64})}, {})
    reader, stranger = plan({"problems": INPUT}), plan()
    refuse_unvalidated(reader, data, passed)
    refuse_unvalidated(stranger, data, None)
    for verdict in (None, other):
        with pytest.raises(ValueError, match=r"zero would train on problems .* not let through"):
            refuse_unvalidated(reader, data, verdict)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "file", "new \ud800")
    assert (tmp_path / "file").read_text() == "old"


def test_metrics_that_are_no_numbers_become_null() -> None:
    assert finite({"a": 1, "b": float("nan"), "c": float("inf"), "d": float("-inf")}) == {
        "a": 1.0,
        "b": None,
        "c": None,
        "d": None,
    }
