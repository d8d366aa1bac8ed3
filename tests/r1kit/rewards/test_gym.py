"""reasoning-gym: its golds score 1, other answers do not, and none is evaluated unless it is harmless."""

import json
from pathlib import Path

import pytest
import reasoning_gym

from r1kit.chat import response
from r1kit.rewards import VerifierPool, check_gold
from r1kit.rewards.gym import harmless
from r1kit.rows import Problem
from tests.r1kit.rewards.problems import problem

DATASETS = (
    "chain_sum", "letter_counting", "basic_arithmetic", "gcd", "leg_counting", "spell_backward", "number_sorting",
    "simple_equations", "countdown", "puzzle24", "polynomial_multiplication", "simple_integration",
    "propositional_logic",
    "word_sorting", "n_queens", "sudoku", "maze", "string_insertion",
)  # fmt: skip


def entries(name: str, count: int = 3) -> list[Problem]:
    dataset = reasoning_gym.create_dataset(name, seed=7, size=count)
    return [
        problem("gym", str(entry["answer"]), id=f"{name}/{n}",
            meta=json.dumps({"dataset": name, "entry": entry}, default=str))
        for n, entry in enumerate(dataset)
        if entry["answer"] is not None
    ]  # fmt: skip


def test_golds_score_1_and_nonsense_does_not(pool: VerifierPool) -> None:
    problems = [row for name in DATASETS for row in entries(name)]
    assert len({row.id.split("/")[0] for row in problems}) >= 15
    verdicts = check_gold(pool, problems)
    assert [
        (row.id, verdict.reason) for row, verdict in zip(problems, verdicts, strict=True) if verdict.score < 1
    ] == []
    for wrong in ("", "qqq", "-987654321 or 5"):
        verdicts = pool.verify(problems, [response("so", wrong)] * len(problems))
        assert [row.id for row, verdict in zip(problems, verdicts, strict=True) if verdict.score >= 1] == []


ATTACKS = (
    "__import__('os').system('touch {place}')", "open('{place}', 'w')", "exec(\"open('{place}', 'w')\")",
    "().__class__.__base__.__subclasses__()", "(lambda: open('{place}', 'w'))()", "[open][0]('{place}', 'w')",
    "sin.__globals__", "eval('1')", "''.join(['a'])", "9**9**9**9", "getattr (1, 'real')", "ｅxec('1')", "(x := 5)",
    "9**99999999", "2**(-9999)", "1<<999999999",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["countdown", "puzzle24", "simple_integration", "polynomial_multiplication", "n_queens"]
)
def test_an_answer_is_never_run(pool: VerifierPool, tmp_path: Path, name: str) -> None:
    row = entries(name, 1)[0]
    attacks = [text.format(place=tmp_path / "made") for text in ATTACKS]
    verdicts = pool.verify([row] * len(attacks), [response("so", text) for text in attacks])
    assert all(verdict.score < 1 for verdict in verdicts) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_are_told_from_expressions(text: str) -> None:
    assert not harmless(text)


@pytest.mark.parametrize(
    "text", ["(3 + 4) * 2 - 1", "x**2/2 + sin(x) + C", "[1, 2, 3]", "sqrt(2*x)*exp(-x)", "-3*x**3 + 2.5*x**2 - x"]
)
def test_expressions_are_harmless(text: str) -> None:
    assert harmless(text)


def test_an_unknown_data_set_is_a_verdict(pool: VerifierPool) -> None:
    bad = problem("gym", "5", meta=json.dumps({"dataset": "no_such_thing", "entry": {"answer": "5"}}))
    good = entries("chain_sum", 1)[0]
    verdicts = pool.verify([bad, good, bad], [response("so", "5"), response("so", good.answer), response("so", "5")])
    assert [verdict.score for verdict in verdicts] == [0, 1, 0]
    assert "cannot be verified" in verdicts[0].reason
