"""The verifiers on a part of the real data sets; `make bench-verify` has them whole."""

import ast
from itertools import islice

import pytest

from benchmarks.plain_python import passes
from benchmarks.real_rows import LABELLED, labelled_solutions, problems
from r1kit.chat import response
from r1kit.data.mutants import mutants
from r1kit.data.table import SOURCES
from r1kit.rewards import VerifierPool, check_gold
from r1kit.rows import Problem
from tests.r1kit.rewards.problems import fenced, mirror

MATHEMATICS = ("gsm8k_train", "math500", "math_train", "aime2024", "aime_1983_2023", "cmath")
PROGRAMS = ("mbpp", "humaneval")


def spread(name: str, count: int) -> list[Problem]:
    """`count` rows of a source from all over; the test is skipped where the mirror lacks its file."""
    for file in SOURCES[name].raw_files:
        mirror(file.path)
    rows, _ = problems(name)
    return rows[:: max(1, len(rows) // count)][:count]


@pytest.mark.parametrize("name", MATHEMATICS)
def test_gold_against_gold_scores_1_in_other_words_too(pool: VerifierPool, name: str) -> None:
    rows = spread(name, 100)
    assert [row.id for row, v in zip(rows, check_gold(pool, rows), strict=True) if v.score < 1] == []
    for words in ("\\boxed{{{}}}", "The final answer is: {}.", "**{}**"):
        verdicts = pool.verify(rows, [response("so", words.format(row.answer)) for row in rows])
        assert [(row.answer, v.reason) for row, v in zip(rows, verdicts, strict=True) if v.score < 1] == []


@pytest.mark.parametrize("name", MATHEMATICS)
def test_gold_with_another_behind_it_scores_0(pool: VerifierPool, name: str) -> None:
    rows = spread(name, 100)
    hedges = [response("so", f"{row.answer} or {row.answer}1") for row in rows]
    assert [row.id for row, v in zip(rows, pool.verify(rows, hedges), strict=True) if v.score] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_reference_programs_pass_and_those_that_return_something_else_fail(pool: VerifierPool, name: str) -> None:
    rows = spread(name, 30)
    assert [(row.id, v.reason) for row, v in zip(rows, check_gold(pool, rows), strict=True) if v.score < 1] == []
    verdicts = pool.verify(rows, [fenced(elsewhere(row.solution)) for row in rows])
    assert [row.id for row, v in zip(rows, verdicts, strict=True) if v.score] == []


def elsewhere(program: str) -> str:
    """The program with every value returned put into a list with an object of no use."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Return):
            node.value = ast.List([node.value or ast.Constant(None), ast.Constant("changed")], ast.Load())
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_with_one_fault_get_the_verdict_of_ordinary_python(pool: VerifierPool, name: str) -> None:
    pairs = [(row, text) for row in spread(name, 60) for text in islice(mutants(row.solution, 1), 1)]
    verdicts = pool.verify([row for row, _ in pairs], [fenced(text) for _, text in pairs])
    for (row, text), verdict in zip(pairs, verdicts, strict=True):
        assert (verdict.score == 1) == passes(row, text), (row.id, verdict.reason, text)
    assert sum(verdict.score < 1 for verdict in verdicts) > len(pairs) / 2


def test_a_function_that_the_prompt_gives_is_not_the_answers_to_change(pool: VerifierPool) -> None:
    row = next(row for row in spread("humaneval", 200) if row.id == "humaneval/32")
    cheat = "def poly(xs, x):\n    return 0\ndef find_zero(xs):\n    return 1.5"
    assert "def poly" in row.tests and pool.verify([row], [fenced(cheat)])[0].reason == "a test fails"


def test_labels_of_model_solutions_are_agreed_with(pool: VerifierPool) -> None:
    mirror(LABELLED.path)
    rows, texts, labels = labelled_solutions()
    found = [verdict.score >= 1 for verdict in pool.verify(rows, texts)]
    assert len(labels) == 5276 and 0.2 < sum(labels) / len(labels) < 0.8
    assert sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels) >= 0.995
