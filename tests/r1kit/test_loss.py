"""Laws of the GRPO objective."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from r1kit.loss import (
    KL_ESTIMATORS,
    binding_clips,
    clipped_objective,
    denominator,
    group_advantages,
    kl_k3,
    outside_clip,
    sequence_log_ratio,
    soft_length_penalty,
    truncated_weights,
)

rewards = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(2, 9)),
    elements=st.sampled_from([0.0, 0.1, 0.2, 0.3, 1 / 3, 0.5, 1.0, 2.0]),
)
scales = st.sampled_from(["std", "mean", "leave_one_out"])
ratios = hnp.arrays(np.float64, (3, 4), elements=st.floats(-3, 3))
gains = hnp.arrays(np.float64, 3, elements=st.sampled_from([-1.5, -0.5, 0.5, 2.0]))


@settings(deadline=None, max_examples=100)
@given(rewards, scales, st.sampled_from([0, 1]))
def test_a_groups_advantages_sum_to_zero(values: np.ndarray, scale, ddof) -> None:
    advantages = group_advantages(torch.from_numpy(values), scale, ddof=ddof)
    assert advantages.sum(1).abs().max() < 1e-9


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e6, 1e6), st.integers(2, 17), scales, st.sampled_from([0, 1]), st.sampled_from([0.0, 1e-4]))
def test_a_group_without_variance_is_exactly_zero(value: float, size: int, scale, ddof, epsilon: float) -> None:
    for dtype in (torch.float32, torch.float64):
        advantages = group_advantages(torch.full((3, size), value, dtype=dtype), scale, epsilon, ddof)
        assert (advantages == 0).all()


@settings(deadline=None, max_examples=100)
@given(rewards, scales, st.randoms(use_true_random=False))
def test_the_order_of_a_group_does_not_matter(values: np.ndarray, scale, shuffler) -> None:
    order = list(range(values.shape[1]))
    shuffler.shuffle(order)
    straight = group_advantages(torch.from_numpy(values), scale)[:, order]
    shuffled = group_advantages(torch.from_numpy(values[:, order]), scale)
    assert torch.allclose(straight, shuffled, atol=1e-12, rtol=0)
    assert torch.equal(straight == 0, shuffled == 0)  # a row at its group's mean is one in every order


@settings(deadline=None, max_examples=50)
@given(rewards)
def test_leave_one_out_compares_with_the_mean_of_the_others(values: np.ndarray) -> None:
    advantages = group_advantages(torch.from_numpy(values), "leave_one_out").numpy()
    others = (values.sum(1, keepdims=True) - values) / (values.shape[1] - 1)
    assert np.abs(advantages - (values - others)).max() < 1e-9


def test_advantages_by_hand() -> None:
    advantages = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64), epsilon=1e-4)
    assert advantages[0].tolist() == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])


def test_the_degrees_of_freedom_are_those_asked_for() -> None:
    values = torch.tensor([[1.0, 0.0, 0.0, 3.0]], dtype=torch.float64)
    for ddof in (0, 1):
        advantages = group_advantages(values, epsilon=0.0, ddof=ddof)
        assert float(advantages.square().sum()) == pytest.approx(4 - ddof)


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


@settings(deadline=None)
@given(ratios, gains, st.sampled_from([None, 1.5, 3.0]))
def test_the_clips_that_bind_are_those_that_take_the_gradient_away(log_ratios, advantages, dual) -> None:
    log_ratio, column = torch.from_numpy(log_ratios).requires_grad_(), torch.from_numpy(advantages)
    clipped_objective(log_ratio, column, 0.2, 0.28, dual).sum().backward()
    low, high = binding_clips(log_ratio.detach(), column, 0.2, 0.28, dual)
    assert log_ratio.grad is not None
    assert torch.equal(log_ratio.grad == 0, low | high)
    if dual is None:
        assert not ((low | high) & ~outside_clip(log_ratio.detach(), 0.2, 0.28)).any()


@settings(deadline=None)
@given(ratios, gains)
def test_the_dual_clip_bounds_the_loss_of_bad_samples_alone(log_ratios, advantages) -> None:
    log_ratio, column = torch.from_numpy(log_ratios), torch.from_numpy(advantages)
    plain, bounded = (clipped_objective(log_ratio, column, 0.2, 10.0, dual) for dual in (None, 3.0))
    bad = (column < 0)[:, None].expand_as(plain)
    assert torch.equal(bounded[~bad], plain[~bad])
    assert torch.equal(bounded[bad], torch.minimum(plain, -3 * column[:, None])[bad])


def test_a_sequence_has_one_ratio_and_shares_its_gradient() -> None:
    log_ratio = torch.tensor([[0.3, -0.1, 9.0], [0.2, 9.0, 9.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    sequence = sequence_log_ratio(log_ratio, mask)
    assert sequence.flatten().tolist() == pytest.approx([0.1, 0.2])
    clipped_objective(sequence, torch.tensor([1.0, -1.0]), 0.5, 0.5).sum().backward()
    assert log_ratio.grad is not None
    expected = [[-np.exp(0.1) / 2, -np.exp(0.1) / 2, 0], [np.exp(0.2), 0, 0]]
    assert log_ratio.grad.numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_the_samplers_weights_are_capped_and_carry_no_gradient() -> None:
    trainer = torch.tensor([[-1.0, -2.0, 5.0]], requires_grad=True)
    sampler, mask = torch.tensor([[-1.5, -1.8, -7.0]]), torch.tensor([[1, 1, 0]])
    by_token = truncated_weights(trainer, sampler, mask, cap=1.2)
    assert by_token[0].tolist() == pytest.approx([1.2, np.exp(-0.2), 1.0])
    whole = truncated_weights(trainer, sampler, mask, cap=2.0, level="sequence")
    assert whole[0].tolist() == pytest.approx([np.exp(0.3)])
    assert not by_token.requires_grad and not whole.requires_grad


def test_a_long_completion_costs_more_and_more_up_to_one() -> None:
    penalty = soft_length_penalty(torch.tensor([1, 60, 80, 90, 100, 120]), max_tokens=100, buffer_tokens=20)
    assert penalty.tolist() == [0, 0, 0, -0.5, -1, -1]


def _distributions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy, and log-probabilities of a reference, over a vocabulary small enough to sum over."""
    generator = torch.Generator().manual_seed(seed)
    logits, other = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), other.log_softmax(-1)


def _kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.exp() * (first - second)).sum()


def _mean(name: str, logits: torch.Tensor, reference: torch.Tensor, importance: bool) -> torch.Tensor:
    """The estimator's mean over the policy's own samples, as a loss: what is drawn carries no gradient."""
    policy = logits.log_softmax(-1)
    estimate = KL_ESTIMATORS[name](reference, policy)
    if importance:
        estimate = estimate * (policy - policy.detach()).exp()
    return (policy.detach().exp() * estimate).sum()


def _gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("seed", range(5))
def test_which_kl_estimators_are_unbiased_and_where_their_gradients_pull(seed: int) -> None:
    logits, reference = _distributions(seed)
    policy = logits.log_softmax(-1)
    kl, reverse = _kl(policy, reference), _kl(reference, policy)
    means = {name: _mean(name, logits, reference, importance=False) for name in KL_ESTIMATORS}
    assert torch.allclose(means["k1"], kl) and torch.allclose(means["k3"], kl) and not torch.allclose(means["k2"], kl)
    pull, none = _gradient(kl, logits), torch.zeros(6, dtype=torch.float64)
    pulls = {name: _gradient(mean, logits) for name, mean in means.items()}
    assert torch.allclose(pulls["k1"], none, atol=1e-12)
    assert torch.allclose(pulls["k2"], pull)
    assert torch.allclose(pulls["k3"], _gradient(reverse, logits)) and not torch.allclose(pulls["k3"], pull)
    for name in ("k1", "k3"):
        assert torch.allclose(_gradient(_mean(name, logits, reference, importance=True), logits), pull)


def test_denominators_by_hand() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert denominator("grpo", mask, 4).flatten().tolist() == [6, 2]
    assert denominator("r1", mask, 4).flatten().tolist() == [6, 2]
    assert denominator("dr_grpo", mask, 4).flatten().tolist() == [8, 8]
    assert denominator("dapo", mask, 4).flatten().tolist() == [4, 4]
    assert denominator("bnpo", mask, 4).flatten().tolist() == [4, 4]
    assert denominator("gspo", mask, 4).flatten().tolist() == [6, 2]


def test_under_dapo_every_token_of_a_rollout_weighs_the_same() -> None:
    halves = [torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.tensor([[1, 0, 0]])]  # a rollout of 6 tokens in two steps
    assert [denominator("dapo", half, 4, step_tokens=6 / 2)[0].item() for half in halves] == [3, 3]
    assert [denominator("bnpo", half, 4, step_tokens=6 / 2)[0].item() for half in halves] == [5, 1]
