"""Laws of supervised fine-tuning."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit import chat, sft
from r1kit.engine import Engine, learning_rate, micro_batches
from r1kit.logprobs import response_logprobs
from r1kit.rows import SftRow
from r1kit.sampler import SamplingConfig, sample
from r1kit.sft import Example, SftConfig
from tests.r1kit.models import small_model

EXAMPLES = [Example([5, 6 + i % 3], [*[20 + i, 30, 40 + i][: 1 + i % 3], 3]) for i in range(12)]
CONFIG = SftConfig(
    learning_rate=1e-2,
    epochs=3,
    batch_size=4,
    max_length_tokens=16,
    micro_batch_tokens=16,
    checkpoint_every_steps=2,
    checkpoint_max_share=1,
)


class Killed(Exception):
    """Stands for SIGKILL."""


def _train(path: Path, config: SftConfig = CONFIG, log=lambda *_: None, examples=EXAMPLES):
    model, _ = small_model()
    metrics = sft.train(model, examples, config, seed=1, checkpoints=path, log=log)
    return [parameter.detach().numpy().tobytes() for parameter in model.parameters()], metrics


@pytest.mark.parametrize("kill_after", [1, 4, 8])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, kill_after: int) -> None:
    def die(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if step == kill_after:
            raise Killed

    with pytest.raises(Killed):
        _train(tmp_path / "killed", log=die)
    assert _train(tmp_path / "killed")[0] == _train(tmp_path / "whole")[0]


def _gradient(examples: list[Example], micro_batch_tokens: int) -> torch.Tensor:
    model, _ = small_model()
    sft._accumulate(Engine(model, CONFIG), examples, micro_batch_tokens)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_micro_batches_and_order_do_not_change_the_gradient() -> None:
    whole = _gradient(EXAMPLES, 10_000)
    assert torch.allclose(whole, _gradient(EXAMPLES, 1), atol=1e-6)
    assert torch.allclose(whole, _gradient(EXAMPLES[::-1], 64), atol=1e-6)


def test_only_tokens_that_predict_the_response_get_a_gradient() -> None:
    model, _ = small_model()
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        caught.append(output)

    model.model.norm.register_forward_hook(catch)
    sft._accumulate(Engine(model, CONFIG), [Example([5, 6, 7], [20, 3]), Example([8, 9], [21, 22, 3])], 100)
    touched = (caught[0].grad.abs().amax(2) > 0).int().tolist()  # pyright: ignore[reportOptionalMemberAccess]
    assert touched == [[0, 0, 1, 1, 0, 1, 1, 1]]  # end to end, each without its last token


@pytest.mark.parametrize("pad_is_end", [False, True])
def test_the_end_of_a_response_is_learned(tmp_path: Path, pad_is_end: bool) -> None:
    model, tokenizer = small_model()
    if pad_is_end:
        tokenizer.pad_token = tokenizer.eos_token
    texts = {"cat": "milk", "dog": "bones garden", "horse": "grass field grass field"}
    made = [
        SftRow(id=prompt, source="t", licence="MIT", prompt=prompt, response=text, kind="instruction")
        for prompt, text in texts.items()
    ]
    config = CONFIG.model_copy(update={"epochs": 60, "batch_size": 3, "max_length_tokens": 64, "warmup_steps": 5})
    sft.train(model, sft.examples(tokenizer, made), config, seed=0, checkpoints=tmp_path, log=lambda *_: None)
    prompts = [chat.prompt_ids(tokenizer, prompt) for prompt in texts]
    greedy = SamplingConfig(temperature=0.0, max_tokens=30)
    groups = sample(model, tokenizer, prompts, 1, greedy, seed=0, prompt_keys=[0, 1, 2])
    assert [(group[0].text, group[0].finished) for group in groups] == [(text, True) for text in texts.values()]


def test_the_loss_covers_the_response_and_its_end_token_alone() -> None:
    model, _ = small_model()
    with torch.no_grad():
        logprobs, mask, _ = response_logprobs(model, [[5, 6], [5]], [[20, 30, 3], [21, 3]])
        logits = model(torch.tensor([[5, 6, 20, 30, 3]])).logits[0].log_softmax(-1)
    assert mask.sum(1).tolist() == [3, 2]
    expected = [logits[1, 20], logits[2, 30], logits[3, 3]]
    assert logprobs[0].tolist() == pytest.approx([float(value) for value in expected], abs=1e-5)


def test_it_learns(tmp_path: Path) -> None:
    losses: list[float] = []
    config = CONFIG.model_copy(update={"epochs": 20})
    _train(tmp_path, config, lambda step, total, metrics: losses.append(metrics["loss"]))
    assert losses[-1] < losses[0] / 2


def test_rows_that_are_too_long_are_counted_and_none_left_is_an_error(tmp_path: Path) -> None:
    _, metrics = _train(tmp_path / "a", CONFIG.model_copy(update={"max_length_tokens": 4}))
    assert metrics["rows_too_long"] == 8 and metrics["rows"] == 4
    with pytest.raises(ValueError, match="max_length_tokens=2"):
        _train(tmp_path / "b", CONFIG.model_copy(update={"max_length_tokens": 2}))


def test_a_curriculum_keeps_the_rows_order(tmp_path: Path) -> None:
    seen: list[float] = []
    config = CONFIG.model_copy(update={"shuffle": False, "epochs": 1, "batch_size": 1})
    _train(tmp_path, config, lambda step, total, metrics: seen.append(metrics["tokens"]))
    assert seen == [float(example.num_tokens) for example in EXAMPLES]


def test_schedules_by_hand() -> None:
    assert [learning_rate(s, 4, 1.0, warmup=3) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    cosine = [learning_rate(s, 5, 2.0, schedule="cosine", final_ratio=0.1) for s in range(5)]
    assert cosine[0] == 2.0 and cosine[-1] == pytest.approx(0.2) and cosine[2] == pytest.approx(1.1)
    assert learning_rate(4, 5, 2.0, schedule="linear", final_ratio=0.5) == pytest.approx(1.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=20),
    st.integers(1, 40),
    st.booleans(),
)
def test_micro_batches_hold_every_row_once_and_their_limit(
    rows: list[tuple[int, int]], limit: int, sharing: bool
) -> None:
    lengths, prompts = [length for length, _ in rows], [prompt for _, prompt in rows]
    batches = micro_batches(lengths, limit, [(prompt, 5 + prompt) for prompt in prompts] if sharing else None)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        trunks = sum(5 + prompt for prompt in {prompts[row] for row in batch}) if sharing else 0
        assert sum(lengths[row] for row in batch) + trunks <= limit or len(batch) == 1


def test_a_group_that_fits_stays_together() -> None:
    batches = micro_batches([4, 9, 5, 8], 30, [(7, 10), (3, 2), (7, 10), (3, 2)])
    assert batches == [[0, 2], [3, 1]]
