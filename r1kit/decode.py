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

    A prompt's keys and values are read once for all answers still open to it, at [P, S] places. Where prompts have
    different numbers of them some places are empty: those are computed and not used. An answer's own keys and values
    are read for it alone.
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
        self._own: list[tuple[Tensor, Tensor]] = []
        """[R K, capacity, D] keys and values a layer, in the entries' order"""
        self._group = torch.arange(len(prompts), device=device).repeat_interleave(num_samples)
        self._num_samples = num_samples
        self._places = _Places(self._group, kept.layers[0][0].shape[1])
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
        before, now = self._places, _Places(group, self._places.shape[1])
        source = before.entry_of(rows)[now.source]
        for layer, (key, value) in enumerate(self._own):
            self._own[layer] = _moved(key, source, self._length), _moved(value, source, self._length)
        if len(groups) < before.shape[0]:
            for layer, (key, value) in enumerate(self._trunks):
                self._trunks[layer] = key[groups], value[groups]
            self._hidden = None if self._hidden is None else self._hidden[groups]
        self._positions, self._group, self._places = self._positions[rows], group, now

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """One layer's attention of the newest tokens: [R, H, D], [R, K, D], [R, K, D] -> [R, H, D]."""
        places = self._places
        num_prompts, num_keys, num_samples = places.shape
        grouped = query.unflatten(1, (num_keys, -1))  # [R, K, G, D]
        grouped = grouped if scaling == 1 else grouped * scaling
        queries = places.entries(grouped).reshape(-1, *grouped.shape[2:])  # [R K, G, D]
        own_key, own_value = self._append(key, value)  # [R K, T, D]
        trunk_key, trunk_value = (part.flatten(0, 1) for part in self._trunks[self._layer])  # [P K, D, L], [P K, L, D]
        self._layer += 1
        by_trunk, num_trunk = (num_prompts * num_keys, num_samples), trunk_value.shape[1]
        to_trunk = places.spread(queries).unflatten(0, by_trunk).flatten(1, 2).bmm(trunk_key)  # [P K, S G, L]
        if self._hidden is not None:
            to_trunk.unflatten(0, (num_prompts, num_keys)).masked_fill_(self._hidden[:, None, None], -torch.inf)
        to_trunk = places.gather(to_trunk.unflatten(1, (num_samples, -1)).flatten(0, 1))
        to_own = queries.bmm(own_key.mT)
        scores = torch.cat([to_trunk, to_own], -1)  # [R K, G, L + T]
        weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
        from_trunk = places.spread(weights[..., :num_trunk]).unflatten(0, by_trunk).flatten(1, 2).bmm(trunk_value)
        mixed = places.gather(from_trunk.unflatten(1, (num_samples, -1)).flatten(0, 1))
        mixed.baddbmm_(weights[..., num_trunk:], own_value)  # [R K, G, D]
        return places.rows(mixed).flatten(1, 2)

    def _append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write this layer's newest key and value, [R, K, D]; return all of them, [R K, T, D]."""
        if self._layer == len(self._own):
            shape = (key.shape[0] * key.shape[1], _FIRST_CAPACITY, key.shape[2])
            self._own.append((key.new_empty(shape), value.new_empty(shape)))
        keys, values = self._own[self._layer]
        end = self._length + 1
        if end > keys.shape[1]:
            keys, values = (torch.cat([buffer, torch.empty_like(buffer)], 1) for buffer in (keys, values))
            self._own[self._layer] = keys, values
        for buffer, rows in ((keys, key), (values, value)):
            newest = self._places.entries(rows)
            buffer[:, self._length].view(newest.shape).copy_(newest)
        return keys[:, :end], values[:, :end]


class _Places:
    """The order of R rows with K key heads each in attention.

    *Entries*, one for each row and key head, stand by prompt, then head, then row. Trunks see them at [P, K, S] places:
    as they stand while every prompt has as many rows; else some places stay empty.
    """

    def __init__(self, group: Tensor, num_keys: int) -> None:
        """
        Args:
            group: [R] each row's prompt, ascending.
        """
        counts = group.bincount()
        self.shape = (len(counts), num_keys, int(counts.max()))
        self._full = bool((counts == self.shape[2]).all())
        starts = counts.cumsum(0) - counts
        slot = torch.arange(len(group), device=group.device) - starts[group]
        heads = torch.arange(num_keys, device=group.device)
        place = ((group[:, None] * num_keys + heads) * self.shape[2] + slot[:, None]).flatten()  # [R K], by row
        self.source = place.argsort()
        """[R K] which row's which head each entry is, counted through by row."""
        self._entry = self.source.argsort()
        self._place = place[self.source]
        self._at_place = torch.zeros(math.prod(self.shape), dtype=torch.long, device=group.device)
        self._at_place[self._place] = torch.arange(len(place), device=group.device)

    def entry_of(self, rows: Tensor) -> Tensor:
        """[R'] some rows -> [R' K] the entries of their heads."""
        return self._entry.view(-1, self.shape[1])[rows].flatten()

    def entries(self, rows: Tensor) -> Tensor:
        """[R, K, ...] -> the entries, [R K, ...], or [P, K, S, ...] where no place is empty."""
        if self._full:
            return rows.unflatten(0, (self.shape[0], self.shape[2])).transpose(1, 2)
        return rows.flatten(0, 1).index_select(0, self.source)

    def rows(self, entries: Tensor) -> Tensor:
        """[R K, ...] -> [R, K, ...]"""
        if self._full:
            return entries.unflatten(0, self.shape).transpose(1, 2).flatten(0, 1)
        return entries.index_select(0, self._entry).unflatten(0, (-1, self.shape[1]))

    def spread(self, entries: Tensor) -> Tensor:
        """[R K, ...] -> [P K S, ...]; what is empty holds some entry."""
        return entries if self._full else entries.index_select(0, self._at_place)

    def gather(self, places: Tensor) -> Tensor:
        """[P K S, ...] -> [R K, ...]"""
        return places if self._full else places.index_select(0, self._place)


def _moved(buffer: Tensor, source: Tensor, length: int) -> Tensor:
    """A buffer [R K, capacity, D] with those of its entries alone, in its own memory and up to `length` tokens."""
    moving = buffer[source, :length]
    result = buffer[: len(source)]
    result[:, :length] = moving
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
