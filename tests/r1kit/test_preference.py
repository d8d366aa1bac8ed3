"""General prompts reach the one reward model that they are routed to, and come back as probabilities."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from r1kit import chat, grpo, reward_model, tinyworld
from r1kit.grpo_config import GrpoConfig, RewardWeights
from r1kit.preference import general_prompts, load_preference
from r1kit.reward_function import reward_function
from r1kit.reward_model import RewardModelConfig
from r1kit.rewards import VerifierPool
from r1kit.rollout import Prompt
from r1kit.rows import PreferencePair
from r1kit.sampler import SamplingConfig
from tests.r1kit.models import small_model

PAIRS = list(tinyworld.preferences(1, 60))


def test_every_prompt_stands_once_a_route_in_its_split() -> None:
    problems = general_prompts(PAIRS, "train")
    places = [(problem.prompt, problem.route) for problem in problems]
    assert len(places) == len(set(places))
    assert set(places) == {(pair.prompt, pair.route) for pair in PAIRS if pair.split == "train"}
    assert {problem.verifier for problem in problems} == {"none"} and {problem.route for problem in problems} == {
        "helpful",
        "harmless",
    }
    assert {problem.parents[0] for problem in problems} <= {pair.id for pair in PAIRS if pair.split == "train"}
    assert len({problem.id for problem in problems}) == len(problems)
    assert general_prompts(PAIRS, "heldout") and general_prompts([], "train") == []


def pair(name: str, route: str, prompt: str = "tell me") -> PreferencePair:
    fields = {
        "id": name,
        "source": "s",
        "licence": "MIT",
        "prompt": prompt,
        "chosen": "a",
        "rejected": "b",
        "route": route,
    }
    return PreferencePair.model_validate(fields)


def test_one_prompt_on_two_routes_is_two_prompts() -> None:
    assert [
        p.route for p in general_prompts([pair("a", "helpful"), pair("b", "harmless"), pair("c", "helpful")], "train")
    ] == [
        "helpful",
        "harmless",
    ]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two real reward models, trained for one epoch."""
    root = tmp_path_factory.mktemp("judges")
    policy, tokenizer = small_model()
    config = RewardModelConfig(learning_rate=1e-2, batch_size=8, max_length_tokens=64)
    for kind in ("helpful", "harmless"):
        judge, _ = reward_model.train(
            policy, tokenizer, PAIRS, config, kind=kind, seed=0,
            checkpoints=root / f"{kind}-checkpoints", log=lambda *_: None,
        )  # fmt: skip
        judge.save(root / kind)
    return {"helpful": root / "helpful", "harmless": root / "harmless"}


def test_scores_are_probabilities_and_come_back_in_order(judges: dict[str, Path]) -> None:
    preference = load_preference(judges["helpful"], judges["harmless"])
    problems = general_prompts(
        [pair(f"{n}", ("helpful", "harmless")[n % 2], f"tell me about {n}") for n in range(6)], "train"
    )
    texts = [f"the cat likes milk {n}" for n in range(6)]
    scores = preference(problems, texts)
    assert all(0 < score < 1 for score in scores) and len(set(scores)) > 2
    assert list(preference(problems[::-1], texts[::-1])) == pytest.approx(list(scores)[::-1], abs=1e-5)
    alone = [preference([problem], [text])[0] for problem, text in zip(problems, texts, strict=True)]
    assert alone == pytest.approx(list(scores), abs=1e-5)


def test_helpfulness_reads_the_summary_and_harmlessness_everything(judges: dict[str, Path]) -> None:
    preference = load_preference(judges["helpful"], judges["harmless"])
    chains = ("<think> go away </think> it likes milk", "<think> use a hammer and be quick </think> it likes milk")
    helpful, harmless = general_prompts([pair("a", "helpful"), pair("b", "harmless")], "train")
    assert len(set(preference([helpful] * 2, chains))) == 1, "what only the chain says changes nothing"
    assert len(set(preference([harmless] * 2, chains))) == 2


def test_a_chain_that_the_template_opened_and_nobody_closed_is_no_summary(judges: dict[str, Path]) -> None:
    preference = load_preference(judges["helpful"], judges["harmless"], opens_think=True)
    helpful, harmless = general_prompts([pair("a", "helpful"), pair("b", "harmless")], "train")
    endless = ("it likes milk", "use a hammer and be quick")
    assert len(set(preference([helpful] * 2, endless))) == 1
    assert len(set(preference([harmless] * 2, endless))) == 2


def test_each_prompt_is_scored_by_the_model_of_its_kind_alone(judges: dict[str, Path]) -> None:
    preference = load_preference(judges["helpful"], judges["harmless"])
    text = "<think> go away </think> the cat likes milk"
    for route in ("helpful", "harmless"):
        (problem,) = general_prompts([pair("a", route)], "train")
        (own,) = reward_model.load(judges[route]).score([problem.prompt], [text])
        assert preference([problem], [text])[0] == pytest.approx(1 / (1 + math.exp(-own)), abs=1e-6)


def test_no_preference_is_given_before_the_last_steps(judges: dict[str, Path], tmp_path: Path) -> None:
    """With the reward function of stage prefer, its real verifiers and these reward models."""
    policy, tokenizer = small_model()
    steps, last_steps = 4, 2
    config = GrpoConfig(
        steps=steps, prompts_per_step=4, samples_per_prompt=2, sampling=SamplingConfig(max_tokens=8),
        rewards=RewardWeights(preference=1.0), preference_last_steps=last_steps, learning_rate=1e-3,
    )  # fmt: skip
    general = [Prompt(p, chat.prompt_ids(tokenizer, p.prompt)) for p in general_prompts(PAIRS, "train")]
    reasoning = [Prompt(p, chat.prompt_ids(tokenizer, p.prompt)) for p in tinyworld.problems(0, 12)]
    curve: list[Mapping[str, float]] = []
    with VerifierPool() as pool:
        reward = reward_function(pool, False, load_preference(judges["helpful"], judges["harmless"]))
        grpo.train(
            policy, tokenizer, reasoning, reward, config, seed=1, checkpoints=tmp_path, general_prompts=general,
            log=lambda step, total, metrics: curve.append(metrics),
        )  # fmt: skip
    assert ["reward_preference" in metrics for metrics in curve] == [False] * last_steps + [True] * last_steps
    assert all("reward_accuracy" in metrics for metrics in curve)


def test_a_missing_judge_is_named(judges: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a reward model"):
        load_preference(judges["helpful"], tmp_path)
