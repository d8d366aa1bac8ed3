"""From a rollout to changed weights: the GRPO objective in micro-batches."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from r1kit import parallel, random
from r1kit.engine import Engine, shared_micro_batches
from r1kit.grpo_config import GrpoConfig
from r1kit.logprobs import response_logprobs
from r1kit.loss import (
    KL_ESTIMATORS,
    binding_clips,
    clipped_objective,
    denominator,
    group_advantages,
    outside_clip,
    sequence_log_ratio,
    truncated_weights,
)
from r1kit.rollout import Rollout
from r1kit.sampler import Completion

METRICS: tuple[str, ...] = (
    "kl",
    "entropy",
    "clipped_share",
    "clipped_low_share",
    "clipped_high_share",
    "sampler_gap",
    "tokens",
)


def update(
    engine: Engine,
    reference: nn.Module | None,
    rollout: Rollout,
    config: GrpoConfig,
    rate: float,
    *,
    seed: int,
    step: int,
) -> dict[str, float]:
    """One epoch over a rollout, in `minibatches` optimizer steps; of several processes each computes its share.

    Rows that nothing acts on are not computed: a group without variance changes nothing, not even through KL.

    Returns:
        Gradient norm, and over the tokens that were trained on: KL, entropy, the share outside the clip range, the
        shares whose gradient the lower and the upper bound take away, and the mean distance between the
        log-probabilities of the trainer and of the sampler.
    """
    advantages = group_advantages(rollout.rewards, config.advantage, config.advantage_epsilon, config.advantage_ddof)
    advantages = advantages.flatten().float()
    rows = random.generator(seed, step, "minibatches").permutation(len(rollout.completions))
    sums: dict[str, float] = dict.fromkeys(METRICS, 0.0)
    norm = 0.0
    on_policy = config.minibatches == 1
    behaviour = None if on_policy else behaviour_logprobs(engine.model, rollout, config)
    engine.model.train()
    for part in range(config.minibatches):
        minibatch = [int(row) for row in rows[part :: config.minibatches]]
        accumulate(engine, reference, rollout, minibatch, advantages, behaviour, config, sums)
        norm = engine.step(rate)
        if not math.isfinite(norm):
            break
    sums = parallel.total(sums)
    tokens = max(1.0, sums.pop("tokens"))
    return {"gradient_norm": norm, "learning_rate": rate} | {name: value / tokens for name, value in sums.items()}


def token_losses(
    config: GrpoConfig,
    logprobs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    old: Tensor,
    sampled: Tensor | None = None,
    anchor: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's loss before aggregation: clipped surrogate, times the sampler's weight, plus beta times KL.

    Args:
        logprobs: [R, T] of the policy, with gradient.
        mask: [R, T] 1 for tokens that count.
        advantages: [R].
        old: [R, T] log-probabilities of the weights that sampled, as the trainer computes them.
        sampled: [R, T] log-probabilities recorded as sampled; needed for `sampler_correction`.
        anchor: [R, T] of the reference; None leaves the KL out.

    Returns:
        (loss [R, T], log-ratio [R, T] or [R, 1] without gradient, KL estimate [R, T] without gradient)
    """
    log_ratio = logprobs - old
    if config.loss == "gspo":
        log_ratio = sequence_log_ratio(log_ratio, mask)
    loss = clipped_objective(log_ratio, advantages, config.clip_low, config.clip_high, config.clip_dual)
    if config.sampler_correction != "none":
        assert sampled is not None, "the sampler records the log-probability of every token"
        loss = loss * truncated_weights(old, sampled, mask, config.sampler_correction_cap, config.sampler_correction)
    divergence = torch.zeros_like(logprobs)
    if anchor is not None:
        divergence = KL_ESTIMATORS[config.kl_estimator](anchor, logprobs)
        if config.kl_importance:
            divergence = divergence * log_ratio.exp()
        loss = loss + config.kl_coefficient * divergence
    return loss.expand_as(logprobs), log_ratio.detach(), divergence.detach()


def _divisors(rollout: Rollout, rows: Sequence[int], config: GrpoConfig) -> dict[int, Tensor]:
    """[1] what the token losses of each row of an optimizer step are divided by; rows left out have none."""
    if config.overlong == "mask":
        rows = [row for row in rows if rollout.completions[row].finished]
    if not rows:
        return {}
    lengths = torch.tensor([len(rollout.completions[row].token_ids) for row in rows])
    counted = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    step_tokens = None
    if config.minibatches > 1:
        kept = [c for c in rollout.completions if config.overlong != "mask" or c.finished]
        step_tokens = sum(len(c.token_ids) for c in kept) / config.minibatches
    return dict(zip(rows, denominator(config.loss, counted, config.sampling.max_tokens, step_tokens), strict=True))


def accumulate(
    engine: Engine,
    reference: nn.Module | None,
    rollout: Rollout,
    rows: Sequence[int],
    advantages: Tensor,
    behaviour: Mapping[int, Tensor] | None,
    config: GrpoConfig,
    sums: dict[str, float],
) -> float:
    """Gather the gradient of this process's share of a minibatch, in micro-batches whose split does not change it.

    Returns:
        The share's part of the loss.
    """
    divisors = _divisors(rollout, rows, config)
    acting = advantages != 0
    if reference is not None and config.kl_rows == "with_variance":
        size = rollout.rewards.shape[1]
        acting = acting.view(-1, size).any(1).repeat_interleave(size)
    live = [row for row in divisors if acting[row]]
    total = 0.0
    for chosen, weight in _passes(rollout, live, config):
        prompts = [rollout.prompt_of(row) for row in chosen]
        responses = [rollout.completions[row].token_ids for row in chosen]
        logprobs, mask, entropy = response_logprobs(engine.model, prompts, responses, config.sampling.temperature)
        old = logprobs.detach() if behaviour is None else _padded([behaviour[row] for row in chosen], logprobs)
        sampled = _sampled([rollout.completions[row] for row in chosen], logprobs)
        anchor = None
        if reference is not None:
            with torch.no_grad():
                anchor, _, _ = response_logprobs(reference, prompts, responses, config.sampling.temperature)
        gains = advantages[chosen].to(logprobs.device)
        losses, log_ratio, divergence = token_losses(
            config, logprobs, mask, gains, old=old, sampled=sampled, anchor=anchor
        )
        divisor = torch.stack([divisors[row] for row in chosen]).to(logprobs.device)
        loss = weight * (losses * mask / divisor).sum()
        engine.backward(loss)
        total += float(loss.detach())
        low, high = binding_clips(log_ratio, gains, config.clip_low, config.clip_high, config.clip_dual)
        observed = {
            "kl": divergence,
            "clipped_share": outside_clip(log_ratio, config.clip_low, config.clip_high),
            "clipped_low_share": low,
            "clipped_high_share": high,
            "sampler_gap": torch.zeros_like(old) if sampled is None else (old - sampled).abs(),
        }
        for name, value in observed.items():
            sums[name] += weight * float((value * mask).sum())
        sums["entropy"] += weight * float(entropy.sum())
        sums["tokens"] += weight * float(mask.sum())
    return total


def _passes(rollout: Rollout, rows: Sequence[int], config: GrpoConfig) -> list[tuple[list[int], float]]:
    """This process's micro-batches of some rows, each with its weight; a group's prompt counts once in each."""
    size = rollout.rewards.shape[1]
    lengths = [len(rollout.completions[row].token_ids) for row in rows]
    trunks = [(row // size, len(rollout.prompt_of(row))) for row in rows]
    batches = shared_micro_batches(lengths, config.micro_batch_tokens, trunks)
    return [([rows[place] for place in batch], weight) for batch, weight in batches]


def _sampled(completions: Sequence[Completion], like: Tensor) -> Tensor | None:
    """[R, T] log-probabilities as sampled; None where a completion came without them."""
    if any(len(completion.logprobs) != len(completion.token_ids) for completion in completions):
        return None
    return _padded([torch.tensor(completion.logprobs) for completion in completions], like)


@torch.no_grad()
def behaviour_logprobs(model: nn.Module, rollout: Rollout, config: GrpoConfig) -> dict[int, Tensor]:
    """Log-probabilities of every row under the policy that sampled it, before the first optimizer step."""
    found: dict[int, Tensor] = {}
    for batch, _ in _passes(rollout, range(len(rollout.completions)), config):
        responses = [rollout.completions[row].token_ids for row in batch]
        prompts = [rollout.prompt_of(row) for row in batch]
        logprobs, _, _ = response_logprobs(model, prompts, responses, config.sampling.temperature)
        for place, row in enumerate(batch):
            found[row] = logprobs[place, : len(responses[place])].cpu()
    return {row: values for part in parallel.exchange(found) for row, values in part.items()}


def _padded(rows: Sequence[Tensor], like: Tensor) -> Tensor:
    result = torch.zeros_like(like)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row
    return result
