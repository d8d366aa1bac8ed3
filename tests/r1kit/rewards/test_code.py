"""Programs: the reference passes, anything that passes without solving the problem does not."""

# ruff: noqa: E501  (hostile programs stand on a line each)

import pytest

from r1kit.rewards import VerifierPool
from r1kit.rewards.code import program
from tests.r1kit.rewards.problems import coded, fenced

SQUARE = "def square(x):\n    return x * x"
TESTS = "assert square(2) == 4\nassert square(-3) == 9\nassert square(0) == 0"
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9"
SECRET = "def check(candidate):\n    assert candidate() == 'osprey 73519'"


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


EQUAL_TO_ALL = "class Yes{base}:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n"
CHEATS = {
    "exits at once": "import os\nos._exit(0)",
    "exits politely": "import sys\nsys.exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "exits in the function": "import os\ndef square(x):\n    os._exit(0)",
    "is equal to all": EQUAL_TO_ALL.format(base="") + "def square(x):\n    return Yes()",
    "is an int equal to all": EQUAL_TO_ALL.format(base="(int)") + "def square(x):\n    return Yes(1)",
    "hides it in a list": EQUAL_TO_ALL.format(base="") + "def square(x):\n    return [Yes()]",
    "has a metaclass": "class Meta(type):\n    def __eq__(cls, other):\n        return True\n    __hash__ = type.__hash__\n"
    "class Yes(metaclass=Meta):\n    pass\ndef square(x):\n    return Yes",
    "is a callable equal to all": EQUAL_TO_ALL.format(base="")
    + "    def __call__(self, *args):\n        return self\nsquare = Yes()",
    "replaces the check": "def check(candidate):\n    pass\ndef square(x):\n    return 0",
    "replaces what wraps": "__plain__ = lambda value: True\ndef square(x):\n    return 0",
    "replaces built-ins": "import builtins\nbuiltins.all = builtins.abs = builtins.len = lambda *a: True\n"
    "builtins.AssertionError = SystemExit\ndef square(x):\n    return 0",
    "forges a verdict": "import os\nfor fd in range(3, 64):\n    try:\n"
    '        os.write(fd, b\'["", 1.0, "all tests pass"]\\n\' * 3)\n    except OSError:\n        pass\nos._exit(0)',
    "closes everything": "import os\nos.closerange(0, 64)\ndef square(x):\n    return 0",
    "swallows exceptions": "import sys\nsys.excepthook = lambda *a: None\ndef square(x):\n    raise Exception",
    "has no __str__": "class Odd(Exception):\n    def __str__(self):\n        raise SystemExit\ndef square(x):\n    raise Odd",
}


@pytest.mark.parametrize("tests", [TESTS, CHECK], ids=["asserts", "check"])
@pytest.mark.parametrize("cheat", list(CHEATS))
def test_nothing_passes_without_solving_the_problem(pool: VerifierPool, cheat: str, tests: str) -> None:
    found = verdict(pool, CHEATS[cheat], tests, "square" if tests is CHECK else "")
    assert found.score == 0 and found.reason


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


FIND = """
def seen(frame):
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_code.co_consts]:
            for text in [value, *getattr(value, "co_consts", ()), *(value.values() if isinstance(value, dict) else ())]:
                if "osprey 73519" in str(text):
                    return "osprey 73519"
        frame = frame.f_back
    return "not found"
"""
PEEPHOLES = {
    "getframe": "import sys\ndef f():\n    return seen(sys._getframe())",
    "traceback": "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
    "        return seen(e.__traceback__.tb_frame)",
    "getattr": "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
    "        return seen(getattr(e.__traceback__, 'tb_' + 'frame'))",
    "inspect": "import inspect\ndef f():\n    return seen(inspect.currentframe())",
    "generator": "def g():\n    yield\ndef f():\n    made = g()\n    next(made)\n    return seen(made.gi_frame)",
    "current frames": "import sys\ndef f():\n    return seen(list(sys._current_frames().values())[0])",
    "garbage": "import gc\ndef f():\n    return next(str(o) for o in gc.get_objects() if 'osprey' in str(o))",
    "trace": "import sys\nfound = []\nsys.setprofile(lambda frame, *a: found.append(seen(frame)))\ndef f():\n    return found[-1]",
    "thread trace": "import sys, threading\nfound = []\ndef spy(frame, *a):\n    found.append(seen(frame))\n"
    "threading.settrace(spy)\nt = threading.Thread(target=len, args=('a',))\nt.start(); t.join()\ndef f():\n    return found[-1]",
    "audit hook": "import sys\nfound = []\nsys.addaudithook(lambda e, a: found.append(a))\n"
    "def f():\n    return next('osprey 73519' for a in found if 'osprey' in str([getattr(x, 'co_consts', x) for x in a])"
    " or any('osprey' in str(getattr(c, 'co_consts', '')) for x in a for c in getattr(x, 'co_consts', ())))",
    "memory": "import re\ndef f():\n    with open('/proc/self/mem', 'rb', 0) as mem:\n"
    "        for line in open('/proc/self/maps'):\n            if 'heap' in line or 'rw-p' in line:\n"
    "                a, b = (int(x, 16) for x in line.split()[0].split('-'))\n                mem.seek(a)\n"
    "                if m := re.search(rb'osprey [0-9]+', mem.read(b - a)):\n                    return m.group().decode()",
    "ctypes": "import ctypes\ndef f():\n    return seen(ctypes.pythonapi)",
    "main module": "import sys, __main__\ndef f():\n    return next(str(v) for v in vars(__main__).values() if 'osprey' in str(v))",
}  # fmt: skip


@pytest.mark.parametrize("peephole", list(PEEPHOLES))
def test_an_answer_cannot_read_its_tests(pool: VerifierPool, peephole: str) -> None:
    found = verdict(pool, FIND + PEEPHOLES[peephole], SECRET, "f")
    assert found.score == 0, found.reason


def test_the_peepholes_would_work_in_the_open() -> None:
    """The cheat above is no straw man: where frames are open to it, it finds the secret."""
    space: dict = {}
    exec(FIND + PEEPHOLES["getframe"], space)
    exec(compile(SECRET + "\ncheck(f)", "tests", "exec"), space)


@pytest.mark.parametrize(
    "style", ["```python\n{}\n```", "```py\n{}\n```", "```\n{}\n```", "Here it is:\n```Python\n{}\n```\nDone."]
)
def test_one_fenced_program_is_found(style: str) -> None:
    assert str(program(style.format(SQUARE))).strip() == SQUARE


def test_two_programs_are_none() -> None:
    assert program(f"```python\n{SQUARE}\n```\nor\n```python\n{SQUARE}\n```") is None
    assert program(f"```python\n{SQUARE}") is None
