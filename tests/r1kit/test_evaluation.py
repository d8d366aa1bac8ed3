"""Evaluation: its figures, its pairing, its fairness."""

import pytest

from r1kit import tinyworld
from r1kit.evaluation import Evaluation, EvaluationConfig, consensus, evaluate, paired_difference
from r1kit.models import ScratchConfig, make_llama
from r1kit.rewards import Verdict
from r1kit.rows import Problem, Verifier
from r1kit.sampler import SamplingConfig

CONFIG = EvaluationConfig(
    samples_per_problem=3,
    sampling=SamplingConfig(temperature=0.6, top_p=0.95, max_tokens=8),
    max_problems=None,
    batch_size=8,
    transcripts=2,
)


class EvenPool:
    """Says right where the completion has an even number of words; it counts its calls."""

    def verify(self, problems, completions, opens_think=False):
        assert all(problem.verifier != "none" for problem in problems)
        return [Verdict(score=float(len(text.split()) % 2 == 0), reason="even", seconds=0.0) for text in completions]


def problem(number: int, benchmark: str = "sums", verifier: Verifier = "math") -> Problem:
    return Problem(
        id=f"{benchmark}/{number}", source="test", licence="MIT", prompt=f"{number} plus 4", verifier=verifier,
        answer="7", benchmark=benchmark, route="helpful" if verifier == "none" else "",
    )  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    tokenizer = tinyworld.tokenizer()
    shape = ScratchConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, max_length_tokens=128)
    return make_llama(shape, tokenizer, seed=3), tokenizer


@pytest.fixture(scope="module")
def evaluation(policy) -> Evaluation:
    model, tokenizer = policy
    problems = [problem(n) for n in range(6)] + [problem(n, "others") for n in range(4)]
    return evaluate(model, tokenizer, problems, EvenPool(), CONFIG, seed=1, name="base")


def test_pass_at_1_is_the_mean_over_samples_of_the_mean_over_problems(evaluation: Evaluation):
    scores = [row.score for row in evaluation.problems]
    overall = evaluation.overall
    assert overall.pass_at_1 is not None
    assert overall.pass_at_1.value == pytest.approx(sum(scores) / len(scores))
    assert overall.pass_at_1.low <= overall.pass_at_1.value <= overall.pass_at_1.high
    assert (overall.n, overall.k) == (10, 3)
    assert {name: s.n for name, s in evaluation.benchmarks.items()} == {"sums": 6, "others": 4}
    assert sum(s.tokens for s in evaluation.benchmarks.values()) == overall.tokens
    assert 0 < overall.response_tokens <= 8


def test_it_reads_back_from_its_own_json(evaluation: Evaluation):
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_metrics_have_flat_finite_names(evaluation: Evaluation):
    metrics = evaluation.metrics()
    assert metrics["sums/n"] == 6
    assert metrics["pass_at_1_low"] <= metrics["pass_at_1"] <= metrics["pass_at_1_high"]
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_problems_samples_do_not_depend_on_the_company(policy, evaluation: Evaluation):
    model, tokenizer = policy
    alone = evaluate(model, tokenizer, [problem(3)], EvenPool(), CONFIG, seed=1)
    together = next(row for row in evaluation.problems if row.id == "sums/3")
    assert alone.problems[0].score == together.score


def test_general_prompts_are_left_to_the_reward_models(policy):
    model, tokenizer = policy
    rows = [problem(1), problem(2, "chat", "none"), problem(3, "chat", "none")]
    without = evaluate(model, tokenizer, rows, EvenPool(), CONFIG, seed=1)
    assert set(without.benchmarks) == {"sums"}
    judged = evaluate(
        model,
        tokenizer,
        rows,
        EvenPool(),
        CONFIG,
        seed=1,
        preference=lambda problems, texts: [0.25] * len(texts),
    )
    assert judged.benchmarks["chat"].pass_at_1 is None
    assert judged.benchmarks["chat"].preference is not None
    assert judged.benchmarks["chat"].preference.value == 0.25
    assert judged.overall == without.overall


def test_nothing_to_score_is_said_in_one_sentence(policy):
    model, tokenizer = policy
    with pytest.raises(ValueError, match="can be scored"):
        evaluate(model, tokenizer, [problem(1, "chat", "none")], EvenPool(), CONFIG, seed=1)


def test_the_limit_counts_within_each_benchmark(policy):
    model, tokenizer = policy
    rows = [problem(n) for n in range(5)] + [problem(n, "others") for n in range(5)]
    few = evaluate(model, tokenizer, rows, EvenPool(), CONFIG.model_copy(update={"max_problems": 2}), seed=1)
    assert [row.id for row in few.problems] == ["sums/0", "sums/1", "others/0", "others/1"]


def test_consensus_takes_the_most_frequent_answer():
    assert consensus(["7", " 7 ", "8"], [1, 1, 0]) is True
    assert consensus(["8", "8", "7"], [0, 0, 1]) is False
    assert consensus([None, None, "7"], [0, 0, 1]) is True
    assert consensus([None, None], [0, 0]) is False
    assert consensus(["7"], [1]) is None


def test_paired_difference_sees_what_two_intervals_do_not(evaluation: Evaluation):
    better = evaluation.model_copy(
        update={"problems": tuple(p.model_copy(update={"score": p.score + 0.1}) for p in evaluation.problems)}
    )
    gain = paired_difference(better, evaluation)
    assert gain.low == pytest.approx(0.1) == gain.high
    assert paired_difference(evaluation, evaluation).value == 0.0


def test_models_examined_on_other_problems_are_not_compared(evaluation: Evaluation):
    fewer = evaluation.model_copy(update={"problems": evaluation.problems[1:]})
    with pytest.raises(ValueError, match="same problems"):
        paired_difference(evaluation, fewer)
