"""From a model directory and problems to a model trained by GRPO: what zero, reason and prefer share."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from r1kit import chat, grpo, models
from r1kit.engine import Log
from r1kit.grpo_config import GrpoConfig
from r1kit.guard import choose
from r1kit.reward_function import Preference, reward_function
from r1kit.rewards import VerifierPool
from r1kit.rollout import Prompt
from r1kit.rows import Problem


def reinforce(
    model_dir: Path,
    problems: Sequence[Problem],
    config: GrpoConfig,
    output: Path,
    *,
    pool: VerifierPool,
    seed: int,
    checkpoints: Path,
    log: Log,
    say: Callable[[str], None],
    system: str | None = None,
    dtype: str = "float32",
    general: Sequence[Problem] = (),
    heldout: Sequence[Problem] = (),
    preference: Preference | None = None,
    made_from: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Train the model in `model_dir` with GRPO and write the result to `output`.

    Args:
        problems: with verifiable answers.
        general: prompts for the reward models, in the last `preference_last_steps`.
        heldout: problems and general prompts that no stage trains on, for the alarm (`config.guard`).
        preference: scores general prompts.
        made_from: digests of the model, the reward models and what else it is given; see `grpo.train`.

    Returns:
        Metrics of the training (`grpo.train`).
    """
    policy, tokenizer = models.load(model_dir, dtype)
    chat.check_template(tokenizer)
    reward = reward_function(pool, chat.opens_think(tokenizer), preference)

    def prompts(rows: Sequence[Problem]) -> list[Prompt]:
        return [Prompt(row, chat.prompt_ids(tokenizer, row.prompt, system)) for row in rows]

    metrics = grpo.train(
        policy,
        tokenizer,
        prompts([row for row in problems if row.verifier != "none"]),
        reward,
        config,
        seed=seed,
        checkpoints=checkpoints,
        log=log,
        general_prompts=prompts(general),
        heldout_prompts=prompts(choose(heldout, config.guard, seed)),
        say=say,
        made_from=made_from,
    )
    models.save(policy, tokenizer, output)
    return metrics
