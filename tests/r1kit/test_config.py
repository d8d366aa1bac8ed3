"""The schema of pipeline.yaml: the real file loads, a mistake is told with key, file, line and what is allowed."""

from pathlib import Path

import pytest
import yaml

from r1kit.config import Config, load

PIPELINE = Path(__file__).resolve().parents[2] / "pipeline.yaml"
PROFILES = sorted(yaml.safe_load(PIPELINE.read_text())["profiles"])


def mistaken(tmp_path: Path, text: str, *overrides: str) -> str:
    """What the user is told."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        load(file, None, overrides)
    message = str(caught.value)
    assert "\n" not in message, message
    return message


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_every_profile_of_the_real_file_loads(profile: str | None) -> None:
    config = load(PIPELINE, profile)
    assert config.name.startswith("r1kit")
    assert config == load(PIPELINE, profile)


def test_the_default_is_the_tiny_profile() -> None:
    assert load(PIPELINE) == load(PIPELINE, "tiny")
    assert load(PIPELINE) != load(PIPELINE, "small")


def test_what_nobody_wrote_is_the_paper() -> None:
    config = Config()
    for rl in (config.zero, config.reason, config.prefer):
        assert (rl.prompts_per_step, rl.samples_per_prompt, rl.learning_rate) == (32, 16, 3e-6)
        assert (rl.kl_coefficient, rl.reference_refresh_steps, rl.clip_high) == (0.001, 400, 10.0)
    assert (config.refine.learning_rate, config.refine.final_learning_rate_ratio) == (5e-5, 0.1)
    assert (config.evaluate.sampling.temperature, config.evaluate.sampling.top_p) == (0.6, 0.95)


def test_a_configuration_and_its_dump_are_the_same() -> None:
    config = load(PIPELINE)
    assert Config.model_validate(config.model_dump(by_alias=True)) == config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 5


def test_overrides_reach_the_schema() -> None:
    config = load(
        PIPELINE, "tiny", ["zero.steps=3", "zero.learning_rate=1e-3", "distill.students.0.name=other", "seed=7"]
    )
    assert (config.zero.steps, config.zero.learning_rate, config.seed) == (3, 1e-3, 7)
    assert config.distill.students[0].name == "other"


HEAD = "defaults:\n  seed: 1\n"
MISTAKES = {
    "an unknown key": (HEAD + "  zero:\n    stepz: 3", ("zero.stepz", "line 4", "did you mean 'steps'")),
    "an unknown section": (HEAD + "  zeroo: {}", ("zeroo", "line 3", "did you mean 'zero'")),
    "an unknown key far from all": (HEAD + "  runtime: {qqq: 1}", ("runtime.qqq", "line 3", "threads",
    "verifier_workers")),
    "an unknown key in a list": (HEAD + "  distill:\n    students:\n      - {name: a, shap: {}}",
                                 ("distill.students.0.shap", "line 5", "did you mean 'shape'")),
    "text for a number": (HEAD + "  zero: {steps: many}", ("zero.steps", "line 3", "'many'", "whole number")),
    "a fraction for a whole number": (HEAD + "  zero: {steps: 1.5}", ("zero.steps", "line 3", "1.5", "whole number")),
    "a number for a switch": (HEAD + "  stages: {zero: 7}", ("stages.zero", "line 3", "7", "true or false")),
    "a list for a section": (HEAD + "  zero: [1]", ("zero", "line 3", "[1]", "mapping")),
    "nothing for a section": (HEAD + "  zero:", ("zero", "line 3", "None", "mapping")),
    "a mapping for a list": (HEAD + "  distill: {students: {name: a}}", ("distill.students", "line 3", "a list")),
    "below the range": (HEAD + "  zero: {steps: 0}", ("zero.steps", "line 3", "0", "greater than 0")),
    "above the range": (HEAD + "  promotion: {max_regression: 2}", ("promotion.max_regression", "line 3", "2",
    "less than or equal to 1")),
    "no such choice": (HEAD + "  model: {dtype: float64}", ("model.dtype", "line 3", "float64", "float32", "bfloat16")),
    "no such environment": (HEAD + "  promotion: {approvals: {moon: 1}}", ("promotion.approvals", "line 3",
    "staging", "production")),
    "a bad name": (HEAD + "  distill: {students: [{name: Big One}]}", ("distill.students.0.name", "line 3",
    "Big One", "a-z0-9")),
    "a name that is missing": (HEAD + "  distill:\n    students:\n      - {shape: {}}", ("distill.students.0.name",
    "line 5", "missing")),
    "choices that contradict one another": (HEAD + "  zero: {kl_estimator: k1}", ("line 3: zero.kl_estimator is k1",
    "kl_importance")),
    "several": (HEAD + "  zero: {steps: 0, minibatches: 0}", ("zero.", "line 3", "1 more")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_told_with_key_file_line_and_what_is_allowed(tmp_path: Path, mistake: str) -> None:
    text, parts = MISTAKES[mistake]
    message = mistaken(tmp_path, text)
    assert all(part in message for part in ("pipeline.yaml", *parts)), message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("zero.stepz=3", ("--set zero.stepz=3", "did you mean 'steps'")),
        ("zero.steps=-1", ("--set zero.steps=-1", "zero.steps is -1", "greater than 0")),
        ("zero.sampling.top_p=1.5", ("--set zero.sampling.top_p=1.5", "less than or equal to 1")),
        ("nonsense=1", ("--set nonsense=1", "nonsense is not a setting")),
    ],
)
def test_a_mistake_on_the_command_line_is_told_as_such(tmp_path: Path, override: str, parts: tuple[str, ...]) -> None:
    message = mistaken(tmp_path, HEAD, override)
    assert all(part in message for part in parts), message
