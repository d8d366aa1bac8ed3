"""Mutants: one change each, never the program itself, always the same."""

import ast

import pytest

from r1kit.data.mutants import mutants

PROGRAM = '''
def largest(values, limit=10):
    """The largest of them."""
    best = 0
    for value in values:
        if value > best and value < limit:
            best = value
    return best + 1
'''


def test_every_mutant_is_another_program_and_they_come_in_one_order() -> None:
    found = list(mutants(PROGRAM))
    assert len(found) > 10 and found == list(mutants(ast.unparse(ast.parse(PROGRAM))))
    assert len({*found, ast.unparse(ast.parse(PROGRAM))}) == len(found) + 1
    for text in found:
        compile(text, "mutant", "exec")


def test_a_seed_shuffles_them() -> None:
    assert list(mutants(PROGRAM, 7)) == list(mutants(PROGRAM, 7)) != list(mutants(PROGRAM, 8))
    assert sorted(mutants(PROGRAM, 7)) == sorted(mutants(PROGRAM))


@pytest.mark.parametrize(
    "change",
    ["value >= best", "value < best", "or value < limit", "best - 1", "best + 2", "limit=9", "if not (value > best"],
)
def test_operators_constants_and_conditions_change(change: str) -> None:
    assert any(change in text for text in mutants(PROGRAM))


def test_one_thing_changes_at_a_time() -> None:
    before = ast.unparse(ast.parse(PROGRAM)).splitlines()
    for text in mutants(PROGRAM):
        assert sum(a != b for a, b in zip(before, text.splitlines(), strict=True)) == 1


@pytest.mark.parametrize(
    "program", ["x = 'a'", "def f():\n    'text'", "while x < 3:\n    x += 1", "def f(x):\n    return x"]
)
def test_texts_of_documentation_and_endless_loops_stay(program: str) -> None:
    assert all("'text'" in text or "'a '" in text for text in mutants(program))


def test_what_is_no_program_has_none() -> None:
    with pytest.raises(SyntaxError):
        list(mutants("def f(:"))
