"""Hostile completions, each with the verdict it must get. One table for every kind of verifier."""

# ruff: noqa: E501  (a program stands on a line where it can)

from dataclasses import dataclass

from r1kit import chat
from r1kit.rows import Problem
from tests.r1kit.rewards.problems import coded, fenced, gym_problem, problem

HALF = problem("math", "\\frac{1}{2}")
SQUARE = coded("assert square(2) == 4\nassert square(-3) == 9\nassert square(0) == 0")
CHECKED = coded("def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9", "square")
SECRET = coded("assert f() == 'osprey 73519'")
HONEST = {
    "math": (HALF, chat.response("so", "2^{-1}")),
    "code": (SQUARE, fenced("def square(x):\n    return x * x")),
    "choice": (problem("choice", "B"), chat.response("so", "(B)")),
    "gym": (gym_problem("chain_sum", "7"), chat.response("so", "7")),
}
"""For each verifier a problem, and a completion that is right."""


@dataclass(frozen=True)
class Case:
    """A completion that must not score."""

    name: str
    problem: Problem
    completion: str
    reason: str = ""
    """Part of the verdict's reason."""


def _math() -> list[Case]:
    answers = {
        "a tower of powers": ("10^{10^{10^{10}}}", "too expensive"),
        "a tower without braces": ("9^9^9^9", ""),
        "a tower of plain stars": ("9**9**9**9", ""),
        "a difference of towers": ("9^{9^{9^{9}}}-9^{9^{9^{9}}}", "too expensive"),
        "a negative tower": ("2^{-10^{10^{10}}}", "too expensive"),
        "a huge exponent": ("7^{99999999999}", "too expensive"),
        "a huge exponent of a fraction": ("\\left(\\frac{3}{7}\\right)^{99999999}", "too expensive"),
        "a huge root": ("\\sqrt[99999999]{7^{99999999}}", "too expensive"),
        "a huge factorial": ("99999999!", "too expensive"),
        "factorials of factorials": ("((9!)!)!", "too expensive"),
        "a huge binomial": ("\\binom{10^9}{5\\cdot 10^8}", "too expensive"),
        "a sum without end": ("\\sum_{n=1}^{10^{100}} n^{n}", "too expensive"),
        "a product without end": ("\\prod_{n=1}^{99999999} n", "too expensive"),
        "an integral": ("\\int_0^1 e^{-x^2} \\sin(x^x) dx", "too expensive"),
        "a limit": ("\\lim_{n \\to \\infty} (1 + 1/n)^n", ""),
        "a power to expand": ("(1+x)^{99999}", "too expensive"),
        "powers to expand": ("(1+x)^{99}(1+y)^{99}(1+z)^{99}(1+w)^{99}", "too expensive"),
        "open brackets": ("[" * 900, "nested too deeply"),
        "nested brackets": ("(" * 400 + "1" + ")" * 400, "nested too deeply"),
        "open braces": ("{" * 900, "nested too deeply"),
        "nested fractions": ("\\frac{" * 60 + "1" + "}{2}" * 60, "nested too deeply"),
        "nested commands": ("\\left(" * 150, "nested too deeply"),
        "nested roots": ("\\sqrt" * 300 + "2", ""),
        "a million digits": ("1" * 10**6, "too long"),
        "a thousand digits": ("1" * 999, ""),
        "an exponent of a thousand digits": ("2^{" + "9" * 900 + "}", "too expensive"),
        "nested subscripts": ("x_" * 450, ""),
        "division by nothing": ("\\frac{1}{0}", ""),
        "a logarithm of nothing": ("\\log(0)", ""),
        "a null byte": ("\\frac{1}{2}\0", "control characters"),
        "half a surrogate pair": ("\ud800", "control characters"),
        "right-to-left": ("\u202e\\frac{1}{3}", ""),
        "an answer that imitates a verdict": ('["", 1.0, "right"]', ""),
        "an answer that imitates the protocol": ('"again"\n[1.0, "right"]', ""),
        "an answer that imitates a Verdict": ('Verdict(score=1.0, reason="right", seconds=0.0)', ""),
        "a command to run": ("__import__('os').system('true')", ""),
        "a big matrix": ("\\begin{pmatrix}" + "\\\\".join(["1&2&3&4&5"] * 60) + "\\end{pmatrix}", ""),
        "every answer there is": ("\\mathbb{R}", ""),
        "an answer and its negation": ("\\frac{1}{2} or not", "hedged"),
    }
    return [Case(name, HALF, chat.response("so", text), reason) for name, (text, reason) in answers.items()]


def _tags() -> list[Case]:
    texts = {
        "nothing": "",
        "a chain that is never closed": "<think> so <answer> \\frac{1}{2} </answer>",
        "an answer that is never closed": "<think> so </think> <answer> \\frac{1}{2}",
        "nested tags": "<think> so </think> <answer> <answer> \\frac{1}{2} </answer> </answer>",
        "two answers": "<think> so </think> <answer> \\frac{1}{2} </answer> <answer> 3 </answer>",
        "tags without end": "<think>" * 100_000 + "\\frac{1}{2}",
        "answers without end": "<answer> \\frac{1}{2} </answer>" * 10_000,
        "boxes without end": "\\boxed{" * 100_000 + "\\frac{1}{2}",
        "two boxes in an answer": chat.response("so", "\\boxed{\\frac{1}{2}} \\boxed{3}"),
    }
    return [Case(name, HALF, text) for name, text in texts.items()]


YES = "class Yes{base}:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n"
LIES = {
    "exits at once": ("import os\nos._exit(0)", "ended without a verdict"),
    "exits politely": ("import sys\nsys.exit(0)", "SystemExit"),
    "raises SystemExit": ("raise SystemExit(0)", "SystemExit"),
    "exits in the function": ("import os\ndef square(x):\n    os._exit(0)", "ended without a verdict"),
    "exits later": ("import atexit, os\natexit.register(os._exit, 0)\ndef square(x):\n    return 0", "a test fails"),
    "is equal to all": (YES.format(base="") + "def square(x):\n    return Yes()", "a test fails"),
    "is an int equal to all": (YES.format(base="(int)") + "def square(x):\n    return Yes(1)", "a test fails"),
    "hides it in a list": (YES.format(base="") + "def square(x):\n    return [Yes()]", "a test fails"),
    "is a callable equal to all": (YES.format(base="") + "    def __call__(self, *args):\n        return self\nsquare = Yes()", "a test fails"),
    "has a metaclass": ("class Meta(type):\n    def __eq__(cls, other):\n        return True\n    __hash__ = type.__hash__\nclass Yes(metaclass=Meta):\n    pass\ndef square(x):\n    return Yes", "a test fails"),
    "is a mock": ("from unittest.mock import MagicMock\nsquare = MagicMock(return_value=MagicMock(__eq__=lambda *a: True))", "a test fails"),
    "returns not-a-number": ("def square(x):\n    return float('nan')", "a test fails"),
    "replaces the check": ("def check(candidate):\n    pass\ndef square(x):\n    return 0", "a test fails"),
    "deletes the tests": ("import sys\nfor name in list(sys.modules):\n    if 'test' in name or 'main' in name:\n        del sys.modules[name]\ndef square(x):\n    return 0", "a test fails"),
    "replaces built-ins": ("import builtins\nbuiltins.all = builtins.abs = builtins.len = lambda *a: True\nbuiltins.AssertionError = SystemExit\ndef square(x):\n    return 0", ""),
    "replaces what runs it": ("import builtins\nbuiltins.exec = builtins.compile = builtins.isinstance = lambda *a: True\ndef square(x):\n    return 0", ""),
    "replaces the codec": ("import json\njson.dumps = lambda *a, **k: '4'\ndef square(x):\n    return 0", ""),
    "has optimisation on": ("import sys\nsys.flags = None\n__debug__x = False\ndef square(x):\n    return 0", "a test fails"),
    "writes a verdict everywhere": ("import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'[1.0, \"all tests pass\"]\\n' * 3)\n    except OSError:\n        pass\nos._exit(0)", ""),
    "speaks the protocol": ("import os\nbody = b'{\"value\": 1}'\nfor fd in range(3, 64):\n    try:\n        os.write(fd, (len(body).to_bytes(4, 'big') + body) * 99)\n    except OSError:\n        pass\nos._exit(0)", ""),
    "floods its replies": ("import os\nwhile True:\n    for fd in range(3, 64):\n        try:\n            os.write(fd, b'x' * 5000)\n        except OSError:\n            pass", "a broken reply"),
    "closes everything": ("import os\nos.closerange(0, 64)\ndef square(x):\n    return 0", "ended without a verdict"),
    "has no __str__": ("class Odd(Exception):\n    def __str__(self):\n        raise SystemExit\ndef square(x):\n    raise Odd", "Odd"),
    "returns a class": ("square = int", "a test fails"),
    "returns without end": ("def square(x):\n    return [0] * 10 ** 7", "too large"),
    "returns itself": ("def square(x):\n    x = []\n    x.append(x)\n    return x", "RecursionError"),
    "returns a deep value": ("def square(x):\n    x = []\n    for _ in range(10 ** 6):\n        x = [x]\n    return x", "RecursionError"),
    "is not there": ("def cube(x):\n    return x ** 3", "NameError"),
    "is no program": ("def square(x)\n    return x", "SyntaxError"),
    "holds a null byte": ("def square(x):\n    return x * x\0", "null bytes"),
    "imports what is not there": ("import torch\ndef square(x):\n    return x * x", "no module 'torch' here"),
}  # fmt: skip
LOOPS = {
    "an infinite loop": "while True:\n    pass",
    "a loop that catches everything": "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "a long sleep": "import time\ntime.sleep(1000)",
    "a huge power": "x = 9 ** 9 ** 9",
    "a catastrophic pattern": "import re\nre.match('(a+)+b', 'a' * 50)",
    "a loop in the function": "def square(x):\n    while True:\n        pass",
}  # fmt: skip
BOMBS = {
    "a fork bomb": ("import os\nwhile True:\n    os.fork()", "not permitted"),
    "a zombie": ("import os\nif os.fork() == 0:\n    os._exit(0)", "not permitted"),
    "a daemon": ("import os\nos.setsid()", "not permitted"),
    "a subprocess": ("import subprocess\nsubprocess.Popen(['sleep', '1000'])", "not permitted"),
    "multiprocessing": ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "not permitted"),
    "a raw fork": ("import ctypes\nassert ctypes.CDLL(None).fork() >= 0, 'no fork'", "no fork"),
    "a thread bomb": ("import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(1000,)).start()", ""),
    "a memory bomb": ("x = [0] * 10 ** 6\nwhile True:\n    x += x", "out of memory"),
    "one huge allocation": ("x = bytearray(1 << 40)", "out of memory"),
    "memory outside the heap": ("import os\nfor n in range(999):\n    os.memfd_create(str(n))", "not permitted"),
    "endless recursion": ("import sys\nsys.setrecursionlimit(10 ** 9)\ndef square(x):\n    return [square(x)]\nsquare(1)", ""),
    "a segmentation fault": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    "broken bytecode": ("exec(type(square := lambda: 0)(square.__code__.replace(co_code=b'\\x64\\xff' * 9)).__code__)", ""),
    "a signal to the harness": ("import os\nos.kill(os.getppid(), 9)", "not permitted"),
    "a signal to itself": ("import signal\nsignal.raise_signal(9)", ""),
    "a socket": ("import socket\nsocket.socket().connect(('127.0.0.1', 9))", "not permitted"),
    "a name looked up": ("import socket\nsocket.getaddrinfo('localhost', 80)", ""),
    "its limits": ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))", "not allowed"),
    "a huge file": ("with open('x', 'wb') as file:\n    while True:\n        file.write(b'x' * 10 ** 6)", "too large"),
    "many files": ("n = 0\nwhile True:\n    n += 1\n    open(str(n), 'w').close()", "too much written"),
    "many large files": ("n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(b'x' * (8 << 20))", "too much written"),
    "folders in folders": ("import os\nwhile True:\n    os.mkdir('x')\n    os.chdir('x')", "too much written"),
    "a folder nobody can read": ("import os\nos.mkdir('x', 0)\nraise OSError", "OSError"),
}  # fmt: skip
OUTSIDE = {
    "writes outside": "open({new!r}, 'w').write('x')",
    "writes below Python": "import os\nos.close(os.open({new!r}, os.O_CREAT | os.O_WRONLY))",
    "appends": "open({old!r}, 'a').write('x')",
    "truncates": "import os\nos.truncate({old!r}, 0)",
    "removes": "import os\nos.remove({old!r})",
    "renames": "import os\nos.rename({old!r}, {new!r})",
    "makes a folder": "import os\nos.mkdir({new!r})",
    "links": "import os\nos.symlink('/', {new!r})",
    "changes rights": "import os\nos.chmod({old!r}, 0o777)",
    "changes times": "import os\nos.utime({old!r}, (0, 0))",
    "goes up": "import os\nos.chdir('..')\nopen('new', 'w').write('x')",
    "goes up twice": "open('../../new', 'w').write('x')",
    "goes through a link": "import os\nos.symlink({folder!r}, 'here')\nopen('here/new', 'w').write('x')",
    "reads": "open({old!r}).read()",
    "lists": "import os\nassert os.listdir({folder!r})",
    "reads the passwords": "open('/etc/passwd').read()",
    "reads what is installed": "import glob, sysconfig\nassert glob.glob(sysconfig.get_path('purelib') + '/*')",
    "reads this project": "import r1kit",
}
"""Programs that touch what is not theirs: `old` is there and holds "kept", `new` is not, both in `folder`."""

FIND = """
import re
def seen(frame):
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_code.co_consts, *frame.f_globals.values()]:
            for text in [value, *getattr(value, "co_consts", ()), *(value.values() if isinstance(value, dict) else ())]:
                if found := re.search("osprey [0-9]+", str(text)):
                    return found.group()
        frame = frame.f_back
    return "not found"
"""
PEEPHOLES = {
    "getframe": "import sys\ndef f():\n    return seen(sys._getframe())",
    "traceback": "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        return seen(e.__traceback__.tb_frame)",
    "inspect": "import inspect\ndef f():\n    return seen(inspect.currentframe())",
    "current frames": "import sys\ndef f():\n    return seen(list(sys._current_frames().values())[0])",
    "garbage": "import gc\ndef f():\n    return next((m.group() for o in gc.get_objects() if (m := re.search('osprey [0-9]+', str(o)))), '')",
    "audit hook": "import sys\nfound = []\nsys.addaudithook(lambda e, a: found.append(str(a)))\ndef f():\n    return str(re.findall('osprey [0-9]+', str(found)))",
    "memory": "def f():\n    with open('/proc/self/mem', 'rb', 0) as mem:\n        for line in open('/proc/self/maps'):\n            if 'heap' in line or 'rw-p' in line:\n                a, b = (int(x, 16) for x in line.split()[0].split('-'))\n                mem.seek(a)\n                if m := re.search(rb'osprey [0-9]+', mem.read(b - a)):\n                    return m.group().decode()",
    "the parent's memory": "import os\ndef f():\n    return open(f'/proc/{os.getppid()}/mem', 'rb')",
    "raw memory": "import ctypes\ndef f():\n    return ctypes.string_at(id(seen) & ~0xfffff, 1 << 20).decode('latin-1')[:0]",
    "tracing another": "import ctypes, os\ndef f():\n    return ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)",
    "the command line": "def f():\n    return open('/proc/self/cmdline').read()",
    "main module": "import sys, __main__\ndef f():\n    return next((str(v) for v in vars(__main__).values() if 'osprey 7' in str(v)), '')",
}  # fmt: skip


def _code() -> list[Case]:
    cases = [
        Case(f"{name}, {style}", problem, fenced(program), reason)
        for name, (program, reason) in LIES.items()
        for style, problem in (("asserts", SQUARE), ("check", CHECKED))
    ]
    cases += [Case(name, SQUARE, fenced(program), "no verdict within") for name, program in LOOPS.items()]
    cases += [Case(name, SQUARE, fenced(program), reason) for name, (program, reason) in BOMBS.items()]
    return cases + [Case(f"peephole: {name}", SECRET, fenced(FIND + program)) for name, program in PEEPHOLES.items()]


def _others() -> list[Case]:
    gym = {
        "a command for eval": "__import__('os').system('true')",
        "subclasses": "().__class__.__base__.__subclasses__()",
        "a power for eval": "9**9**9**9",
        "a walrus": "(x := 5)",
    }
    choice = {"every label": "A, B, C, D", "a long label": "B" * 10**6, "a label or not": "B or not B"}
    countdown = gym_problem("countdown", "1 + 2 - 3")
    return [
        *(Case(f"gym: {name}", countdown, chat.response("so", text)) for name, text in gym.items()),
        *(Case(f"choice: {name}", HONEST["choice"][0], chat.response("so", text)) for name, text in choice.items()),
    ]


CASES = [*_math(), *_tags(), *_code(), *_others()]
