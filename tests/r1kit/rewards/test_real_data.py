"""The verifiers on the real data sets: golds score 1, mutated programs fail, human labels are agreed with."""

import ast
import json

import pytest

from r1kit.chat import response
from r1kit.rewards import VerifierPool, check_gold
from r1kit.rows import Problem
from tests.r1kit.rewards.problems import fenced, lines, mirror, problem

UNVERIFIABLE: frozenset[str] = frozenset()
"""Rows whose gold answer cannot be verified. There are none: all of GSM8K, MATH-500, AIME, CMATH, HumanEval and MBPP
were checked. A row that joins them has to be explained here."""


def math(name: str) -> list[Problem]:
    """All problems of one data set."""
    if name == "gsm8k":
        golds = [row["answer"].rsplit("####", 1)[1].strip() for row in lines("math/gsm8k_test.jsonl")]
    elif name == "math500":
        golds = [row["answer"] for row in lines("math/math500.jsonl")]
    elif name == "cmath":
        golds = [row["golden"] for row in lines("math/cmath_zh.jsonl")]
    else:
        files = [mirror("math/aime2024.json"), mirror("math/aime1983_2023.json")]
        golds = [str(row["answer"]) for file in files for row in json.loads(file.read_text())]
    return [problem("math", gold, id=f"{name}/{n}") for n, gold in enumerate(golds)]


def code(name: str) -> list[Problem]:
    """All programming problems of one data set."""
    if name == "mbpp":
        return [
            problem("code", id=f"mbpp/{row['task_id']}", solution=row["code"],
                    tests="\n".join([row["test_setup_code"], *row["test_list"]]))
            for row in lines("code/mbpp.jsonl")
        ]  # fmt: skip
    return [
        problem("code", id=row["task_id"], solution=row["prompt"] + row["canonical_solution"], tests=row["test"],
                meta=json.dumps({"entry_point": row["entry_point"]}))
        for row in lines("code/HumanEval.jsonl.gz")
    ]  # fmt: skip


def spread(rows: list[Problem], count: int) -> list[Problem]:
    """`count` rows from all over."""
    return rows[:: max(1, len(rows) // count)][:count]


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime", "cmath"])
def test_gold_against_gold_scores_1(pool: VerifierPool, name: str) -> None:
    rows = spread(math(name), 100)
    failed = {
        row.id: verdict.reason for row, verdict in zip(rows, check_gold(pool, rows), strict=True) if verdict.score < 1
    }
    assert failed.keys() <= UNVERIFIABLE, failed


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime", "cmath"])
def test_gold_with_another_behind_it_scores_0(pool: VerifierPool, name: str) -> None:
    rows = spread(math(name), 100)
    hedges = [response("so", f"{row.answer} or {row.answer}1") for row in rows]
    assert [row.id for row, verdict in zip(rows, pool.verify(rows, hedges), strict=True) if verdict.score] == []


@pytest.mark.parametrize("name", ["mbpp", "humaneval"])
def test_reference_programs_pass_and_mutated_ones_fail(pool: VerifierPool, name: str) -> None:
    rows = spread(code(name), 30)
    failed = {
        row.id: verdict.reason for row, verdict in zip(rows, check_gold(pool, rows), strict=True) if verdict.score < 1
    }
    assert failed.keys() <= UNVERIFIABLE, failed
    verdicts = pool.verify(rows, [fenced(mutated(row.solution)) for row in rows])
    assert [row.id for row, verdict in zip(rows, verdicts, strict=True) if verdict.score] == []


def mutated(program: str) -> str:
    """The program with every value returned put into a list with an object of no use."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Return):
            node.value = ast.List([node.value or ast.Constant(None), ast.Constant("changed")], ast.Load())
    return ast.unparse(ast.fix_missing_locations(tree))


def test_labels_of_model_solutions_are_agreed_with(pool: VerifierPool) -> None:
    """300 of the 5,276 labelled solutions to GSM8K; r1kit agrees with all 5,276."""
    rows, texts, labels = [], [], []
    for question in lines("math/gsm8k_example_model_solutions.jsonl")[:75]:
        gold = question["ground_truth"].rsplit("A:", 1)[1].strip()
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            solution = question[model]["solution"]
            chain, colon, answer = solution.rpartition("A:")
            rows.append(problem("math", gold))
            texts.append(response(chain, answer) if colon else solution)
            labels.append(question[model]["is_correct"])
    found = [verdict.score >= 1 for verdict in pool.verify(rows, texts)]
    assert len(labels) == 300 and 0.2 < sum(labels) / 300 < 0.8
    assert sum(a == b for a, b in zip(found, labels, strict=True)) / 300 >= 0.99
