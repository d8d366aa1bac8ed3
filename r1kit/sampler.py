"""Sampling completions from a policy: prompts computed once a group, finished rows leave the batch."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1kit import chat, random
from r1kit.decode import Decoder
from r1kit.fast_linear import packed_linears, swift_count
from r1kit.lean_llama import LeanLlama, lean
from r1kit.schema import Section

# Rows leave the batch once this share of it has finished: copying the cache costs more than it saves before.
_COMPACT_SHARE = 0.125
# Probabilities are summed in blocks of this size before one is looked for inside its block.
_BLOCK = 256
# A nucleus is looked for among this many likeliest tokens first.
_FIRST_NUCLEUS = 512


class SamplingConfig(Section):
    """How completions are drawn."""

    temperature: float = Field(default=1.0, ge=0.0)
    """0 means greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus: the smallest set of tokens with at least this probability."""
    max_tokens: int = Field(default=512, gt=0)
    """Most tokens of a completion, the end token included."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer."""

    token_ids: tuple[int, ...]
    """The end token included, where it was reached."""
    text: str
    """Decoded, without the end token; the reasoning tags are kept."""
    logprobs: tuple[float, ...]
    """Of each token, in nats, under the distribution it was drawn from."""
    finished: bool
    """Whether the end token was reached within the limit."""


def end_token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end a completion: the one that ends a turn in training, and the EOS token where it is another.

    Raises:
        ValueError: if the tokenizer has neither.
    """
    ends = {chat.end_id(tokenizer)}
    return ends | {tokenizer.eos_token_id} if isinstance(tokenizer.eos_token_id, int) else ends


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    num_samples: int,
    config: SamplingConfig,
    *,
    seed: int,
    prompt_keys: Sequence[int],
    step: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Completion]]:
    """Draw `num_samples` completions for each prompt.

    A token depends on (seed, step, prompt key, sample, position) and on the model alone: neither the batch it
    is computed in nor what the other rows do changes what is drawn.

    Args:
        prompts: token ids, one list a prompt.
        prompt_keys: an integer that names each prompt.
        batch_size: most completions computed together.
        progress: called with (completions done, all completions) after each batch.

    Returns:
        One list of `num_samples` completions a prompt, in the order of the prompts.
    """
    if not prompts:
        return []
    was_training = model.training
    model.eval()
    per_batch = max(1, batch_size // num_samples)
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    groups: dict[int, list[Completion]] = {}
    light = lean(model)
    with packed_linears(model) if light is None else nullcontext():
        for start in range(0, len(by_length), per_batch):
            chosen = by_length[start : start + per_batch]
            keys = random.row_keys(seed, step, [prompt_keys[index] for index in chosen], num_samples)
            batch = [prompts[index] for index in chosen]
            rows = _sample_batch(model, light, tokenizer, batch, num_samples, config, keys)
            for place, index in enumerate(chosen):
                groups[index] = rows[place * num_samples : (place + 1) * num_samples]
            if progress:
                progress(len(groups) * num_samples, len(prompts) * num_samples)
    model.train(was_training)
    return [groups[index] for index in range(len(prompts))]


def _sample_batch(
    model: PreTrainedModel,
    light: LeanLlama | None,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Sequence[int]],
    num_samples: int,
    config: SamplingConfig,
    keys: Tensor,
) -> list[Completion]:
    ends = end_token_ids(tokenizer)
    end_ids = torch.tensor(sorted(ends))
    decoder = Decoder(model, prompts, num_samples, light)
    logits = decoder.first_logits()
    num_rows = len(prompts) * num_samples
    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    logprobs: list[list[float]] = [[] for _ in range(num_rows)]
    rows = torch.arange(num_rows)  # which completion each row of the batch is
    alive = torch.ones(num_rows, dtype=torch.bool)
    for step in range(config.max_tokens):
        drawn, drawn_logprobs = draw(logits, random.uniforms(keys[rows], step), config)
        for row, live, token, logprob in zip(
            rows.tolist(), alive.tolist(), drawn.tolist(), drawn_logprobs.tolist(), strict=True
        ):
            if live:
                tokens[row].append(token)
                logprobs[row].append(logprob)
        alive &= ~torch.isin(drawn.cpu(), end_ids)
        num_alive = int(alive.sum())
        if num_alive == 0 or step + 1 == config.max_tokens:
            break
        stay = swift_count(num_alive)
        if stay <= len(rows) * (1 - _COMPACT_SHARE):
            keep = alive.sort(descending=True, stable=True).indices[:stay].sort().values  # some that are done may stay
            kept = keep.to(drawn.device)
            rows, alive, drawn = rows[keep], alive[keep], drawn[kept]
            decoder.keep(kept)
        logits = decoder.step(drawn)
    return [_completion(tokenizer, tokens[row], logprobs[row], ends) for row in range(num_rows)]


def _completion(
    tokenizer: PreTrainedTokenizerBase, tokens: list[int], logprobs: list[float], ends: set[int]
) -> Completion:
    finished = bool(tokens) and tokens[-1] in ends
    text = tokenizer.decode(tokens[:-1] if finished else tokens, skip_special_tokens=False)
    return Completion(tuple(tokens), str(text), tuple(logprobs), finished)


def draw(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Invert the cumulative distribution at one uniform number a row.

    Args:
        logits: [rows, vocabulary].
        uniform: [rows] in (0, 1).

    Returns:
        Token ids [rows] and their log-probabilities [rows] under the distribution drawn from (nats);
        greedy decoding reports the log-probability at temperature 1.
    """
    logits = logits.float()
    if config.temperature == 0:
        token = logits.argmax(-1)
        return token, logits.log_softmax(-1).gather(1, token[:, None]).squeeze(1)
    probability = (logits if config.temperature == 1 else logits / config.temperature).softmax(-1)
    if config.top_p < 1:
        probability = probability.where(probability >= _nucleus_floor(probability, config.top_p), 0.0)
    width = probability.shape[1]
    padded = functional.pad(probability, (0, -width % _BLOCK)) if width % _BLOCK else probability
    blocks = padded.unflatten(1, (-1, _BLOCK))  # [rows, blocks, _BLOCK]
    ends = blocks.sum(-1).double().cumsum(-1)
    target = uniform.to(ends.device)[:, None] * ends[:, -1:] * (1 - 1e-12)
    block = torch.searchsorted(ends, target, right=True).clamp(max=ends.shape[1] - 1)  # [rows, 1]
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.take_along_dim(block[..., None], 1).squeeze(1).double().cumsum(-1)
    # Summed in another order the last token may end a rounding before the block does: then it is the one.
    place = torch.searchsorted(inside, torch.minimum(target - before, inside[:, -1:] * (1 - 1e-12)), right=True)
    token = (block * _BLOCK + place).squeeze(1).clamp(max=width - 1)  # where nothing is finite, any token
    share = probability.gather(1, token[:, None]).squeeze(1)
    return token, (share.double() / ends[:, -1]).log().float()


def _nucleus_floor(probability: Tensor, top_p: float) -> Tensor:
    """[rows, 1] the least probability in the smallest set of tokens that holds `top_p`; ties belong to it."""
    size = min(_FIRST_NUCLEUS, probability.shape[1])
    likeliest = probability.topk(size, -1).values
    if size < probability.shape[1] and bool((likeliest.sum(-1) < top_p).any()):
        likeliest = probability.sort(-1, descending=True).values
    outside = likeliest.cumsum(-1) - likeliest >= top_p
    return likeliest.masked_fill(outside, torch.inf).amin(-1, keepdim=True)
