"""The training step agrees with TRL's, and with the papers' formulae written out once more in NumPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.grpo_config import GrpoConfig
from tests.r1kit.parity import make_case, make_cases, our_answer, read_golden, summary, worst_difference
from tests.r1kit.reference import Reference

TOLERANCE = 1e-5
GOLDEN = {case["name"]: case for case in read_golden()["cases"]}

choices = st.fixed_dictionaries({
    "loss": st.sampled_from(["r1", "grpo", "dr_grpo", "dapo", "bnpo", "gspo"]),
    "advantage": st.sampled_from(["std", "mean", "leave_one_out"]),
    "advantage_ddof": st.sampled_from([0, 1]),
    "advantage_epsilon": st.sampled_from([0.0, 1e-6, 1e-4]),
    "clip_low": st.sampled_from([0.1, 0.2]),
    "clip_high": st.sampled_from([0.1, 0.28, 10.0]),
    "clip_dual": st.sampled_from([None, 1.1, 3.0]),
    "kl_coefficient": st.sampled_from([0.0, 0.3]),
    "kl_estimator": st.sampled_from(["k1", "k2", "k3"]),
    "kl_importance": st.booleans(),
    "kl_rows": st.sampled_from(["with_advantage", "with_variance"]),
    "sampler_correction": st.sampled_from(["none", "token", "sequence"]),
    "sampler_correction_cap": st.sampled_from([1.0, 1.3, 5.0]),
    "overlong": st.sampled_from(["keep", "mask"]),
    "minibatches": st.sampled_from([1, 2]),
    "micro_batch_tokens": st.sampled_from([1, 40, 10_000]),
}).filter(lambda c: c["kl_estimator"] != "k1" or c["kl_importance"] or not c["kl_coefficient"])  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_the_training_step_gives_what_trl_gave(name: str) -> None:
    case = GOLDEN[name]
    difference = worst_difference(summary(our_answer(case)), case["answer"])
    assert max(difference.values()) <= TOLERANCE, difference


@pytest.mark.parametrize("name", [name for name, case in GOLDEN.items() if case["kind"] == "tokens"])
def test_the_formulae_written_out_give_what_trl_gave(name: str) -> None:
    case = GOLDEN[name]
    assert max(_difference(Reference(case), case, case["answer"]).values()) <= TOLERANCE


@settings(deadline=None, max_examples=60)
@given(choices, st.integers(0, 10**6))
def test_the_training_step_gives_the_formulae_for_every_choice(choice: dict[str, Any], seed: int) -> None:
    case = make_case(choice, seed)
    difference = _difference(Reference(case), case, our_answer(case))
    assert max(difference.values()) <= TOLERANCE, difference


def _difference(reference: Reference, case: dict[str, Any], answer: dict[str, Any]) -> dict[str, float]:
    logprobs = np.array(case["logprobs"])
    written = {
        "advantages": reference.advantages[: reference.num_rows],
        "loss": reference.loss(logprobs),
        "gradient": reference.gradient(logprobs)[: len(answer["gradient"])].tolist(),
    }
    return worst_difference(written, answer)


def test_the_golden_cases_are_the_benchmarks() -> None:
    kept = [{key: value for key, value in case.items() if key != "answer"} for case in GOLDEN.values()]
    assert kept == make_cases()


@pytest.mark.parametrize("name", ["dual clip", "the preset's clip", "sampler's weights", "gspo"])
def test_the_golden_cases_reach_what_they_are_named_after(name: str) -> None:
    case = GOLDEN[name]
    others = {
        "dual clip": {"clip_dual": None},
        "the preset's clip": {"clip_high": 0.28},
        "sampler's weights": {"sampler_correction_cap": 100.0},
        "gspo": {"clip_low": 0.99, "clip_high": 10.0},
    }
    config = GrpoConfig.model_validate({**case["config"], **others[name]}).model_dump(mode="json")
    difference = worst_difference(our_answer({**case, "config": config}), case["answer"])
    assert difference["gradient"] > 100 * TOLERANCE
