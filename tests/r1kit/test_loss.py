"""Laws of the GRPO objective."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from r1kit.loss import clipped_objective, denominator, group_advantages, kl_k3

rewards = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(2, 9)), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])
)


@settings(deadline=None, max_examples=100)
@given(rewards, st.sampled_from(["std", "mean"]))
def test_a_groups_advantages_sum_to_zero(values: np.ndarray, scale: str) -> None:
    advantages = group_advantages(torch.from_numpy(values), scale)  # type: ignore[arg-type]  # drawn from the literals
    assert advantages.sum(1).abs().max() < 1e-9


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.0])
def test_a_group_without_variance_is_exactly_zero(value: float) -> None:
    assert (group_advantages(torch.full((3, 7), value, dtype=torch.float64)) == 0).all()


def test_advantages_by_hand() -> None:
    advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64), epsilon=1e-4)
    assert advantages[0].tolist() == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])


def test_a_missing_reward_gets_no_advantage_and_moves_no_other() -> None:
    with_hole = group_advantages(torch.tensor([[1.0, 0.0, float("nan")]], dtype=torch.float64))
    without = group_advantages(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert with_hole[0, 2] == 0
    assert torch.equal(with_hole[:, :2], without)


@settings(deadline=None)
@given(hnp.arrays(np.float64, (2, 5), elements=st.floats(-5, 5)))
def test_kl_is_never_negative_and_zero_for_equal_policies(values: np.ndarray) -> None:
    first, second = torch.from_numpy(values)
    assert (kl_k3(first, second) >= -1e-12).all()
    assert (kl_k3(first, first) == 0).all()


def test_the_gradient_vanishes_where_the_ratio_is_clipped() -> None:
    log_ratio = torch.tensor([[0.5, -0.5], [0.5, -0.5]], requires_grad=True)
    clipped_objective(log_ratio, torch.tensor([1.0, -1.0]), 0.2, 0.2).sum().backward()
    assert log_ratio.grad is not None
    # Raising a good token past 1.2 or lowering a bad one past 0.8 earns nothing more.
    assert log_ratio.grad[0, 0] == 0 and log_ratio.grad[1, 1] == 0
    assert log_ratio.grad[0, 1] < 0 and log_ratio.grad[1, 0] > 0


def test_zero_advantage_has_zero_gradient() -> None:
    log_ratio = torch.zeros(1, 3, requires_grad=True)
    clipped_objective(log_ratio, torch.tensor([0.0]), 0.2, 10.0).sum().backward()
    assert log_ratio.grad is not None and (log_ratio.grad == 0).all()


def test_denominators_by_hand() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert denominator("grpo", mask, 4).flatten().tolist() == [6, 2]
    assert denominator("r1", mask, 4).flatten().tolist() == [6, 2]
    assert denominator("dr_grpo", mask, 4).flatten().tolist() == [8, 8]
    assert denominator("dapo", mask, 4).flatten().tolist() == [4, 4]
    assert denominator("bnpo", mask, 4).flatten().tolist() == [4, 4]
