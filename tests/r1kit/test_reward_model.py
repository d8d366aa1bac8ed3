"""Laws of the reward models' training, and of what each of them reads."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from r1kit import reward_model, tinyworld
from r1kit.engine import Engine
from r1kit.models import ScratchConfig, make_llama
from r1kit.reward_model import Kind, RewardModel, RewardModelConfig, accumulate, train
from r1kit.rows import PreferencePair

CONFIG = RewardModelConfig(learning_rate=3e-3, batch_size=16, checkpoint_every_steps=2, checkpoint_max_share=1)
WORDS = ("milk", "house", "bones", "garden", "grass", "field", "honey", "lake")


@pytest.fixture(scope="module")
def tokenizer():
    return tinyworld.tokenizer()


@pytest.fixture(scope="module")
def policy(tokenizer):
    shape = ScratchConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_length_tokens=64)
    return make_llama(shape, tokenizer, seed=0)


def pairs(route: Kind, number: int = 160) -> list[PreferencePair]:
    """The preferred response names a cat, the other a dog, in texts of equal length and all different."""
    rows = []
    for n in range(number):
        filler = " ".join(WORDS[(n // 8**place) % 8] for place in range(3))
        rows.append(
            PreferencePair(
                id=f"p/{n}",
                source="test",
                licence="MIT",
                prompt="what is it",
                chosen=f"{filler} cat",
                route=route,
                rejected=f"{filler} dog",
                split="heldout" if n % 5 == 0 else "train",
            )
        )
    return rows


def fit(policy, tokenizer, tmp_path: Path, kind: Kind = "helpful", config=CONFIG, log=lambda *_: None, rows=None):
    rows = pairs(kind) if rows is None else rows
    return train(policy, tokenizer, rows, config, kind=kind, seed=5, checkpoints=tmp_path, log=log)


@pytest.mark.parametrize("kind", ["helpful", "harmless"])
def test_it_learns_what_was_preferred_from_held_out_pairs(policy, tokenizer, tmp_path, kind):
    config = CONFIG.model_copy(update={"epochs": 6.0})
    judge, found = fit(policy, tokenizer, tmp_path, kind, config)
    metrics = found.metrics
    assert sum(bin_.count for bin_ in found.calibration) == 32 * (2 if kind == "harmless" else 1)
    assert metrics["agreement"] >= 0.9
    assert metrics["agreement_low"] <= metrics["agreement"] <= metrics["agreement_high"]
    assert metrics["heldout_unseen_share"] == 1.0
    assert abs(metrics["length_correlation"]) < 0.01  # all texts are equally long
    good, bad = judge.score(["what is it"] * 2, ["milk lake honey cat", "milk lake honey dog"])
    assert good > bad


def test_the_first_loss_is_that_of_a_coin(policy, tokenizer, tmp_path):
    seen = []
    fit(policy, tokenizer, tmp_path, log=lambda step, total, metrics: seen.append(metrics["loss"]))
    assert seen[0] == pytest.approx(math.log(2), abs=1e-6)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("kind", ["helpful", "harmless"])
def test_a_killed_training_ends_in_the_same_bits(policy, tokenizer, tmp_path, kind):
    whole, _ = fit(policy, tokenizer, tmp_path / "whole", kind)

    def kill(step, total, metrics):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(policy, tokenizer, tmp_path / "cut", kind, log=kill)
    steps = []
    resumed, _ = fit(policy, tokenizer, tmp_path / "cut", kind, log=lambda step, *_: steps.append(step))
    assert steps[0] == 5
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["helpful", "harmless"])
def test_micro_batches_do_not_change_the_gradient(policy, tokenizer, kind):
    batch = reward_model.encode_pairs(pairs(kind, 24), tokenizer, kind, CONFIG, seed=1)
    gradients = []
    for budget in (20, 100_000):
        torch.manual_seed(0)
        model = RewardModel(make_llama(_shape(), tokenizer, seed=2).model, learned_bias=kind == "harmless")
        torch.nn.init.normal_(model.head.weight)
        accumulate(Engine(model, CONFIG), batch, kind, budget)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)


def _shape() -> ScratchConfig:
    return ScratchConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_length_tokens=64)


@pytest.mark.parametrize("kind", ["helpful", "harmless"])
def test_neither_the_order_of_pairs_nor_that_within_them_changes_loss_or_gradient(policy, tokenizer, kind):
    batch = reward_model.encode_pairs(pairs(kind, 24), tokenizer, kind, CONFIG, seed=1)
    turned = [replace(p, first=p.second, second=p.first, first_preferred=not p.first_preferred) for p in batch]
    found = []
    for rows in (batch, turned, batch[::-1]):
        torch.manual_seed(0)
        model = RewardModel(make_llama(_shape(), tokenizer, seed=2).model, learned_bias=kind == "harmless")
        torch.nn.init.normal_(model.head.weight)
        loss, right = accumulate(Engine(model, CONFIG), rows, kind, 100)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((loss, right, gradient))
    for loss, right, gradient in found[1:]:
        assert (loss, right) == pytest.approx(found[0][:2], abs=1e-6)
        assert torch.allclose(gradient, found[0][2], rtol=1e-4, atol=1e-6)


def test_what_a_comparison_says_is_the_difference_of_two_scores_that_know_nothing_of_each_other(
    policy, tokenizer, tmp_path
):
    judge, _ = fit(policy, tokenizer, tmp_path)
    batch = reward_model.encode_pairs(pairs("helpful", 8), tokenizer, "helpful", CONFIG, seed=1)
    turned = [replace(p, first=p.second, second=p.first, first_preferred=not p.first_preferred) for p in batch]
    ours, theirs = (reward_model.judge_pairs(judge.model, rows, 100) for rows in (batch, turned))
    assert [p.logit for p in ours] == pytest.approx([-p.logit for p in theirs], abs=1e-5)
    assert [p.margin for p in ours] == pytest.approx([p.margin for p in theirs], abs=1e-5)


@torch.no_grad()
def test_padding_changes_no_score(policy):
    model = RewardModel(policy.model, learned_bias=True)
    torch.nn.init.normal_(model.head.weight)
    short, long = (5, 6, 7), tuple(range(5, 45))
    alone = float(model([short]))
    assert float(model([short, long])[0]) == pytest.approx(alone, abs=1e-5)


def test_a_comparison_never_moves_the_bias_until_it_is_centred(policy, tokenizer, tmp_path):
    judge, _ = fit(policy, tokenizer, tmp_path)
    rows = [p for p in pairs("helpful") if p.split == "train"]
    scores = judge.score([p.prompt for p in rows] * 2, [p.chosen for p in rows] + [p.rejected for p in rows])
    assert sum(scores) / len(scores) == pytest.approx(0.0, abs=1e-4)


def test_helpfulness_reads_the_summary_only_and_harmlessness_everything():
    text = "<think> take the bike </think> please do not do that"
    assert reward_model.reads("helpful", text) == "please do not do that"
    assert reward_model.reads("harmless", text) == text
    assert reward_model.reads("helpful", "and so it goes on", opens_think=True) == "", "a chain that was never closed"


def test_lengths_are_those_of_the_responses_alone_and_of_what_was_cut_too(tokenizer):
    row = pairs("helpful", 1)[0].model_copy(
        update={"chosen": "<think> go away </think> milk lake cat", "rejected": "dog"}
    )
    for limit in (3, 100):
        config = CONFIG.model_copy(update={"max_length_tokens": limit})
        (helpful,) = reward_model.encode_pairs([row], tokenizer, "helpful", config, seed=0)
        assert set(helpful.lengths) == {4, 2}, "the words and the end of the turn"
        assert helpful.lengths[0 if helpful.first_preferred else 1] == 4


def test_order_within_pairs_is_random_and_fixed_by_the_seed(tokenizer):
    encoded = reward_model.encode_pairs(pairs("helpful", 200), tokenizer, "helpful", CONFIG, seed=1)
    share = sum(pair.first_preferred for pair in encoded) / 200
    assert 0.35 < share < 0.65
    assert encoded == reward_model.encode_pairs(pairs("helpful", 200), tokenizer, "helpful", CONFIG, seed=1)


def test_a_long_text_is_cut_at_the_left(tokenizer):
    full = reward_model.encode(tokenizer, "harmless", "what is it", "milk lake honey cat", 100)
    cut = reward_model.encode(tokenizer, "harmless", "what is it", "milk lake honey cat", 4)
    assert cut == full[-4:]
    assert cut[-1] == tokenizer.eos_token_id


def test_what_was_saved_scores_the_same_without_pickle(policy, tokenizer, tmp_path):
    judge, found = fit(policy, tokenizer, tmp_path / "checkpoints")
    judge.save(tmp_path / "judge", found.metrics)
    names = {path.suffix for path in (tmp_path / "judge").iterdir()}
    assert not names & {".bin", ".pt", ".pkl", ".pickle"}
    again = reward_model.load(tmp_path / "judge")
    texts = ["milk lake honey cat", "grass dog"]
    assert again.score(["what is it"] * 2, texts) == judge.score(["what is it"] * 2, texts)
    assert again.kind == "helpful"


def test_length_alone_is_found_out(policy, tokenizer, tmp_path):
    rows = [
        row.model_copy(update={"chosen": row.chosen + " and it is here", "rejected": row.rejected})
        for row in pairs("helpful")
    ]
    _, found = fit(policy, tokenizer, tmp_path, rows=rows)
    assert found.metrics["length_agreement"] == 1.0
    assert "agreement_shorter" not in found.metrics  # no pair speaks against length
    assert found.metrics["longer_preferred"] == 1.0


def test_a_model_that_learned_length_is_found_out_by_pairs_that_speak_against_it(policy, tokenizer, tmp_path):
    def stretched(row: PreferencePair, number: int) -> PreferencePair:
        longer = "rejected" if row.split == "heldout" and number % 2 else "chosen"
        same = row.chosen.removesuffix(" cat")
        texts = {"chosen": same, "rejected": same}
        return row.model_copy(update={**texts, longer: f"{same} and it is here"})

    rows = [stretched(row, n // 5) for n, row in enumerate(pairs("helpful"))]
    config = CONFIG.model_copy(update={"epochs": 6.0})
    _, found = fit(policy, tokenizer, tmp_path, config=config, rows=rows)
    assert found.metrics["longer_preferred"] == 0.5 and found.metrics["longer_scored_higher"] > 0.9
    assert found.metrics["length_bias"] > 0.4 and found.metrics["agreement_shorter"] < 0.1


@pytest.mark.parametrize("missing", ["train", "heldout"])
def test_missing_pairs_are_named(policy, tokenizer, tmp_path, missing):
    rows = [row for row in pairs("helpful") if row.split != missing]
    with pytest.raises(ValueError, match=f"'helpful' and split '{missing}'"):
        fit(policy, tokenizer, tmp_path, rows=rows)


def test_a_directory_that_is_no_reward_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"reward_model\.json is missing"):
        reward_model.load(tmp_path)
