"""Decoding groups of answers token by token: the prompt's keys and values once a group, an answer's in one buffer."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from r1kit.lean_llama import LeanLlama
from r1kit.ragged import KeyValues, attend, attention_by, base_model, check_plain, hidden_states, lay_out

_FIRST_CAPACITY = 64
"""Tokens of an answer that the buffers hold at first; they double when full."""


class Decoder:
    """R answers to P prompts, one token further at each call. Rows that are done can leave.

    Attention works on places, [P, S] for up to S answers still open to a prompt: so a prompt's keys and values are read
    once for all of them. Places that nobody has are computed and not used.
    """

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], num_samples: int, lean: LeanLlama | None = None
    ) -> None:
        """Compute the prompts.

        Args:
            prompts: token ids.
            num_samples: answers to each, whose rows stand together.
            lean: the model's lean form, where it has one.
        """
        device = model.device
        self._model = model
        self._lean = lean
        layout = lay_out([(prompt, ()) for prompt in prompts], device)
        kept = KeyValues()
        if lean is None:
            hidden = hidden_states(model, layout, kept)
        else:
            hidden = lean.hidden(layout.ids, layout.positions, partial(attend, layout=layout, keep=kept))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._last = hidden[lengths.cumsum(0) - 1]  # [P, D]
        self._trunks = [(key.mT.contiguous(), value.contiguous()) for key, value in kept.layers]
        """[P, K, D, L] and [P, K, L, D] a layer"""
        self._hidden = layout.hidden
        self._positions = lengths.repeat_interleave(num_samples)
        self._own: list[tuple[Tensor, Tensor]] = []  # [P, K, S, capacity, D]
        self._group = torch.arange(len(prompts), device=device).repeat_interleave(num_samples)
        self._num_samples = num_samples
        self._places = _Places(self._group)
        self.longest = layout.longest
        """Tokens of the longest row, with its prompt."""
        self._length = 0
        self._layer = 0

    def first_logits(self) -> Tensor:
        """[R, V] after the prompts."""
        return self._logits(self._last).repeat_interleave(self._num_samples, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each row.

        Args:
            tokens: [R].

        Returns:
            [R, V] logits of the next one.
        """
        self._layer = 0
        self.longest += 1
        if self._lean is None:
            hidden = self._by_transformers(tokens)
        else:
            hidden = self._lean.hidden(tokens, self._positions, self.attend)
        self._length += 1
        self._positions = self._positions + 1
        return self._logits(hidden)

    def _by_transformers(self, tokens: Tensor) -> Tensor:
        body = base_model(self._model)
        with attention_by(body, "r1kit_decode"):
            output = body(
                input_ids=tokens[None], position_ids=self._positions[None], use_cache=False, ragged_decoder=self
            )
        return output.last_hidden_state[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        head = self._lean.logits if self._lean is not None else self._model.get_output_embeddings()
        assert head is not None, "a causal language model has one"
        return head(hidden)

    def keep(self, rows: Tensor) -> None:
        """Let all rows but these leave.

        Args:
            rows: indices, ascending.
        """
        groups, group = self._group[rows].unique(return_inverse=True)
        before, now = self._places, _Places(group)
        source, target = before.of_row[rows], now.of_row
        where = before.shape, source, now.shape, target, self._length
        for layer, (key, value) in enumerate(self._own):
            self._own[layer] = _moved(key, *where), _moved(value, *where)
        if len(groups) < before.shape[0]:
            for layer, (key, value) in enumerate(self._trunks):
                self._trunks[layer] = key[groups], value[groups]
            self._hidden = None if self._hidden is None else self._hidden[groups]
        self._positions, self._group, self._places = self._positions[rows], group, now

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """One layer's attention of the newest tokens: [R, H, D], [R, K, D], [R, K, D] -> [R, H, D]."""
        places = self._places
        grouped = query.unflatten(1, (key.shape[1], -1))  # [R, K, G, D]
        grouped = grouped if scaling == 1 else grouped * scaling
        queries = places.fill(grouped).transpose(1, 2).contiguous()  # [P, K, S, G, D]
        own_key, own_value = self._append(places.fill(key), places.fill(value))  # [P K S, T, D]
        trunk_key, trunk_value = (part.flatten(0, 1) for part in self._trunks[self._layer])  # [P K, D, L], [P K, L, D]
        self._layer += 1
        num_trunk, shape = trunk_value.shape[1], queries.shape
        by_trunk, by_row = (-1, shape[2] * shape[3]), (-1, shape[3])  # [P K, S G, ...], [P K S, G, ...]
        to_trunk = queries.flatten(0, 1).flatten(1, 2).bmm(trunk_key)
        if self._hidden is not None:
            to_trunk.unflatten(0, shape[:2]).masked_fill_(self._hidden[:, None, None], -torch.inf)
        to_own = queries.flatten(0, 2).bmm(own_key.mT)
        scores = torch.cat([to_trunk.flatten(0, 1), to_own.flatten(0, 1)], -1)  # [P K S G, L + T]
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
        mixed = weights.unflatten(0, by_trunk)[..., :num_trunk].bmm(trunk_value).view(-1, *shape[3:])
        mixed.baddbmm_(weights.unflatten(0, by_row)[..., num_trunk:], own_value)  # [P K S, G, D]
        return places.take(mixed.view(shape).transpose(1, 2)).flatten(1, 2)

    def _append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write this layer's newest key and value, [P, S, K, D]; return all of them, [P K S, T, D]."""
        if self._layer == len(self._own):
            groups, samples, heads, width = key.shape
            shape = (groups, heads, samples, _FIRST_CAPACITY, width)
            self._own.append((key.new_empty(shape), value.new_empty(shape)))
        keys, values = self._own[self._layer]
        end = self._length + 1
        if end > keys.shape[3]:
            keys, values = (torch.cat([buffer, torch.empty_like(buffer)], 3) for buffer in (keys, values))
            self._own[self._layer] = keys, values
        for buffer, newest in ((keys, key), (values, value)):
            buffer.select(3, self._length).copy_(newest.transpose(1, 2))
        return keys.flatten(0, 2)[:, :end], values.flatten(0, 2)[:, :end]


class _Places:
    """Rows at [P, S] places: as they stand while every group has as many, else the first ones of each group."""

    def __init__(self, group: Tensor) -> None:
        counts = group.bincount()
        self.shape = (len(counts), int(counts.max()))
        self._full = bool((counts == self.shape[1]).all())
        starts = counts.cumsum(0) - counts
        rows = torch.arange(len(group), device=group.device)
        self.of_row = group * self.shape[1] + rows - starts[group]
        """[R] place of each row, counted through."""
        self._row = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.long, device=group.device)
        self._row[self.of_row] = rows

    def fill(self, rows: Tensor) -> Tensor:
        """[R, ...] -> [P, S, ...]; what nobody has holds some row."""
        return (rows if self._full else rows.index_select(0, self._row)).unflatten(0, self.shape)

    def take(self, places: Tensor) -> Tensor:
        """[P, S, ...] -> [R, ...]"""
        rows = places.flatten(0, 1)
        return rows if self._full else rows.index_select(0, self.of_row)


def _moved(
    buffer: Tensor, before: tuple[int, int], source: Tensor, now: tuple[int, int], target: Tensor, length: int
) -> Tensor:
    """A buffer [P, K, S, capacity, D] for other, not more places, in its own memory, with the first `length` tokens of
    what moves there."""
    shape = (now[0], buffer.shape[1], now[1], *buffer.shape[3:])
    moving = buffer[source // before[1], :, source % before[1], :length]
    result = buffer.view(-1)[: math.prod(shape)].view(shape)
    result[target // now[1], :, target % now[1], :length] = moving
    return result


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
