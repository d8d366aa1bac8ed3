"""Group relative policy optimisation: R1-Zero, reasoning RL and preference RL."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1kit import random
from r1kit.engine import Log, learning_rate, open_engine
from r1kit.grpo_config import GrpoConfig
from r1kit.guard import Guard, Measurement
from r1kit.resume import Checkpoints, digest_tokens
from r1kit.rollout import Prompt, Reward, answer, describe, roll_out
from r1kit.schema import shaping
from r1kit.update import update
from r1kit.watch import Watch


def train(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    reward: Reward,
    config: GrpoConfig,
    *,
    seed: int,
    checkpoints: Path,
    log: Log,
    general_prompts: Sequence[Prompt] = (),
    heldout_prompts: Sequence[Prompt] = (),
    say: Callable[[str], None] = lambda line: None,
    made_from: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Improve the policy, in place: roll out, verify, compare within groups, update.

    Killed at any instant and called again with the same arguments, it ends in the same bits (same machine and
    thread count): the state is weights, optimizer, reference, watch, guard and step; all else is a function of the
    step.

    Args:
        prompts: verifiable problems; each step takes the next `prompts_per_step` of a shuffled endless order.
        reward: verifies and scores completions.
        checkpoints: folder that survives kills.
        general_prompts: prompts judged by reward models, mixed in during the last `preference_last_steps`.
        heldout_prompts: of both kinds, for the alarm (`config.guard`); they are never trained on. Where there are none
            nothing is measured.
        made_from: digests of what else the result depends on, by name: the model it began from, reward models.

    Returns:
        Metrics of the first and the last steps, of the alarm (`Guard.facts`), and of resuming (`Checkpoints.finish`).

    Raises:
        ValueError: where `checkpoints` holds those of another training, this one is dead (`config.watch`), or the alarm
            rings and is to stop it (`config.guard`).
    """
    identity = _identity(prompts, general_prompts, heldout_prompts, config, seed) | {"made_from": dict(made_from)}
    saves = Checkpoints(checkpoints, config, identity, say)
    engine = open_engine(policy, config)
    reference = engine.frozen_copy() if config.kl_coefficient > 0 else None
    history: list[dict[str, float]] = []
    done, watch, guard = 0, Watch(), Guard()
    if saved := saves.newest(config.steps):
        engine.load(saved.tensors)
        if reference is not None:
            engine.load_frozen(reference, _under("reference.", saved.tensors))
        done, watch, history = saved.step, Watch.model_validate(saved.state["watch"]), saved.state["history"]
        guard = Guard.model_validate(saved.state["guard"])
        del saved  # as large as model, optimizer and reference together
    reasoning = random.Order(len(prompts), seed, "prompts")
    general = random.Order(len(general_prompts), seed, "general") if general_prompts else None

    def measured(guard: Guard, step: int) -> Guard:
        with engine.whole():
            return _measured(guard, policy, tokenizer, heldout_prompts, reward, config, seed=seed, step=step)

    last_steps = config.preference_last_steps if general_prompts and heldout_prompts else 0
    if not done and config.guard.due(0, config.steps, last_steps):
        guard = measured(guard, 0)
    for step in range(done, config.steps):
        if (
            reference is not None
            and step
            and config.reference_refresh_steps
            and step % config.reference_refresh_steps == 0
        ):
            engine.renew(reference)
        chosen = _choose(step, config, prompts, reasoning, general_prompts, general)
        started = time.perf_counter()
        with engine.whole():
            rollout = roll_out(policy, tokenizer, chosen, reward, config, seed=seed, step=step)
        sampled = time.perf_counter()
        rate = learning_rate(step, config.steps, config.learning_rate, config.warmup_steps)
        metrics = update(engine, reference, rollout, config, rate, seed=seed, step=step)
        metrics |= describe(rollout, config)
        metrics |= {"seconds_rollout": sampled - started, "seconds_update": time.perf_counter() - sampled}
        watch = watch.after_update(metrics).after_rollout(metrics, config.watch, config.rewards.model_dump())
        metrics |= watch.metrics()
        if config.guard.due(step + 1, config.steps, last_steps):
            guard = measured(guard, step + 1)
            metrics |= guard.metrics()
        log(step + 1, config.steps, metrics)
        saves.stop_if_dead(step + 1, watch.alarm(config.watch))
        saves.stop_if_dead(step + 1, guard.alarm(config.guard, step + 1))
        history.append(metrics)
        if saves.due(step + 1, config.steps):
            frozen = engine.frozen_tensors(reference) if reference is not None else {}
            tensors = engine.tensors() | {f"reference.{name}": tensor for name, tensor in frozen.items()}
            state = {"watch": watch.model_dump(), "guard": guard.model_dump(), "history": history}
            good_step = min(step + 1 - watch.longest(config.watch), guard.good_before(step + 1))
            saves.save(step + 1, tensors, state, good_step=good_step)
    engine.finish()
    policy.eval()
    if guard.words:
        say(f"after step {guard.rang_at} {guard.words}")
    return _summary(history) | guard.facts() | saves.finish()


def _measured(
    guard: Guard,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    reward: Reward,
    config: GrpoConfig,
    *,
    seed: int,
    step: int,
) -> Guard:
    """The guard after one answer to each held-out prompt, drawn with the same luck after every step."""
    luck = random.derive_seed(seed, "guard")
    _, components = answer(policy, tokenizer, prompts, reward, config, 1, seed=luck)
    scored = list(zip(prompts, components, strict=True))
    accuracy = tuple(row.get("accuracy", 0.0) for prompt, row in scored if prompt.problem.verifier != "none")
    preference = tuple(row.get("preference", 0.0) for prompt, row in scored if prompt.problem.verifier == "none")
    found = Measurement(step=step, accuracy=accuracy, preference=preference)
    return guard.after(found, config.guard, config.guard.looks(config.steps, config.preference_last_steps))


def _identity(
    prompts: Sequence[Prompt],
    general_prompts: Sequence[Prompt],
    heldout_prompts: Sequence[Prompt],
    config: GrpoConfig,
    seed: int,
) -> dict[str, Any]:
    """What makes it this training and no other."""
    given = (*prompts, *general_prompts, *heldout_prompts)
    problems = "\n".join(prompt.problem.model_dump_json() for prompt in given)
    return {
        "settings": shaping(config),
        "seed": seed,
        "prompts": digest_tokens([prompt.token_ids] for prompt in prompts),
        "general_prompts": digest_tokens([prompt.token_ids] for prompt in general_prompts),
        "heldout_prompts": digest_tokens([prompt.token_ids] for prompt in heldout_prompts),
        "problems": hashlib.sha256(problems.encode()).hexdigest(),
    }


def _choose(
    step: int,
    config: GrpoConfig,
    prompts: Sequence[Prompt],
    reasoning: random.Order,
    general_prompts: Sequence[Prompt],
    general: random.Order | None,
) -> list[Prompt]:
    """Prompts of a step; general ones only in the last steps (arXiv 2501.12948, supplementary B.3.2)."""
    first_general = config.steps - config.preference_last_steps
    num_general = 0
    if general is not None and step >= first_general:
        num_general = round(config.prompts_per_step * config.general_share)
    chosen = [prompts[i] for i in reasoning.take(step * config.prompts_per_step, config.prompts_per_step - num_general)]
    if general is not None and num_general:
        start = (step - first_general) * num_general
        chosen += [general_prompts[i] for i in general.take(start, num_general)]
    return chosen


def _summary(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the first and the last tenth of the steps, the number of steps, and how long each sign lasted."""
    window = max(1, len(history) // 10)
    result: dict[str, float] = {"steps": float(len(history))}
    for label, part in (("first", history[:window]), ("last", history[-window:])):
        for name in ("reward", "reward_accuracy", "reward_format", "reward_language", "reward_preference",
                     "response_tokens", "kl"):  # fmt: skip
            values = [metrics[name] for metrics in part if name in metrics]
            if values:
                result[f"{label}_{name}"] = sum(values) / len(values)
    for name in sorted({name for metrics in history for name in metrics if name.startswith("watch_")}):
        result[f"longest_{name}"] = max(metrics.get(name, 0.0) for metrics in history)
    return result


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, without the beginning."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
