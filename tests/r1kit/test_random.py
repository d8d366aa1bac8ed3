"""Randomness is a function of what it is for."""

import numpy as np
import pytest
import torch

from r1kit.random import Order, derive_seed, row_keys, uniforms


def test_an_epoch_holds_every_row_once_and_the_next_has_another_order() -> None:
    order = Order(10, 1, "x")
    first, second = order.take(0, 10), order.take(10, 10)
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_any_cut_of_the_endless_order_is_the_same() -> None:
    whole = Order(7, 1, "x").take(0, 30)
    assert Order(7, 1, "x").take(0, 13) + Order(7, 1, "x").take(13, 17) == whole


def test_an_empty_data_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        Order(0, 1)


def test_seeds_depend_on_every_part_and_its_type() -> None:
    parts = [(1, 2), (2, 1), (1, "2"), ("1", 2), (12,), (1, 2, 0)]
    assert len({derive_seed(*p) for p in parts}) == len(parts)


def test_uniforms_are_uniform_and_independent_of_the_batch() -> None:
    keys = row_keys(0, 0, list(range(500)), 8)
    values = uniforms(keys, 3).numpy()
    assert values.min() > 0 and values.max() < 1
    assert np.histogram(values, 10, (0, 1))[0] == pytest.approx([400] * 10, rel=0.2)
    assert abs(np.corrcoef(values, uniforms(keys, 4).numpy())[0, 1]) < 0.05
    assert torch.equal(uniforms(keys[17:40], 3), uniforms(keys, 3)[17:40])
