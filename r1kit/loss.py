"""The GRPO objective as pure functions from tensors to tensors.

Shapes: G groups (prompts), S samples of each, R rows (completions), T completion tokens.
"""

from typing import Literal

import torch
from torch import Tensor

LossName = Literal["r1", "grpo", "dr_grpo", "dapo", "bnpo"]


def group_advantages(rewards: Tensor, scale: Literal["std", "mean"] = "std", epsilon: float = 1e-4) -> Tensor:
    """How much better a sample is than its group (arXiv 2402.03300, section 4.1.2; arXiv 2501.12948, eq. 3).

    Args:
        rewards: [G, S]; NaN marks a sample without a reward, which gets advantage 0.
        scale: `std` divides by the group's Bessel-corrected standard deviation + epsilon (the papers leave
            the degrees of freedom open; this is TRL's choice), `mean` only centres (arXiv 2503.20783).
        epsilon: added to the standard deviation.

    Returns:
        [G, S]; every group sums to zero, and a group whose rewards are all equal is exactly zero.
    """
    valid = ~rewards.isnan()
    count = valid.sum(1, keepdim=True)
    known = torch.where(valid, rewards, 0.0)
    centred = torch.where(valid, known - known.sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    highest = torch.where(valid, rewards, -torch.inf).amax(1, keepdim=True)
    lowest = torch.where(valid, rewards, torch.inf).amin(1, keepdim=True)
    centred = torch.where(highest > lowest, centred, 0.0)
    if scale == "mean":
        return centred
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation + epsilon)


def clipped_objective(log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Negative clipped surrogate per token, -min(rA, clip(r, 1-low, 1+high) A) (arXiv 2501.12948, eq. 1).

    Args:
        log_ratio: [R, T] log-probability now minus when sampled.
        advantages: [R].
    """
    ratio = log_ratio.exp()
    column = advantages[:, None]
    return -torch.minimum(ratio * column, ratio.clamp(1 - clip_low, 1 + clip_high) * column)


def kl_k3(reference: Tensor, policy: Tensor) -> Tensor:
    """Unbiased, non-negative estimate of KL(policy || reference) per token (arXiv 2501.12948, eq. 2).

    Args:
        reference: [R, T] log-probabilities under the reference.
        policy: [R, T] log-probabilities under the policy.
    """
    difference = reference - policy
    return difference.exp() - difference - 1


def denominator(name: LossName, mask: Tensor, max_tokens: int) -> Tensor:
    """What a token's loss is divided by, per row: [R, 1], for all rows of an optimizer step at once.

    `grpo` and `r1`: the row's own length times the number of rows (arXiv 2402.03300, eq. 3; the R1 paper
    prints the objective per sequence, and its predecessor the token mean: we take the latter).
    `dr_grpo`: rows times the token limit (arXiv 2503.20783). `dapo`, `bnpo`: all tokens (arXiv 2503.14476);
    they differ only in how batches are split, which does not change the result here.

    Args:
        mask: [R, T] 1 for tokens that count.
        max_tokens: the completion limit.
    """
    rows = mask.shape[0]
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    if name in ("r1", "grpo"):
        return lengths * rows
    if name == "dr_grpo":
        return torch.full_like(lengths, rows * max_tokens)
    return mask.sum().clamp(min=1).expand(rows, 1)
