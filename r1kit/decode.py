"""Decoding groups of answers token by token: the prompt's keys and values once a group, an answer's in one buffer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from r1kit.ragged import KeyValues, attention_by, base_model, check_plain, hidden_states, lay_out

_FIRST_CAPACITY = 32
"""Tokens of an answer that the buffers hold at first; they double when full."""


class Decoder:
    """R answers to P prompts, one token further at each call. Rows that are done can leave."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], num_samples: int) -> None:
        """Compute the prompts.

        Args:
            prompts: token ids.
            num_samples: answers to each, whose rows stand together.
        """
        device = model.device
        self._model = model
        layout = lay_out([(prompt, ()) for prompt in prompts], device)
        kept = KeyValues()
        hidden = hidden_states(model, layout, kept)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._last = hidden[lengths.cumsum(0) - 1]  # [P, D]
        self._trunks = [(key.contiguous(), value.contiguous()) for key, value in kept.layers]
        self._hidden = layout.hidden
        self._positions = lengths.repeat_interleave(num_samples)
        self._own: list[tuple[Tensor, Tensor]] = []
        self._group = torch.arange(len(prompts), device=device).repeat_interleave(num_samples)
        self._num_samples = num_samples
        self._slots = _Slots(self._group)
        self.longest = layout.longest
        """Tokens of the longest row, with its prompt."""
        self._length = 0
        self._layer = 0

    def first_logits(self) -> Tensor:
        """[R, V] after the prompts."""
        return _logits(self._model, self._last).repeat_interleave(self._num_samples, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each row.

        Args:
            tokens: [R].

        Returns:
            [R, V] logits of the next one.
        """
        self._layer = 0
        self.longest += 1
        body = base_model(self._model)
        with attention_by(body, "r1kit_decode"):
            output = body(
                input_ids=tokens[None], position_ids=self._positions[None], use_cache=False, ragged_decoder=self
            )
        self._length += 1
        self._positions = self._positions + 1
        return _logits(self._model, output.last_hidden_state[0])

    def keep(self, rows: Tensor) -> None:
        """Let all rows but these leave.

        Args:
            rows: indices, ascending.
        """
        self._positions, self._group = self._positions[rows], self._group[rows]
        length = self._length
        self._own = [(_select(key, rows, length), _select(value, rows, length)) for key, value in self._own]
        groups, self._group = self._group.unique(return_inverse=True)
        if len(groups) < len(self._trunks[0][0]):
            self._trunks = [(key[groups], value[groups]) for key, value in self._trunks]
            self._hidden = None if self._hidden is None else self._hidden[groups]
        self._slots = _Slots(self._group)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """One layer's attention of the newest tokens: [R, H, D], [R, K, D], [R, K, D] -> [R, H, D]."""
        own_key, own_value = self._append(key, value)  # [R, K, T, D]
        trunk_key, trunk_value = self._trunks[self._layer]  # [P, K, L, D]
        self._layer += 1
        rows, num_key_heads, width = key.shape
        grouped = query.reshape(rows, num_key_heads, -1, width) * scaling  # [R, K, G, D]
        slots = self._slots
        with_trunk = slots.to_groups(grouped) @ trunk_key.transpose(-1, -2)  # [P, K, S G, L]
        if self._hidden is not None:
            with_trunk.masked_fill_(self._hidden[:, None, None], -torch.inf)
        with_own = grouped @ own_key.transpose(-1, -2)  # [R, K, G, T]
        scores = torch.cat([slots.to_rows(with_trunk, grouped.shape[2]), with_own], -1)
        weights = scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
        num_trunk = trunk_key.shape[2]
        from_trunk = slots.to_groups(weights[..., :num_trunk]) @ trunk_value  # [P, K, S G, D]
        mixed = slots.to_rows(from_trunk, grouped.shape[2]) + weights[..., num_trunk:] @ own_value
        return mixed.reshape(query.shape)

    def _append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write this layer's newest key and value; return all of them."""
        if self._layer == len(self._own):
            shape = (*key.shape[:2], _FIRST_CAPACITY, key.shape[2])
            self._own.append((key.new_empty(shape), value.new_empty(shape)))
        keys, values = self._own[self._layer]
        end = self._length + 1
        if end > keys.shape[2]:
            keys, values = (torch.cat([buffer, torch.empty_like(buffer)], 2) for buffer in (keys, values))
            self._own[self._layer] = keys, values
        keys[:, :, self._length], values[:, :, self._length] = key, value
        return keys[:, :, :end], values[:, :, :end]


class _Slots:
    """Rows as [P, S] places: as they are while every group has as many, else padded."""

    def __init__(self, group: Tensor) -> None:
        counts = group.bincount()
        self.shape = (len(counts), int(counts.max()))
        self.full = bool((counts == self.shape[1]).all())
        starts = counts.cumsum(0) - counts
        self._places = group * self.shape[1] + torch.arange(len(group), device=group.device) - starts[group]
        self._rows = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.long, device=group.device)
        self._rows[self._places] = torch.arange(len(group), device=group.device)

    def to_groups(self, rows: Tensor) -> Tensor:
        """[R, K, G, X] -> [P, K, S G, X]"""
        placed = rows if self.full else rows[self._rows]
        return placed.unflatten(0, self.shape).transpose(1, 2).flatten(2, 3)

    def to_rows(self, groups: Tensor, num_queries: int) -> Tensor:
        """[P, K, S G, X] -> [R, K, G, X]"""
        placed = groups.unflatten(2, (self.shape[1], num_queries)).transpose(1, 2).flatten(0, 1)
        return placed if self.full else placed[self._places]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    scaling: float,
    ragged_decoder: Decoder,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: query [1, H, R, D], key and value [1, K, R, D] -> [1, R, H, D]."""
    check_plain(module, ragged_decoder.longest, dropout, others)
    new_query, new_key, new_value = (part[0].transpose(0, 1) for part in (query, key, value))
    return ragged_decoder.attend(new_query, new_key, new_value, scaling)[None], None


AttentionInterface.register("r1kit_decode", _attend)


def _select(buffer: Tensor, rows: Tensor, length: int) -> Tensor:
    """The first `length` tokens of some rows, in a buffer as long as before."""
    result = buffer.new_empty(len(rows), *buffer.shape[1:])
    result[:, :, :length] = buffer[rows, :, :length]
    return result


def _logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    head = model.get_output_embeddings()
    assert head is not None, "a causal language model has one"
    return head(hidden)
