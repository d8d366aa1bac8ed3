"""What a resumed training knows: all of R1.md 4.2 is in its checkpoint, or is a function of it."""

import random as python_random
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1kit import checkpoint, grpo, resume, reward_model, sft
from r1kit.engine import Engine
from r1kit.grpo_config import GrpoConfig
from r1kit.resume import Checkpoints
from r1kit.reward_model import RewardModelConfig
from r1kit.rollout import Prompt
from r1kit.rows import PreferencePair, Problem
from r1kit.sampler import Completion, SamplingConfig
from r1kit.sft import Example, SftConfig
from tests.r1kit.models import small_model


class Killed(Exception):
    """Stands for SIGKILL."""


def _problem(name: str, verifier: str = "gym") -> Problem:
    return Problem.model_validate({"id": name, "source": "t", "licence": "MIT", "prompt": name, "verifier": verifier})


PROMPTS = [Prompt(_problem(f"p{i}"), [5 + i, 6, 7]) for i in range(7)]
GENERAL = [Prompt(_problem(f"g{i}", "none"), [40 + i, 7]) for i in range(3)]
CONFIG = GrpoConfig(
    steps=6, prompts_per_step=4, samples_per_prompt=2, sampling=SamplingConfig(max_tokens=6), learning_rate=1e-2,
    warmup_steps=4, minibatches=2, kl_coefficient=0.1, reference_refresh_steps=3, preference_last_steps=2,
    checkpoint_every_steps=2, checkpoint_max_share=1,
)  # fmt: skip


def _reward(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
    """An arbitrary function of the tokens alone."""
    return [{"accuracy": float(sum(c.token_ids) % 2), "format": float(len(c.token_ids) > 3)} for c in completions]


class Run:
    """A training and all that it told."""

    def __init__(self, folder: Path, *, kill_after: int = 0, config: GrpoConfig = CONFIG, **changes: Any) -> None:
        self.said: list[str] = []
        self.metrics: dict[int, Mapping[str, float]] = {}
        self.asked: list[list[str]] = []
        self._kill_after = kill_after
        model, tokenizer = small_model()
        given = {"prompts": PROMPTS, "general_prompts": GENERAL, "seed": 1, **changes}
        try:
            self.result = grpo.train(
                model, tokenizer, reward=self._reward, config=config, checkpoints=folder, log=self._log,
                say=self.said.append, **given,
            )  # fmt: skip
        except Killed:
            self.result = {}
        self.weights = [parameter.detach().numpy().tobytes() for parameter in model.parameters()]

    def _reward(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
        self.asked.append([problem.id for problem in problems])
        return _reward(problems, completions)

    def _log(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self.metrics[step] = metrics
        if step == self._kill_after:
            raise Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training that nothing interrupted."""
    return Run(tmp_path_factory.mktemp("whole"))


def test_schedule_data_and_diagnostics_go_on_where_they_were(tmp_path: Path, whole: Run) -> None:
    Run(tmp_path, kill_after=3)
    resumed = Run(tmp_path)
    assert list(resumed.metrics) == [3, 4, 5, 6] and resumed.asked == whole.asked[2:]
    timed = {"seconds_rollout", "seconds_update"}
    for step, metrics in resumed.metrics.items():
        same = {name: value for name, value in whole.metrics[step].items() if name not in timed}
        assert {name: value for name, value in metrics.items() if name not in timed} == same
    assert resumed.weights == whole.weights
    assert {n: v for n, v in resumed.result.items() if n not in resume.METRICS} == {
        n: v for n, v in whole.result.items() if n not in resume.METRICS
    }
    assert resumed.result["resumed"] == 1 and resumed.result["resumed_elsewhere"] == 0
    assert resumed.said == ["goes on after step 2 of 6"]


def test_no_generator_has_a_part_in_it(tmp_path: Path, whole: Run) -> None:
    Run(tmp_path, kill_after=5)
    torch.manual_seed(77)
    np.random.seed(77)
    python_random.seed(77)
    assert Run(tmp_path).weights == whole.weights


def test_a_half_used_rollout_is_drawn_again(tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    step = Engine.step

    def die(engine: Engine, learning_rate: float) -> float:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise Killed  # the first half of the fourth rollout is used up
        return step(engine, learning_rate)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", die)
        killed = Run(tmp_path)
    assert list(killed.metrics) == [1, 2, 3] and len(killed.asked) == 4
    resumed = Run(tmp_path)
    assert resumed.asked[1] == killed.asked[3] and resumed.weights == whole.weights


def _harmed(folder: Path, beginning: str) -> None:
    """Write the newest checkpoint anew, with the tensors of that beginning changed."""
    found = checkpoint.latest(folder)
    assert found is not None
    chosen = [name for name, tensor in found.tensors.items() if name.startswith(beginning) and tensor.ndim]
    assert chosen, beginning
    tensors = {name: tensor * 1.1 if name in chosen else tensor for name, tensor in found.tensors.items()}
    checkpoint.save(folder, found.step, tensors, found.state)
    checkpoint.settle(folder)


@pytest.mark.parametrize("part", ["weights.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.", "reference."])
def test_every_kind_of_tensor_counts(tmp_path: Path, whole: Run, part: str) -> None:
    """The reference was refreshed after step 3 and acts after step 4, which is where this goes on."""
    Run(tmp_path, kill_after=5)
    _harmed(tmp_path, part)
    assert Run(tmp_path).weights != whole.weights


def test_a_reference_that_was_refreshed_stays_what_it_became(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"reference_refresh_steps": 3})
    Run(tmp_path, kill_after=5, config=config)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 4
    begin, _ = small_model()
    for name, parameter in begin.named_parameters():
        assert not torch.equal(found.tensors[f"reference.{name}"], parameter)
        assert not torch.equal(found.tensors[f"reference.{name}"], found.tensors[f"weights.{name}"])


ANOTHER: dict[str, dict[str, Any]] = {
    "made_from.helpful was sha256:a, now sha256:b": {"made_from": {"model": "sha256:m", "helpful": "sha256:b"}},
    "made_from.model was sha256:m, now None": {"made_from": {"helpful": "sha256:a"}},
    "seed was 1, now 2": {"seed": 2},
    "prompts was": {"prompts": [*PROMPTS[:6], Prompt(_problem("p6"), [1, 2])]},
    "problems was": {"prompts": [*PROMPTS[:6], Prompt(_problem("other"), PROMPTS[6].token_ids)]},
    "general_prompts was": {"general_prompts": GENERAL[:2]},
    "settings.learning_rate was 0.01, now 0.02": {"config": CONFIG.model_copy(update={"learning_rate": 0.02})},
    "settings.steps was 6, now 7": {"config": CONFIG.model_copy(update={"steps": 7})},
}


@pytest.mark.parametrize("words", ANOTHER)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, words: str) -> None:
    """Another reward model, other data, another setting: the bits would be those of neither."""
    given: dict[str, Any] = {"made_from": {"model": "sha256:m", "helpful": "sha256:a"}}
    Run(tmp_path, kill_after=3, **given)
    with pytest.raises(ValueError, match="of another training") as caught:
        Run(tmp_path, **{**given, **ANOTHER[words]})
    assert words in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_how_a_training_is_run_may_change(tmp_path: Path, whole: Run) -> None:
    Run(tmp_path, kill_after=3)
    watch = CONFIG.watch.model_copy(update={"kl_limit": 1.0, "truncated_steps": None})
    changes = {"checkpoint_every_steps": 1, "checkpoints_kept": 5, "checkpoint_max_share": 0.5, "watch": watch}
    assert Run(tmp_path, config=CONFIG.model_copy(update=changes)).weights == whole.weights


SURROUNDINGS = ["threads", "processes", "torch", "transformers", "processor", "instruction set", "accelerator"]


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_other_surroundings_are_said_and_kept(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = resume.surroundings()
    assert list(here) == SURROUNDINGS
    Run(tmp_path, kill_after=3)
    with monkeypatch.context() as patch:
        patch.setattr(resume, "surroundings", lambda: {**here, name: "other"})
        elsewhere = Run(tmp_path, kill_after=5)
    words = f"after step 2 {name} was {here[name]}, now other"
    assert elsewhere.said == [f"goes on after step 2 of 6, not claimed to be bit-exact: {words}"]
    back = Run(tmp_path)
    assert back.said == [
        f"goes on after step 4 of 6, not claimed to be bit-exact: {words}; after step 4 {name} was other, "
        f"now {here[name]}"
    ]
    assert back.result["resumed"] == 2 and back.result["resumed_elsewhere"] == 2


def test_threads_are_counted_as_they_are(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    Run(tmp_path, kill_after=3)
    try:
        torch.set_num_threads(before + 1)
        run = Run(tmp_path)
    finally:
        torch.set_num_threads(before)
    assert f"threads was {before}, now {before + 1}" in run.said[0] and run.result["resumed_elsewhere"] == 1


def test_what_went_before_the_checkpoint_that_is_used_counts_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere only steps were made that are made again here."""
    here = resume.surroundings()
    Run(tmp_path, kill_after=3)
    with monkeypatch.context() as patch:
        patch.setattr(resume, "surroundings", lambda: {**here, "threads": 64})
        Run(tmp_path, kill_after=5)
    (tmp_path / "step-00000004" / "state.json").unlink()
    resumed = Run(tmp_path)
    assert resumed.said[-1] == "goes on after step 2 of 6" and resumed.result["resumed_elsewhere"] == 0


def test_saving_takes_no_more_than_its_share(tmp_path: Path) -> None:
    changes = {"checkpoint_every_steps": 1, "checkpoint_max_share": 1e-9}
    run = Run(tmp_path, config=CONFIG.model_copy(update=changes))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"], "the first is always made"
    assert len(run.said) == 1 and "leaves checkpoints out" in run.said[0]
    assert 0 < run.result["checkpoint_share"] < 1


def test_supervised_trainings_refuse_and_tell_alike(tmp_path: Path) -> None:
    model, tokenizer = small_model()
    config = SftConfig(batch_size=2, checkpoint_every_steps=1, checkpoint_max_share=1, learning_rate=1e-3)
    examples = [Example([5, 6], [7, 8, 3]), Example([5], [9, 3]), Example([6], [10, 3])]

    def train_sft(rows: Sequence[Example], made_from: str) -> dict[str, float]:
        return sft.train(
            model, rows, config, seed=0, checkpoints=tmp_path / "sft", log=lambda *_: None,
            made_from={"model": made_from},
        )  # fmt: skip

    assert train_sft(examples, "a")["resumed"] == 0
    assert train_sft(examples, "a")["resumed"] == 1
    with pytest.raises(ValueError, match="rows was"):
        train_sft(examples[::-1], "a")
    with pytest.raises(ValueError, match=r"made_from\.model was a, now b"):
        train_sft(examples, "b")
    pairs = [
        PreferencePair(id=str(n), source="t", licence="MIT", prompt="cat", chosen=good, rejected=bad, route="helpful",
                       split="heldout" if n == 3 else "train")
        for n, (good, bad) in enumerate([("milk", "dog"), ("milk milk", "house"), ("honey", "dog dog")] * 2)
    ]  # fmt: skip
    judges = RewardModelConfig(batch_size=2, checkpoint_every_steps=1, checkpoint_max_share=1)

    def train_judge(rows: Sequence[PreferencePair]) -> dict[str, float]:
        return reward_model.train(
            model, tokenizer, rows, judges, kind="helpful", seed=0, checkpoints=tmp_path / "judge",
            log=lambda *_: None,
        )[1].metrics  # fmt: skip

    assert train_judge(pairs)["resumed"] == 0
    assert train_judge(pairs)["resumed"] == 1
    with pytest.raises(ValueError, match="pairs was"):
        train_judge(pairs[::-1])


def test_a_loaded_checkpoint_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as large as the model, its moments and the reference together."""
    loaded: list[weakref.ref[checkpoint.Checkpoint]] = []
    newest = Checkpoints.newest

    def noted(saves: Checkpoints, total: int) -> checkpoint.Checkpoint | None:
        found = newest(saves, total)
        assert found is not None
        loaded.append(weakref.ref(found))
        return found

    Run(tmp_path, kill_after=3)
    monkeypatch.setattr(Checkpoints, "newest", noted)
    alive = []
    monkeypatch.setattr(Run, "_log", lambda *_: alive.append(loaded[0]()))
    Run(tmp_path)
    assert alive == [None] * 4
