"""The GRPO objective as pure functions from tensors to tensors.

Shapes: G groups (prompts), S samples of each, R rows (completions), T completion tokens. Where a function returns
one value a row for all of its tokens, the shape is [R, 1] and broadcasts.
"""

from typing import Literal

import torch
from torch import Tensor

LossName = Literal["r1", "grpo", "dr_grpo", "dapo", "bnpo", "gspo"]
AdvantageName = Literal["std", "mean", "leave_one_out"]
KlName = Literal["k1", "k2", "k3"]


def group_advantages(
    rewards: Tensor, scale: AdvantageName = "std", epsilon: float = 1e-4, ddof: Literal[0, 1] = 1
) -> Tensor:
    """How much better a sample is than its group.

    With n rewards r of a group, mean m and standard deviation s = sqrt(Σ(r - m)² / (n - ddof)):
    `std` is (r - m) / (s + epsilon) (arXiv 2402.03300, section 4.1.2; arXiv 2501.12948, eq. 3; both leave ddof open);
    `mean` is r - m (arXiv 2503.20783); `leave_one_out` is r minus the mean of the others, (r - m) n / (n - 1)
    (RLOO, arXiv 2402.14740, eq. 8).

    A reward that differs from its group's mean by no more than rounding counts as the mean itself, so that neither
    equal rewards nor the order of a group leave a residue. The leave-one-out baseline is never subtracted directly
    for the same reason.

    Args:
        rewards: [G, S]; NaN marks a sample without a reward, which gets advantage 0 and moves no other.
        scale: see above.
        epsilon: added to the standard deviation. TRL adds 1e-4, verl 1e-6, OpenRLHF 1e-9.
        ddof: 1 for the Bessel-corrected deviation (TRL, verl, OpenRLHF), 0 for the population's (open-instruct).

    Returns:
        [G, S]; every group sums to zero, and a group whose rewards are all equal is exactly zero.
    """
    valid = ~rewards.isnan()
    count = valid.sum(1, keepdim=True)
    known = torch.where(valid, rewards, 0.0)
    centred = torch.where(valid, known - known.sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    rounding = torch.finfo(rewards.dtype).eps * count * known.abs().amax(1, keepdim=True)
    centred = torch.where(centred.abs() > rounding, centred, 0.0)
    if scale == "mean":
        return centred
    if scale == "leave_one_out":
        return centred * count / (count - 1).clamp(min=1)
    deviation = (centred.square().sum(1, keepdim=True) / (count - ddof).clamp(min=1)).sqrt()
    return torch.where(deviation > 0, centred / (deviation + epsilon), 0.0)


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """A sequence's length-normalised log-ratio, (1/|o|) Σ_t (log π_t - log π_old,t) (GSPO, arXiv 2507.18071, eq. 7).

    Args:
        log_ratio: [R, T] log-probability now minus when sampled.
        mask: [R, T] 1 for tokens that count.

    Returns:
        [R, 1]
    """
    return (log_ratio * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def clipped_objective(
    log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, clip_dual: float | None = None
) -> Tensor:
    """Negative clipped surrogate per token, -min(ρA, clip(ρ, 1-low, 1+high) A) (arXiv 2501.12948, eq. 1).

    Low and high may differ (arXiv 2503.14476, eq. 10). For A < 0 nothing above bounds -ρA; `clip_dual` c does,
    to -cA (arXiv 1912.09729, eq. 5). TRL's `delta` is the same for c >= 1 + high; verl's c is 3.

    Args:
        log_ratio: [R, T], or [R, 1] for the ratio of whole sequences.
        advantages: [R].

    Returns:
        Shaped like log_ratio.
    """
    ratio = log_ratio.exp()
    column = advantages[:, None]
    loss = -torch.minimum(ratio * column, ratio.clamp(1 - clip_low, 1 + clip_high) * column)
    if clip_dual is None:
        return loss
    return torch.where(column < 0, torch.minimum(loss, -clip_dual * column), loss)


def kl_k1(reference: Tensor, policy: Tensor) -> Tensor:
    """k1 = log π - log π_ref per token (Schulman, "Approximating KL divergence", 2020).

    Over the policy's own samples an unbiased estimate of KL(π || π_ref), of high variance and either sign. As a term
    of a loss it pulls nowhere: E[∇k1] = 0. Multiplied by the ratio π / π_old its gradient is that of the KL.

    Args:
        reference, policy: [R, T] log-probabilities.
    """
    return policy - reference


def kl_k2(reference: Tensor, policy: Tensor) -> Tensor:
    """k2 = (log π - log π_ref)² / 2 per token (Schulman, 2020).

    A biased estimate of KL(π || π_ref), never negative; on-policy, the gradient of the loss it makes is an unbiased
    estimate of the KL's.

    Args:
        reference, policy: [R, T] log-probabilities.
    """
    return (policy - reference).square() / 2


def kl_k3(reference: Tensor, policy: Tensor) -> Tensor:
    """k3 = π_ref/π - log(π_ref/π) - 1 per token (arXiv 2501.12948, eq. 2; Schulman, 2020).

    An unbiased, non-negative estimate of KL(π || π_ref) over the policy's own samples. The gradient of the loss it
    makes is not that KL's but, on average, that of the reverse, KL(π_ref || π); with the ratio π / π_old before it
    (arXiv 2512.02556) it is. Unclamped, like TRL's; verl clamps.

    Args:
        reference, policy: [R, T] log-probabilities.
    """
    difference = reference - policy
    return difference.exp() - difference - 1


KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def truncated_weights(
    trainer: Tensor, sampler: Tensor, mask: Tensor, cap: float, level: Literal["token", "sequence"] = "token"
) -> Tensor:
    """Weights min(π_trainer / π_sampler, cap) that correct for a sampler whose arithmetic differs from the trainer's.

    (Truncated importance sampling: Ionides, 2008; for RL of language models LlamaRL, arXiv 2505.24034, and TRL's
    correction for vLLM.) `sequence` takes the ratio of whole completions.

    Args:
        trainer: [R, T] log-probabilities of the weights that sampled, as the trainer computes them.
        sampler: [R, T] log-probabilities recorded as sampled.
        mask: [R, T] 1 for tokens that count.
        cap: the largest weight.

    Returns:
        [R, T], or [R, 1] for `sequence`; without gradient. Padding weighs 1.
    """
    difference = ((trainer - sampler) * mask).detach()
    if level == "sequence":
        difference = difference.sum(1, keepdim=True)
    return difference.exp().clamp(max=cap)


def soft_length_penalty(lengths: Tensor, max_tokens: int, buffer_tokens: int) -> Tensor:
    """What a long completion costs: 0 up to max - buffer, falling linearly to -1 at max (arXiv 2503.14476, eq. 13).

    Args:
        lengths: [R] tokens of each completion.
        max_tokens: the completion limit, L_max.
        buffer_tokens: the stretch before it in which the penalty grows, L_cache.

    Returns:
        [R] float64 in [-1, 0], to be added to the rewards.
    """
    return ((max_tokens - buffer_tokens - lengths.double()) / buffer_tokens).clamp(-1, 0)


def denominator(name: LossName, mask: Tensor, max_tokens: int, step_tokens: float | None = None) -> Tensor:
    """What a token's loss is divided by, per row: [R, 1], for all rows of an optimizer step at once.

    `grpo`, `r1`, `gspo`: the row's own length times the number of rows (arXiv 2402.03300, eq. 3; the R1 paper prints
    the objective per sequence, and its predecessor the token mean: we take the latter; arXiv 2507.18071, eq. 5).
    `dr_grpo`: rows times the token limit (arXiv 2503.20783, with the limit as the constant, like TRL).
    `bnpo`: all tokens of this optimizer step. `dapo`: the rollout's tokens, shared equally among its optimizer steps
    (arXiv 2503.14476, eq. 8), so that every token of a rollout weighs the same. With one step a rollout they agree.

    Rows that are left out (overlong ones under `mask`) count in no denominator; TRL counts them as rows.

    Args:
        mask: [R, T] 1 for tokens that count.
        max_tokens: the completion limit.
        step_tokens: for `dapo`, tokens of the rollout over its optimizer steps; None means the mask's own.
    """
    rows = mask.shape[0]
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    if name in ("r1", "grpo", "gspo"):
        return lengths * rows
    if name == "dr_grpo":
        return torch.full_like(lengths, rows * max_tokens)
    if name == "dapo" and step_tokens is not None:
        return torch.full((rows, 1), step_tokens)
    return mask.sum().clamp(min=1).expand(rows, 1)


def outside_clip(log_ratio: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Where the ratio lies outside [1 - low, 1 + high], whatever the advantage.

    Args:
        log_ratio: [R, T] or [R, 1].

    Returns:
        bool, shaped like log_ratio.
    """
    ratio = log_ratio.exp()
    return (ratio < 1 - clip_low) | (ratio > 1 + clip_high)


def binding_clips(
    log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, clip_dual: float | None = None
) -> tuple[Tensor, Tensor]:
    """Where a bound takes the gradient away: outside it, and the advantage pushes further out.

    Args:
        log_ratio: [R, T] or [R, 1].
        advantages: [R].

    Returns:
        (the lower bound, for A < 0; the upper, for A > 0, or the dual one, for A < 0): bool, shaped like log_ratio.
    """
    ratio = log_ratio.exp()
    column = advantages[:, None]
    low = (column < 0) & (ratio < 1 - clip_low)
    high = (column > 0) & (ratio > 1 + clip_high)
    if clip_dual is not None:
        high |= (column < 0) & (ratio > clip_dual)
    return low, high
