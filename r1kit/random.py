"""Randomness as a pure function of what it is for, so that batching and resuming change nothing."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_MASK = 0xFFFFFFFFFFFFFFFF


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts: the same parts give the same seed on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator that depends on the parts alone."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))


def uniforms(keys: "torch.Tensor", position: int) -> "torch.Tensor":
    """Uniform numbers in (0, 1), one a row.

    Args:
        keys: [rows] int64, one a completion (see `row_keys`).
        position: index of the token within the completion.

    Returns:
        [rows] float64: splitmix64 of the key at this position (Steele et al., OOPSLA 2014).
    """
    import torch

    state = keys.numpy().astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (position + 1)) & _MASK)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return torch.from_numpy(((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53)


def row_keys(seed: int, step: int, prompt_keys: list[int], num_samples: int) -> "torch.Tensor":
    """[prompts * num_samples] int64 keys: a function of (seed, step, prompt, sample) alone."""
    import torch

    keys = [derive_seed(seed, step, prompt, sample) for prompt in prompt_keys for sample in range(num_samples)]
    return torch.tensor(keys, dtype=torch.int64)


class Order:
    """Which rows a step uses: epoch after epoch, each in its own fixed order (or in the rows' own)."""

    def __init__(self, num_rows: int, *seed_parts: int | str, shuffle: bool = True) -> None:
        if num_rows < 1:
            raise ValueError("the data set is empty: give at least one row")
        self._num_rows = num_rows
        self._seed_parts = seed_parts
        self._shuffle = shuffle
        self._epochs: dict[int, np.ndarray] = {}

    def take(self, start: int, count: int) -> list[int]:
        """Row indices at places start .. start + count of the endless order."""
        return [
            int(self._epoch(place // self._num_rows)[place % self._num_rows]) for place in range(start, start + count)
        ]

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            shuffled = generator(*self._seed_parts, "epoch", epoch).permutation(self._num_rows)
            self._epochs = {epoch: shuffled if self._shuffle else np.arange(self._num_rows)}
        return self._epochs[epoch]
