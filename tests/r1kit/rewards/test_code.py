"""Programs: the reference passes, anything that passes without solving the problem does not."""

# ruff: noqa: E501  (hostile programs stand on a line each)

import json

import pytest

from r1kit.rewards import VerifierPool
from r1kit.rewards.code import program
from r1kit.rewards.wire import pack, unpack
from tests.r1kit.rewards.problems import coded, fenced, problem

SQUARE = "def square(x):\n    return x * x"
TESTS = "assert square(2) == 4\nassert square(-3) == 9\nassert square(0) == 0"
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9"


def verdict(pool: VerifierPool, answer: str, tests: str = TESTS, entry_point: str = ""):
    return pool.verify([coded(tests, entry_point)], [fenced(answer)])[0]


def test_the_reference_passes_in_both_styles_of_tests(pool: VerifierPool) -> None:
    assert verdict(pool, SQUARE).score == 1
    assert verdict(pool, SQUARE, CHECK, "square").score == 1


@pytest.mark.parametrize(
    "honest",
    [
        "import collections, dataclasses, enum, functools, typing, re, math, logging, warnings\n"
        "Pair = collections.namedtuple('Pair', 'a b')\n"
        "class Kind(enum.Enum):\n    A = 1\n"
        "class Named(typing.NamedTuple):\n    a: int\n"
        "@dataclasses.dataclass\nclass Box:\n    value: int\n"
        "@functools.cache\ndef square(x):\n    warnings.warn('slow')\n    return Box(Pair(x, x).a * x).value",
        "import sys\nsys.setrecursionlimit(5000)\ndef square(x):\n    print('working', file=sys.stderr)\n    return x ** 2",
        "def square(x):\n    return x * x\n\nif __name__ == '__main__':\n    raise SystemExit",
        "def square(x):\n    try:\n        raise KeyError(x)\n    except KeyError as error:\n        return error.args[0] ** 2",
        "def square(x):\n    with open('notes.txt', 'w') as file:\n        file.write(str(x * x))\n"
        "    return int(open('notes.txt').read())",
    ],
    ids=["stdlib", "prints", "main", "exceptions", "files"],
)
def test_honest_programs_pass(pool: VerifierPool, honest: str) -> None:
    found = verdict(pool, honest)
    assert found.score == 1, found.reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("def square(x):\n    return x + x", "a test fails"),
        ("def cube(x):\n    return x ** 3", "NameError"),
        ("def square(x)\n    return x", "SyntaxError"),
        ("def square(x):\n    return 1 / 0", "ZeroDivisionError"),
        ("square = 4", "TypeError"),
        ("", "no single program"),
        ("def square(x):\n    return x * x\0", "null bytes"),
    ],
)
def test_wrong_programs_fail_and_say_why(pool: VerifierPool, answer: str, reason: str) -> None:
    found = verdict(pool, answer)
    assert found.score == 0 and reason in found.reason


@pytest.mark.parametrize(
    ("answer", "tests"),
    [
        ("f = lambda *a: [0]\nset = lambda *a: 0", "assert set(f(1)) == set((1, 2))"),
        ("f = lambda *a: [0]\nsorted = lambda *a: 0", "assert sorted([3, 4]) == sorted(f(1))"),
        ("import math\nmath.isclose = lambda *a, **k: True\nf = lambda x: 0.0",
        "import math\nassert math.isclose(f(1), 2.5)"),
        ("import math\nmath.isclose = lambda *a, **k: True\nf = lambda x: 0.0", "assert math.isclose(f(1), 2.5)"),
        ("class math:\n    isclose = lambda *a, **k: True\nf = lambda x: 0.0", "assert math.isclose(f(1), 2.5)"),
        (
            "import math\ndef f(x):\n    math.isclose = lambda *a, **k: True\n    return 0.0",
            "from math import isclose\nassert isclose(f(1), 2.5)",
        ),
        (
            "import sys, types\nsys.modules['math'] = types.SimpleNamespace(isclose=lambda *a, **k: True)\nf = lambda x: 0.0",
            "def check(candidate):\n    import math\n    assert math.isclose(candidate(1), 2.5)\ncheck(f)",
        ),
    ],
)  # fmt: skip
def test_what_the_tests_use_is_not_the_answers_to_exchange(pool: VerifierPool, answer: str, tests: str) -> None:
    found = verdict(pool, answer, tests)
    assert (found.score, found.reason) == (0, "a test fails")


@pytest.mark.parametrize(
    ("right", "tests"),
    [
        ("f = lambda x: [2, 1]", "assert set(f(1)) == set((1, 2))"),
        ("import math\nf = lambda x: math.sqrt(6.25)", "import math\nassert math.isclose(f(1), 2.5)"),
        ("import math\nf = lambda x: 2.5", "from math import isclose\nassert isclose(f(1), 2.5)"),
        ("import sys\nf = lambda x: sys.maxsize", "assert f(1) == sys.maxsize"),
        ("def sum(a, b):\n    return a + b", "assert sum(10, 15) == 25"),
        ("import os\nf = lambda x: os.path.join('a', 'b')", "import os.path\nassert f(1) == os.path.join('a', 'b')"),
        ("f = lambda x: {'a': 1}", "from collections import Counter\nassert f(1) == Counter('a')"),
    ],
)
def test_the_same_tests_pass_for_the_right_answer(pool: VerifierPool, right: str, tests: str) -> None:
    found = verdict(pool, right, tests)
    assert found.score == 1, found.reason


NODE = """
class Node:
    def __init__(self, value, *children):
        self.value, self.children = value, list(children)
    def __getitem__(self, place):
        return self.children[place]
    def __len__(self):
        return len(self.children)
    def __contains__(self, value):
        return value == self.value or any(value in child for child in self.children)
def depth(node):
    return 1 + max((depth(child) for child in node.children), default=0)
def same(node):
    return node
"""


@pytest.mark.parametrize(
    "tests",
    [
        "root = Node(1, Node(2), Node(3, Node(4)))\nassert depth(root) == 3 and root[1].value == 3 and len(root) == 2",
        "root = Node(1)\nroot.children = [Node(2)]\nassert depth(root) == 2 and root.value == 1",
        "root = Node(1)\nassert same(root) is root and same(root) == root and same(root) != Node(1)",
        "assert isinstance(same(Node(1)), Node) and not isinstance(1, Node) and 4 in Node(3, Node(4)) and not Node(1)",
        "for value in (None, 1.5, 2 ** 99999, 'a', b'b', [1, [2]], (1,), {1: {2}}, frozenset({3}), 1j, int, range(9)):\n"
        "    assert same(value) == value and type(same(value)) is type(value)",
        "import collections, datetime, decimal, fractions\n"
        "for value in (collections.Counter('aab'), collections.deque([1]), decimal.Decimal('0.1'),\n"
        "              fractions.Fraction(1, 3), datetime.date(2024, 1, 2), datetime.timedelta(3)):\n"
        "    assert same(value) == value and type(same(value)) is type(value)",
        "import math\nassert math.isnan(same(float('nan'))) and same(float('-inf')) == -math.inf",
    ],
)
def test_objects_stay_with_the_answer_and_values_come_over(pool: VerifierPool, tests: str) -> None:
    found = verdict(pool, NODE, tests, "depth")
    assert found.score == 1, found.reason


@pytest.mark.parametrize(
    ("answer", "tests"),
    [
        ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2] and sum(f(4)) == 6"),
        ("import itertools\nf = itertools.count", "numbers = f(5)\nassert [next(numbers), next(numbers)] == [5, 6]"),
        ("def f(x):\n    raise KeyError(x)", "try:\n    f(1)\n    assert False\nexcept KeyError:\n    pass"),
        ("class Mine(ValueError):\n    pass\ndef f():\n    raise Mine('no')",
         "try:\n    f()\n    assert False\nexcept ValueError as error:\n    assert 'no' in str(error)"),
        ("from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\nf = P", "assert f(3) == (3,)"),
        ("import enum\nclass Kind(enum.IntEnum):\n    A = 3\ndef f():\n    return Kind.A", "assert f() == 3"),
        ("import numpy as np\ndef f(x):\n    return np.array(x).sum()", "assert f([1, 2]) == 3"),
        ("import numpy as np\ndef f(x):\n    return np.array(x) * 2", "assert f([1, 2]) == [2, 4]"),
        ("f = lambda *, key=1: key", "assert f() == 1 and f(key='a') == 'a'"),
        ("f = lambda x: x", "def own(x):\n    return f(x) + 1\nassert own(1) == 2"),
        ("f = lambda x: x", "def test_f():\n    assert f(1) == 1\ntest_f()"),
    ],
)  # fmt: skip
def test_iterators_exceptions_and_subclasses_come_over(pool: VerifierPool, answer: str, tests: str) -> None:
    found = verdict(pool, answer, tests)
    assert found.score == 1, found.reason


def test_what_the_tests_hand_over_is_a_copy(pool: VerifierPool) -> None:
    answer = "def f(x):\n    x.clear()\n    return 0"
    assert verdict(pool, answer, "x = [1]\nassert f(x) == 0 and x == [1]").score == 1


def test_a_function_named_like_a_built_in_must_be_there(pool: VerifierPool) -> None:
    tests = "assert sum([1, 2]) == 3"
    assert verdict(pool, "def sum(x):\n    return x[0] + x[1]", tests).score == 1
    assert verdict(pool, "x = 1", tests).reason == "NameError: name 'sum' is not defined"


@pytest.mark.parametrize(
    "tests", ["assert f(1) ==", "import nothing_like_it\nassert f(1) == 1", "assert f(lambda: 1) == 1"]
)
def test_tests_that_cannot_run_pass_nobody(pool: VerifierPool, tests: str) -> None:
    found = verdict(pool, "f = lambda x: 1", tests)
    assert found.score == 0 and found.reason


GIVEN = "assert square(2) == 4\nassert square(-3) == 9"


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ("", "all tests pass"),
        (GIVEN, "all tests pass"),
        ("assert square(2)  ==  4  # the same", "all tests pass"),
        ("assert square(2) == 5", "the tests have been changed"),
        ("assert True", "the tests have been changed"),
        (GIVEN.replace("9", "-9"), "the tests have been changed"),
    ],
)
def test_mending_a_program_leaves_its_tests_alone(pool: VerifierPool, beside: str, reason: str) -> None:
    task = problem("debug", tests=GIVEN, meta=json.dumps({"faulty": "def square(x):\n    return x + x"}))
    found = pool.verify([task], [fenced(f"{SQUARE}\n{beside}")])[0]
    assert (found.score, found.reason) == (float(reason == "all tests pass"), reason)


def test_a_program_that_is_not_mended_fails(pool: VerifierPool) -> None:
    task = problem("debug", tests=GIVEN, meta=json.dumps({"faulty": "def square(x):\n    return x + x"}))
    assert pool.verify([task], [fenced("def square(x):\n    return x + x")])[0].reason == "a test fails"


@pytest.mark.parametrize(
    "style", ["```python\n{}\n```", "```py\n{}\n```", "```\n{}\n```", "Here it is:\n```Python\n{}\n```\nDone."]
)
def test_one_fenced_program_is_found(style: str) -> None:
    assert str(program(style.format(SQUARE))).strip() == SQUARE


def test_two_programs_are_none() -> None:
    assert program(f"```python\n{SQUARE}\n```\nor\n```python\n{SQUARE}\n```") is None
    assert program(f"```python\n{SQUARE}") is None


@pytest.mark.parametrize(
    "literal", ["{12, 13, 14, 15, 16}", "{6, 7, 8, 9, 10, 11}", "{3, 1, 2}", "set(range(5, 60, 5))"]
)
def test_a_set_is_gone_through_as_in_one_process(literal: str) -> None:
    value = eval(literal)
    for given in (value, frozenset(value)):
        got = unpack(pack(given, _refuse), _refuse)
        assert type(got) is type(given) and list(got) == list(given)


def _refuse(value: object) -> int:
    raise TypeError(value)
