"""Laws of rows laid end to end: each is what it is alone, whatever lies beside it and whatever it shares."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from r1kit import logprobs, ragged
from r1kit.decode import Decoder
from r1kit.fast_linear import packed_linears
from r1kit.lean_llama import lean
from r1kit.logprobs import response_logprobs
from r1kit.ragged import _BranchAttention, hidden_states, lay_out
from tests.r1kit.models import small_model

VOCABULARY = 60
FAMILIES = {
    "llama": (LlamaConfig, {}),
    "llama without attention groups": (LlamaConfig, {"num_key_value_heads": 4}),
    "llama with biases": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "qwen 2.5": (Qwen2Config, {}),
    "qwen 3": (Qwen3Config, {"head_dim": 8}),
    "mistral whose window is wide enough": (MistralConfig, {"sliding_window": 16}),
}


def _family(name: str) -> PreTrainedModel:
    kind, more = FAMILIES[name]
    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 32, **more}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(kind(**shape))
        for name, parameter in model.named_parameters():  # fresh ones hide much: biases of 0, norms of 1, scores near 0
            nn.init.normal_(parameter, float("norm" in name), 0.3)
        return model


def _by_transformers(model: PreTrainedModel, prompt: list[int], response: list[int], temperature: float):
    """Log-probabilities and entropies of one row, by the model's own forward."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1] / temperature
    logp = logits.log_softmax(-1)
    return logp.gather(1, torch.tensor(response)[:, None]).squeeze(1), -(logp.exp() * logp).sum(-1)


def _gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


PROMPTS = [[5, 6, 7], [9, 8], [5, 6, 7], [3], [9, 8], [5, 6, 7]]
RESPONSES = [[10, 11, 12], [4], [7, 8, 9, 10, 11], [9, 9, 8], [3, 3], [20]]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_what_it_is_alone(name: str) -> None:
    model, temperature = _family(name), 0.7
    weights = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    together, mask, entropy = response_logprobs(model, PROMPTS, RESPONSES, temperature)
    (together * weights).sum().backward()
    found = _gradients(model)
    model.zero_grad()
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        alone, uncertainty = _by_transformers(model, prompt, response, temperature)
        (alone * weights[row, : len(response)]).sum().backward()
        assert mask[row].tolist() == [place < len(response) for place in range(5)]
        assert torch.allclose(together[row][mask[row]], alone, atol=1e-5)
        assert torch.allclose(entropy[row][mask[row]], uncertainty, atol=1e-5)
        assert not together[row][~mask[row]].any()
    for key, gradient in _gradients(model).items():
        assert torch.allclose(found[key], gradient, atol=1e-5), key


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), min_size=1, max_size=10),
    st.integers(1, 300),
    st.integers(1, 2000),
    st.integers(0, 99),
)
def test_neither_sharing_nor_stretches_nor_chunks_change_the_gradient(
    rows: list[tuple[int, int]], scores: int, logits: int, seed: int
) -> None:
    model, _ = small_model()
    generator = torch.Generator().manual_seed(seed)
    prompts = [[5, 6, 7, 8][: 1 + prompt] for prompt, _ in rows]
    responses = [torch.randint(5, 200, (length,), generator=generator).tolist() for _, length in rows]
    weights = torch.rand(len(rows), 7, generator=generator)

    def gradient(chosen: list[int]) -> None:
        found, _, _ = response_logprobs(model, [prompts[row] for row in chosen], [responses[row] for row in chosen])
        (found * weights[chosen, : found.shape[1]]).sum().backward()

    for row in range(len(rows)):
        gradient([row])
    alone = _gradients(model)
    model.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_MAX_SCORES", scores)
        patch.setattr(logprobs, "_MAX_LOGITS", logits)
        patch.setattr(logprobs, "_BLOCK", logits)
        gradient(torch.randperm(len(rows), generator=generator).tolist())
    rounding = 1e-5 * max(1.0, max(float(gradient.abs().max()) for gradient in alone.values()))
    assert all(torch.allclose(alone[name], value, atol=rounding) for name, value in _gradients(model).items())


def test_no_row_sees_another() -> None:
    model = _family("llama")
    before, _, _ = response_logprobs(model, PROMPTS, RESPONSES)
    changed = copy.deepcopy(RESPONSES)
    changed[2] = [50, 51, 52, 53, 54]
    after, _, _ = response_logprobs(model, PROMPTS, changed)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(before[others], after[others])
    assert not torch.isclose(before[2], after[2]).any()


@pytest.mark.parametrize("hidden", [None, torch.tensor([[False, False, False], [False, False, True]])])
def test_the_gradient_of_branch_attention_is_that_of_its_values(hidden: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 2, 3, 4, 2), (2, 2, 3, 2, 2), (2, 2, 3, 2, 2), (2, 2, 3, 2), (2, 2, 3, 2)]
    parts = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(lambda *tensors: _BranchAttention.apply(*tensors, hidden, 0.7), parts)


def test_a_window_that_is_too_narrow_is_refused() -> None:
    model = _family("mistral whose window is wide enough")
    long = [7] * 17
    with pytest.raises(ValueError, match="attends to the last 16 tokens only, but a sequence has 17"):
        hidden_states(model, lay_out([(long, [])], model.device))
    decoder = Decoder(model, [long[:15]], 1)
    decoder.step(torch.tensor([3]))
    with pytest.raises(ValueError, match="a sequence has 17"):
        decoder.step(torch.tensor([3]))


def test_a_model_that_attends_otherwise_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(
        GPTNeoXConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    model.base_model._supports_attention_backend = False
    with pytest.raises(ValueError, match="does not take its attention from transformers' interface"):
        hidden_states(model, lay_out([([5, 6], [])], model.device))
    model = _family("llama").train()
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.__dict__["attention_dropout"] = 0.1
    with pytest.raises(ValueError, match=r"attention_dropout is 0\.1: set it to 0"):
        hidden_states(model, lay_out([([5, 6], [])], model.device))


LEAN = {name for name, (kind, _) in FAMILIES.items() if kind in (LlamaConfig, Qwen2Config)}


@pytest.mark.parametrize("num_samples", [3, 16], ids=["few rows", "many rows"])
@pytest.mark.parametrize("light", [True, False], ids=["lean", "by transformers"])
@pytest.mark.parametrize("name", FAMILIES)
def test_decoding_gives_the_logits_of_the_whole_sequence_while_rows_leave(
    name: str, light: bool, num_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1kit.decode._FIRST_CAPACITY", 3)  # the buffers grow on the way
    model = _family(name)
    form = lean(model)  # before the layers are packed: a packed one has none
    assert (form is not None) == (name in LEAN)
    prompts = [[5, 6, 7, 8], [9], [10, 11]]
    rows = [list(prompt) for prompt in prompts for _ in range(num_samples)]
    alive = torch.arange(len(rows))
    leaving: dict[int, Callable[[Tensor], Tensor]] = {  # first two, then a third, last a whole group
        2: lambda row: (row != 3) & (row != 7),
        4: lambda row: row % 3 < 2,
        5: lambda row: row >= num_samples,
    }
    with torch.no_grad(), packed_linears(model):
        decoder = Decoder(model, prompts, num_samples, form if light else None)
        logits = decoder.first_logits()
        for step in range(8):
            whole = [model(torch.tensor([rows[row]])).logits[0, -1] for row in alive.tolist()]
            assert torch.allclose(logits, torch.stack(whole), atol=1e-5)
            if step in leaving:
                kept = leaving[step](alive).nonzero().squeeze(1)
                alive = alive[kept]
                decoder.keep(kept)
            tokens = (alive * 7 + step * 3) % VOCABULARY
            for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
                rows[row].append(token)
            logits = decoder.step(tokens)


def test_packed_weights_multiply_as_the_plain_ones_and_go_away() -> None:
    model = _family("llama with biases")
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    for count in (1, 7, 600):
        tokens = torch.randn(count, 16)
        with torch.no_grad():
            plain = layer(tokens)
            with packed_linears(model):
                packed = layer(tokens)
        assert torch.allclose(plain, packed, atol=1e-6)
    assert "forward" not in layer.__dict__


def test_a_model_that_is_not_plain_has_no_lean_form() -> None:
    windowed: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    shape: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "intermediate_size": 16}  # fmt: skip
    for config in (Qwen2Config(**shape, **windowed), LlamaConfig(**shape, hidden_act="gelu")):
        assert lean(AutoModelForCausalLM.from_config(config)) is None
    model = _family("llama")
    assert lean(model.double()) is None
    model.float().get_submodule("model.layers.0").register_forward_pre_hook(lambda *_: None)
    assert lean(model) is None
