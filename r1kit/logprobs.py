"""Log-probabilities of responses: no logits for prompt tokens, and no more than a chunk of them at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from r1kit.ragged import Group, Layout, hidden_states, lay_out

_MAX_LOGITS = 1 << 27
"""Most logits that exist at once. A pass with more computes them again, chunk by chunk, for its gradient."""
_BLOCK = 1 << 21
"""Logits that a processor's cache holds, more or less."""


def response_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of every response token given what stands before it.

    Equal prompts are computed once. Nothing is computed for padding, nor logits for prompt tokens.

    Args:
        prompts, responses: token ids of each row, neither empty.
        temperature: the logits are divided by it, as when sampling.

    Returns:
        ([R, T] log-probabilities in nats, 0 where padded; [R, T] mask; [R, T] entropy in nats, without gradient)
    """
    assert isinstance(model, PreTrainedModel), "a transformers model"
    device = model.device
    layout, places, order = _arrange(prompts, responses, device)
    hidden = hidden_states(model, layout).index_select(0, places)  # [N, D]
    targets = torch.tensor([token for row in order for token in responses[row]], device=device)
    logprobs, entropy = token_logprobs(model, hidden, targets, temperature)
    lengths = torch.tensor([len(response) for response in responses], device=device)
    mask = torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]
    inverse = torch.tensor(order, device=device).argsort()
    ordered = mask[torch.tensor(order, device=device)]
    padded = [torch.zeros(mask.shape, device=device).masked_scatter(ordered, part) for part in (logprobs, entropy)]
    return padded[0].index_select(0, inverse), mask, padded[1].index_select(0, inverse)


def _arrange(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device
) -> tuple[Layout, Tensor, list[int]]:
    """Lay rows out by prompt.

    Returns:
        (the layout, [N] the token whose hidden state predicts each response token, the rows in that order)
    """
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows_of.setdefault(tuple(prompt), []).append(row)
    groups: list[Group] = []
    for prompt, rows in rows_of.items():
        answers = [responses[row][:-1] for row in rows]  # the last token predicts nothing
        groups.append((prompt, answers) if len(rows) > 1 else ([*prompt, *answers[0]], []))
    layout = lay_out(groups, device)
    places: list[int] = []
    end = 0
    for (trunk, _), starts, (prompt, rows) in zip(groups, layout.branch_starts, rows_of.items(), strict=True):
        last = end + len(prompt) - 1
        end += len(trunk)
        if len(rows) == 1:
            places += range(last, last + len(responses[rows[0]]))
        for start, row in zip(starts, rows, strict=False):
            places += (last, *range(start, start + len(responses[row]) - 1))
    return layout, torch.tensor(places, device=device), [row for rows in rows_of.values() for row in rows]


def token_logprobs(
    model: nn.Module, hidden: Tensor, targets: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and the entropy of its distribution.

    Args:
        hidden: [N, D] last hidden states.
        targets: [N] token ids.

    Returns:
        ([N] nats, [N] nats without gradient)
    """
    assert isinstance(model, PreTrainedModel), "a transformers model"
    head = model.get_output_embeddings()
    assert head is not None, "a causal language model has one"

    def of_chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _TakeLogprob.apply(head(hidden).float(), targets, temperature)

    size = max(1, _MAX_LOGITS // model.config.get_text_config().vocab_size)
    if len(targets) <= size:
        return of_chunk(hidden, targets)
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(of_chunk, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    else:
        parts = [of_chunk(*chunk) for chunk in chunks]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


class _TakeLogprob(torch.autograd.Function):
    """log_softmax(logits / temperature)[target] and the entropy, in the memory of the logits, which are lost.

    Args:
        logits: [N, V] float32, just made by a linear layer, which does not need them for its gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        values, entropies = [], []
        for rows, target in zip(_blocks(logits), _blocks(targets, logits.shape[1]), strict=True):
            rows = rows.detach()
            if temperature != 1:
                rows.div_(temperature)
            logprobs = rows.log_softmax(-1)
            values.append(logprobs.gather(1, target[:, None]).squeeze(1))
            torch.softmax(rows, -1, out=rows)
            entropies.append(-torch.linalg.vecdot(rows, logprobs))
        ctx.save_for_backward(targets)
        ctx.probability, ctx.temperature = logits.detach(), temperature
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(values), entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (targets,) = ctx.saved_tensors
        result: Tensor = ctx.probability
        ctx.probability = None  # used up
        scaled = grad / ctx.temperature
        result.mul_(-scaled[:, None])
        result.scatter_add_(1, targets[:, None], scaled[:, None])
        return result, None, None


def _blocks(rows: Tensor, width: int | None = None) -> tuple[Tensor, ...]:
    """Stretches of rows that fit the cache, `width` numbers a row."""
    return rows.split(max(1, _BLOCK // (width or rows.shape[1])))
