"""Rows of any length in one forward pass: nothing is computed for padding, and a prompt once for all of its answers.

Tokens lie end to end, one row of the model's batch, so that every linear layer sees real tokens only. Attention alone
knows where one sequence ends: a *trunk* (a prompt, or a whole row) sees itself, a *branch* (one answer of a group) its
trunk and itself. Models take part through transformers' attention interface, whatever their architecture.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

_MAX_SCORES = 1 << 24
"""Most attention scores of branches that exist at once: longer ones are computed in stretches of queries."""

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Token ids of a trunk, and of the branches that grow out of it (none for a row of its own)."""


@dataclass(frozen=True)
class Layout:
    """Where each token lies: P trunks of up to L tokens and the branches that grow out of them, N tokens in all."""

    ids: Tensor
    """[N] tokens, all trunks first, then all branches."""
    positions: Tensor
    """[N] place in its own sequence, from 0; a branch goes on where its trunk ends."""
    trunks: "Padding"
    """Trunks as [P, L]."""
    hidden: Tensor | None
    """[P, L] True where a trunk is padded; None where none is."""
    branches: "tuple[Branches, ...]"
    """Branches of similar length together, so that little of them is padding."""
    branch_starts: tuple[tuple[int, ...], ...]
    """For each trunk the place among the N tokens at which each of its branches starts."""
    longest: int
    """Tokens of the longest trunk with a branch of its own."""


@dataclass(frozen=True)
class Branches:
    """Branches of similar length: up to S from each of some trunks, of up to T tokens."""

    padding: "Padding"
    """As [P, S, T]."""
    trunks: Tensor
    """[P] which trunks they grow out of."""
    hidden: Tensor | None
    """[P, L] True where such a trunk is padded; None where none is."""


@dataclass(frozen=True)
class Padding:
    """A padded view of some of the tokens."""

    shape: tuple[int, ...]
    gather: Tensor
    """[prod(shape)] token at each place; any token where padded."""
    scatter: Tensor
    """[n] place of each real token."""
    tokens: slice
    """Which of the N tokens these are."""


def lay_out(groups: Sequence[Group], device: torch.device) -> Layout:
    """Lay groups end to end."""
    trunks = [trunk for trunk, _ in groups]
    ids = [token for trunk in trunks for token in trunk]
    positions = [place for trunk in trunks for place in range(len(trunk))]
    trunk_padding, hidden = _pad([len(trunk) for trunk in trunks], [1] * len(trunks), 0, device)
    trunk_padding = replace(trunk_padding, shape=(len(trunks), trunk_padding.shape[2]))
    hidden = None if hidden is None else hidden[:, 0]
    starts = [[0] * len(branches) for _, branches in groups]
    parts: list[Branches] = []
    for parents, members in _by_length(groups):
        first = len(ids)
        for parent, member in zip(parents, members, strict=True):
            trunk, branches = groups[parent]
            for number in member:
                starts[parent][number] = len(ids)
                ids += branches[number]
                positions += range(len(trunk), len(trunk) + len(branches[number]))
        lengths = [len(groups[p][1][number]) for p, member in zip(parents, members, strict=True) for number in member]
        padding, _ = _pad(lengths, [len(member) for member in members], first, device)
        chosen = torch.tensor(parents, device=device)
        parts.append(Branches(padding, chosen, None if hidden is None else hidden[chosen]))
    return Layout(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        trunk_padding,
        hidden,
        tuple(parts),
        tuple(tuple(own) for own in starts),
        max(positions) + 1,
    )


def _by_length(groups: Sequence[Group]) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Branches whose lengths lie between the same powers of two: the trunks they belong to, and which of each one's
    branches they are. Empty branches are in none."""
    sizes = sorted({len(branch).bit_length() for _, branches in groups for branch in branches} - {0})
    for size in sizes:
        members = {
            parent: [number for number, branch in enumerate(branches) if len(branch).bit_length() == size]
            for parent, (_, branches) in enumerate(groups)
        }
        chosen = {parent: member for parent, member in members.items() if member}
        yield list(chosen), list(chosen.values())


def _pad(
    lengths: Sequence[int], counts: Sequence[int], start: int, device: torch.device
) -> tuple[Padding, Tensor | None]:
    """Padded view of sequences that lie end to end from token `start` on, and where it is padding.

    Args:
        lengths: tokens of each sequence.
        counts: how many of them belong together, in their order.
    """
    rows, slots = len(counts), max(counts)
    count, length = torch.tensor(counts), torch.tensor(lengths)
    first = count.cumsum(0) - count
    group = torch.arange(rows).repeat_interleave(count)
    slot = torch.arange(len(lengths)) - first[group]
    sizes, begins = torch.zeros(rows, slots, dtype=torch.long), torch.zeros(rows, slots, dtype=torch.long)
    sizes[group, slot], begins[group, slot] = length, start + length.cumsum(0) - length
    places = torch.arange(int(length.max()))
    real = places < sizes[..., None]  # [P, S, T]
    gather = torch.where(real, begins[..., None] + places, start)
    scatter = real.flatten().nonzero().squeeze(1)
    tokens = slice(start, start + len(scatter))
    padding = Padding(tuple(real.shape), gather.flatten().to(device), scatter.to(device), tokens)
    return padding, None if bool(real.all()) else ~real.to(device)


def hidden_states(model: nn.Module, layout: Layout, keep: "KeyValues | None" = None) -> Tensor:
    """Last hidden state of every token: [N, D].

    Args:
        keep: takes the trunks' keys and values of every layer.
    """
    body = base_model(model)
    with attention_by(body, "r1kit_ragged"):
        output = body(
            input_ids=layout.ids[None],
            position_ids=layout.positions[None],
            use_cache=False,
            ragged=layout,
            ragged_keep=keep,
        )
    return output.last_hidden_state[0]


def base_model(model: nn.Module) -> PreTrainedModel:
    """A model without its language-model head."""
    assert isinstance(model, PreTrainedModel), "a transformers model"
    return model.base_model  # pyright: ignore[reportReturnType]


@contextmanager
def attention_by(body: PreTrainedModel, name: str) -> Iterator[None]:
    """Let a model's layers attend through a function that transformers' interface knows by name.

    Raises:
        ValueError: where its layers do not ask that interface.
    """
    if not getattr(body, "_supports_attention_backend", False):
        raise ValueError(
            f"{type(body).__name__} does not take its attention from transformers' interface: choose another model"
        )
    before = body.config._attn_implementation
    body.config._attn_implementation = name
    try:
        yield
    finally:
        body.config._attn_implementation = before


class KeyValues:
    """Keys and values of each layer, as they are computed."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    scaling: float,
    ragged: Layout,
    ragged_keep: KeyValues | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: query [1, H, N, D], key and value [1, K, N, D] -> [1, N, H, D]."""
    check_plain(module, ragged.longest, dropout, others)
    queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
    return attend(queries, keys, values, scaling, ragged, ragged_keep)[None], None


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, scaling: float, layout: Layout, keep: KeyValues | None = None
) -> Tensor:
    """Attention of all tokens in one layer: queries [N, H, D], keys and values [N, K, D] -> [N, H, D].

    Args:
        scaling: of the scores.
        keep: takes the trunks' keys and values, [P, K, L, D].
    """
    q, k, v = (_Pad.apply(part, layout.trunks).transpose(1, 2) for part in (queries, keys, values))  # [P, heads, L, D]
    if keep is not None:
        keep.layers.append((k, v))
    output = functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    output = _Unpad.apply(output.transpose(1, 2), layout.trunks)
    outputs = [output]
    for part in layout.branches:
        own = [_Pad.apply(tokens, part.padding) for tokens in (queries, keys, values)]  # [P, S, T, heads, D]
        trunk = [tensor if len(part.trunks) == len(k) else tensor.index_select(0, part.trunks) for tensor in (k, v)]
        branched = _BranchAttention.apply(*own, *trunk, part.hidden, scaling)
        outputs.append(_Unpad.apply(branched, part.padding))
    return torch.cat(outputs) if len(outputs) > 1 else output


AttentionInterface.register("r1kit_ragged", _attend)


def check_plain(module: nn.Module, longest: int, dropout: float, others: dict[str, Any]) -> None:
    """Raise ValueError for attention that is not softmax over everything before, which is up to `longest` tokens."""
    model = type(module).__name__
    window = others.get("sliding_window")
    if window is not None and longest > window:
        raise ValueError(
            f"{model} attends to the last {window} tokens only, but a sequence has {longest}: shorten it, or choose "
            "another model"
        )
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise ValueError(f"{model} attends with {name}, which r1kit does not: choose another model")
    if dropout:
        raise ValueError(f"attention_dropout is {dropout}: set it to 0 in the model's config.json")


class _Pad(torch.autograd.Function):
    """[N, ...] -> [*shape, ...]; what is padding holds another token's values, and gives no gradient back."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, padding: Padding) -> Tensor:
        ctx.padding, ctx.size = padding, tokens.shape
        return tokens.index_select(0, padding.gather).view(*padding.shape, *tokens.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        padding: Padding = ctx.padding
        result = grad.new_zeros(ctx.size)
        places = len(padding.gather)
        torch.index_select(grad.reshape(places, *ctx.size[1:]), 0, padding.scatter, out=result[padding.tokens])
        return result, None


class _Unpad(torch.autograd.Function):
    """[*shape, ...] -> [n, ...]: the real tokens."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, padding: Padding) -> Tensor:
        ctx.padding, ctx.size = padding, padded.shape
        rest = padded.shape[len(padding.shape) :]
        return padded.reshape(len(padding.gather), *rest).index_select(0, padding.scatter)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        padding: Padding = ctx.padding
        result = grad.new_zeros(len(padding.gather), *grad.shape[1:])
        return result.index_copy_(0, padding.scatter, grad).view(ctx.size), None


class _BranchAttention(torch.autograd.Function):
    """Softmax attention of branches to their trunk and, causally, to themselves, without copying the trunk.

    One softmax over both parts. Weights are not kept for the backward pass but computed again, in stretches of queries,
    as FlashAttention does (arXiv 2205.14135, section 3.1).

    Args:
        query: [P, S, T, H, D]; key, value: [P, S, T, K, D] with H = K G; trunk_key, trunk_value: [P, K, L, D];
        hidden: [P, L] True where a trunk is padded; scaling: of the scores.

    Returns:
        [P, S, T, H, D]
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        trunk_key: Tensor,
        trunk_value: Tensor,
        hidden: Tensor | None,
        scaling: float,
    ) -> Tensor:
        q, k, v = _by_head(query, key.shape[3]), _by_head(key), _by_head(value)  # [P, K, S, G, T, D], [P, K, S, T, D]
        output = torch.empty_like(q)
        for start, end in _stretches(q, trunk_key.shape[2]):
            trunk, own = _weights(q, k, trunk_key, hidden, scaling, start, end)
            output[..., start:end, :] = _mix(trunk, trunk_value, own, v[..., :end, :])
        ctx.save_for_backward(q, k, v, trunk_key, trunk_value, output)
        ctx.hidden, ctx.scaling = hidden, scaling
        return _by_token(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, trunk_key, trunk_value, output = ctx.saved_tensors
        wanted = _by_head(grad, k.shape[1])
        pull = (wanted * output).sum(-1)
        grads = [torch.zeros_like(tensor) for tensor in (q, k, v, trunk_key, trunk_value)]
        d_q, d_k, d_v, d_trunk_key, d_trunk_value = grads
        for start, end in _stretches(q, trunk_key.shape[2]):
            trunk, own = _weights(q, k, trunk_key, ctx.hidden, ctx.scaling, start, end)
            part = slice(start, end)
            out, queries = wanted[..., part, :], q[..., part, :]
            _add_outer(d_trunk_value, trunk, out)
            _add_outer(d_v[..., :end, :], own, out)
            d_trunk, d_own = _products(out, trunk_value, v[..., :end, :])
            d_trunk, d_own = (
                d.sub_(pull[..., part, None]).mul_(p).mul_(ctx.scaling) for d, p in ((d_trunk, trunk), (d_own, own))
            )
            _add_outer(d_trunk_key, d_trunk, queries)
            _add_outer(d_k[..., :end, :], d_own, queries)
            d_q[..., part, :] = _mix(d_trunk, trunk_key, d_own, k[..., :end, :])
        return _by_token(d_q), _by_token(d_k), _by_token(d_v), d_trunk_key, d_trunk_value, None, None


def _by_head(tokens: Tensor, num_key_heads: int | None = None) -> Tensor:
    """[P, S, T, K, D] -> [P, K, S, T, D]; with heads in groups [P, S, T, K G, D] -> [P, K, S, G, T, D]."""
    if num_key_heads is None:
        return tokens.permute(0, 3, 1, 2, 4).contiguous()
    return tokens.unflatten(3, (num_key_heads, -1)).permute(0, 3, 1, 4, 2, 5).contiguous()


def _by_token(heads: Tensor) -> Tensor:
    """Undo `_by_head`."""
    if heads.ndim == 5:
        return heads.permute(0, 2, 3, 1, 4)
    return heads.permute(0, 2, 4, 1, 3, 5).flatten(3, 4)


def _stretches(query: Tensor, trunk_length: int) -> Iterator[tuple[int, int]]:
    """Stretches of queries whose scores are few enough to exist at once."""
    length = query.shape[-2]
    rows = query.numel() // (query.shape[-1] * length)
    step = max(1, min(length, _MAX_SCORES // (rows * (trunk_length + length))))
    for start in range(0, length, step):
        yield start, min(start + step, length)


def _weights(
    q: Tensor, k: Tensor, trunk_key: Tensor, hidden: Tensor | None, scaling: float, start: int, end: int
) -> tuple[Tensor, Tensor]:
    """What queries from start to end take from the trunk [P, K, S, G, t, L] and from their own [P, K, S, G, t, end]."""
    trunk, own = _products(q[..., start:end, :], trunk_key, k[..., :end, :])
    if hidden is not None:
        trunk.masked_fill_(hidden[:, None, None, None, None], -torch.inf)
    places = torch.arange(end, device=q.device)
    own.masked_fill_(places > places[start:, None], -torch.inf)
    scores = torch.cat([trunk, own], -1).mul_(scaling)
    weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    return weights[..., : trunk.shape[-1]], weights[..., trunk.shape[-1] :]


def _products(q: Tensor, trunk: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Products of [P, K, S, G, t, D] with trunk tokens [P, K, L, D] and with own ones [P, K, S, T, D]."""
    shape = q.shape[:-1]
    with_trunk = q.flatten(2, 4) @ trunk.transpose(-1, -2)  # [P, K, S G t, L]
    with_own = q.flatten(3, 4) @ own.transpose(-1, -2)  # [P, K, S, G t, T]
    return with_trunk.view(*shape, -1), with_own.view(*shape, -1)


def _mix(trunk: Tensor, trunk_value: Tensor, own: Tensor, value: Tensor) -> Tensor:
    """Weighted sums of trunk tokens and own ones: [P, K, S, G, t, D]."""
    shape = trunk.shape[:-1]
    from_trunk = trunk.flatten(2, 4) @ trunk_value
    return from_trunk.view(*shape, -1) + (own.flatten(3, 4) @ value).view(*shape, -1)


def _add_outer(into: Tensor, weights: Tensor, rows: Tensor) -> None:
    """Add what queries [P, K, S, G, t, D] give back, by weight, to trunk [P, K, L, D] or own tokens [P, K, S, T, D]."""
    first = 2 if into.ndim == 4 else 3
    into += weights.flatten(first, 4).transpose(-1, -2) @ rows.flatten(first, 4)
