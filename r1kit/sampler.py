"""Sampling completions from a policy: prompts computed once a group, finished rows leave the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from r1kit import chat, random
from r1kit.schema import Section

# Rows leave the batch once this share of it has finished: copying the cache costs more than it saves before.
_COMPACT_SHARE = 0.125


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
    for start in range(0, len(by_length), per_batch):
        chosen = by_length[start : start + per_batch]
        keys = random.row_keys(seed, step, [prompt_keys[index] for index in chosen], num_samples)
        rows = _sample_batch(model, tokenizer, [prompts[index] for index in chosen], num_samples, config, keys)
        for place, index in enumerate(chosen):
            groups[index] = rows[place * num_samples : (place + 1) * num_samples]
        if progress:
            progress(len(groups) * num_samples, len(prompts) * num_samples)
    model.train(was_training)
    return [groups[index] for index in range(len(prompts))]


def _sample_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Sequence[int]],
    num_samples: int,
    config: SamplingConfig,
    keys: Tensor,
) -> list[Completion]:
    ends = end_token_ids(tokenizer)
    device = model.device
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)  # [P, L], left-padded
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(num_samples)
    mask = mask.repeat_interleave(num_samples, 0)
    position = positions[:, -1:].repeat_interleave(num_samples, 0)
    logits = output.logits[:, -1].repeat_interleave(num_samples, 0)

    num_rows = len(prompts) * num_samples
    tokens = [[] for _ in range(num_rows)]
    logprobs = [[] for _ in range(num_rows)]
    rows = torch.arange(num_rows)  # which completion each row of the batch is
    alive = torch.ones(num_rows, dtype=torch.bool)
    end_ids = torch.tensor(sorted(ends))
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
        if num_alive <= len(rows) * (1 - _COMPACT_SHARE):
            keep = alive.nonzero().squeeze(1)
            kept = keep.to(device)
            rows, alive, drawn = rows[keep], alive[keep], drawn[kept]
            mask, position = mask[kept], position[kept]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        position = position + 1
        logits = model(
            input_ids=drawn[:, None], attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        ).logits[:, -1]
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
    scaled = logits / config.temperature
    if config.top_p < 1:
        ordered, order = scaled.sort(stable=True, dim=-1, descending=True)
        probability = ordered.softmax(-1)
        outside = probability.cumsum(-1) - probability >= config.top_p
        scaled = scaled.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
    logprobs = scaled.log_softmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)
    target = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)
    return token, logprobs.gather(1, token[:, None]).squeeze(1)
