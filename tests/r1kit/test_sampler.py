"""Laws of sampling."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit import chat
from r1kit.logprobs import response_logprobs
from r1kit.sampler import SamplingConfig, draw, end_token_ids, sample
from tests.r1kit.models import small_model

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [5, 20], [30, 31, 32, 33]]


def _draw_all(config: SamplingConfig, batch_size: int, prompts=PROMPTS, step: int = 0):
    model, tokenizer = small_model()
    return sample(
        model, tokenizer, prompts, 4, config, seed=3, step=step, prompt_keys=[sum(p) for p in prompts],
        batch_size=batch_size,
    )  # fmt: skip


def test_batching_does_not_change_what_is_drawn() -> None:
    config = SamplingConfig(max_tokens=12)
    together, alone = _draw_all(config, 64), _draw_all(config, 4)
    assert [[c.token_ids for c in group] for group in together] == [[c.token_ids for c in group] for group in alone]


def test_order_and_company_of_prompts_do_not_change_what_is_drawn() -> None:
    config = SamplingConfig(max_tokens=12)
    forward, backward = _draw_all(config, 64), _draw_all(config, 64, PROMPTS[::-1])
    assert [c.token_ids for c in forward[0]] == [c.token_ids for c in backward[-1]]


def test_many_answers_that_end_one_by_one_are_what_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sampler.end_token_ids", lambda _: set(range(24)))
    prompts = [[number, number + 1, number + 2] for number in range(30, 48)]
    config = SamplingConfig(max_tokens=40)
    together, alone = _draw_all(config, 128, prompts), _draw_all(config, 4, prompts)
    assert [[c.token_ids for c in group] for group in together] == [[c.token_ids for c in group] for group in alone]
    lengths = {len(c.token_ids) for group in together for c in group}
    assert len(lengths) > 10
    assert all(c.finished or len(c.token_ids) == 40 for group in together for c in group)


def test_another_step_draws_anew() -> None:
    config = SamplingConfig(max_tokens=12)
    assert _draw_all(config, 64)[0] != _draw_all(config, 64, step=1)[0]


@settings(deadline=None, max_examples=12)
@given(st.floats(0.2, 4.0))
def test_logprobs_as_sampled_equal_those_recomputed(temperature: float) -> None:
    model, tokenizer = small_model()
    config = SamplingConfig(temperature=temperature, max_tokens=12)
    groups = sample(model, tokenizer, PROMPTS, 4, config, seed=3, prompt_keys=[1, 2, 3, 4])
    for prompt, group in zip(PROMPTS, groups, strict=True):
        with torch.no_grad():
            logprobs, mask, _ = response_logprobs(model, [prompt] * 4, [c.token_ids for c in group], temperature)
        for row, completion in enumerate(group):
            recomputed = logprobs[row][mask[row]].tolist()
            assert recomputed == pytest.approx(list(completion.logprobs), abs=1e-4)


def test_a_completion_ends_with_the_end_token_or_at_the_limit() -> None:
    _, tokenizer = small_model()
    for completion in (c for group in _draw_all(SamplingConfig(max_tokens=200), 64) for c in group):
        assert completion.finished == (completion.token_ids[-1] == tokenizer.eos_token_id)
        assert completion.token_ids.count(tokenizer.eos_token_id) == completion.finished
        assert completion.finished or len(completion.token_ids) == 200


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    tokens, logprobs = draw(probabilities.log().expand(10_000, 4), uniform, SamplingConfig())
    assert (tokens.bincount(minlength=4) / 10_000).tolist() == pytest.approx(probabilities.tolist(), abs=1e-3)
    assert torch.allclose(logprobs.exp(), probabilities[tokens])


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens, _ = draw(probabilities.log().expand(1000, 4), uniform, SamplingConfig(top_p=0.7))
    assert sorted(set(tokens.tolist())) == [0, 1]


def test_greedy_takes_the_likeliest() -> None:
    tokens, _ = draw(torch.tensor([[0.1, 2.0, 0.3]]), torch.tensor([0.99]), SamplingConfig(temperature=0))
    assert tokens.tolist() == [1]


def test_the_token_that_training_ends_a_turn_with_ends_a_completion_too() -> None:
    model, tokenizer = small_model()
    tokenizer.chat_template = str(tokenizer.chat_template).replace(" <|end|> ", " <|user|> ")
    end = tokenizer.get_vocab()["<|user|>"]
    assert chat.training_ids(tokenizer, "tell me", "go away")[0][-1] == end != tokenizer.eos_token_id
    assert end_token_ids(tokenizer) == {end, tokenizer.get_vocab()["<|end|>"]}
    groups = sample(model, tokenizer, PROMPTS, 8, SamplingConfig(max_tokens=200), seed=3, prompt_keys=[1, 2, 3, 4])
    rows = [completion for group in groups for completion in group]
    assert any(completion.token_ids[-1] == end for completion in rows)
    assert all(end not in completion.token_ids[:-1] for completion in rows)
