"""Programs, judged by their unit tests in a confined process of their own."""

import ast
import builtins
import importlib
import os
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from r1kit.rewards.plain import plain_values

MAX_CHARACTERS = 100_000

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


def program(text: str) -> str | None:
    """The program of an answer: its one code block, or the whole text where there is none; None for several."""
    if "```" not in text:
        return text.strip("\n") or None
    blocks = _FENCE.findall(text)
    return blocks[0] if len(blocks) == 1 and blocks[0].strip() else None


def load(_payload: dict[str, Any]) -> None:
    """Import what answers may hold as honest values, before anything of a model runs."""
    import collections
    import datetime
    import decimal
    import fractions
    import logging
    import typing  # noqa: F401

    logging.currentframe = lambda: None  # type: ignore[assignment]  # frames are refused to answers
    _TRUSTED.update(
        {collections.Counter, collections.OrderedDict, decimal.Decimal, fractions.Fraction, datetime.timedelta}
    )


_TRUSTED: set[type] = set()


def judge(payload: dict[str, Any], passed: Callable[[], None]) -> tuple[float, str]:
    """Run the answer, then its tests; `passed` is called once both have ended well.

    Tests see the answer's names but not its changes to the built-ins or to the modules that they use, and refuse
    values whose class brings comparisons of its own: an object that equals everything passes no test. Nothing the
    answer can reach leads to `passed`: it is called by the one frame above, and frames are hidden (see `confine`).

    Returns:
        The verdict where it is bad; where it is good the process has already said so.
    """
    run, kept, plain = exec, dict(vars(builtins)), plain_values(frozenset(_TRUSTED))
    tree = ast.parse(payload["tests"])
    under_test = payload.get("entry_point") or _first_called(tree)
    own = _own_modules(tree)
    kept["__import__"] = _importer(own, kept["__import__"])
    tests = _instrumented(tree, payload.get("entry_point", ""))
    name = "answer"
    module = types.ModuleType(name)
    for hidden in [entry for entry in sys.modules if entry.split(".")[0] in ("r1kit", "__main__")]:
        del sys.modules[hidden]
    sys.modules[name] = sys.modules["__main__"] = module
    sys.argv = [name]
    try:
        run(compile(payload["answer"], "answer.py", "exec"), module.__dict__)
        taken = kept.keys() - {under_test}
        space = {key: value for key, value in vars(module).items() if key not in taken and not key.startswith("__")}
        run(tests, {"__name__": "tests", "__builtins__": kept, "__plain__": plain, **space, **own})
    except BaseException as error:  # noqa: BLE001  (a model's program: what it raises, SystemExit too, is its verdict)
        return 0.0, _sentence(error)
    passed()
    os._exit(0)


def _sentence(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, AssertionError):
        return "a test fails"
    if isinstance(error, MemoryError):
        return "out of memory"
    try:
        return f"{name}: {error}"[:200]
    except BaseException:  # noqa: BLE001  (its own __str__ may do anything)
        return name[:200]


def _first_called(tree: ast.Module) -> str:
    """The function under test: the first that an assertion calls, one named like a built-in where there is no other."""
    asserted = [node for top in tree.body if isinstance(top, ast.Assert) for node in ast.walk(top.test)]
    called = [node.func.id for node in asserted if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return next((name for name in called if not hasattr(builtins, name)), called[0] if called else "")


def _own_modules(tree: ast.Module) -> dict[str, types.ModuleType]:
    """Copies of the standard library's modules that the tests use, made before the answer can change them."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.add(node.value.id)
    roots = {name.partition(".")[0] for name in names} & sys.stdlib_module_names
    for name in names:
        if name.partition(".")[0] in roots:
            importlib.import_module(name)
    return {name: _copy(sys.modules[name]) for name in roots}


def _copy(module: types.ModuleType) -> types.ModuleType:
    copied = types.ModuleType(module.__name__)
    vars(copied).update(vars(module))
    return copied


def _importer(own: dict[str, types.ModuleType], others: Callable[..., Any]) -> Callable[..., Any]:
    """`__import__` for the tests, which finds their own copies first."""

    def find(name: str, space: Any = None, local: Any = None, wanted: Any = (), level: int = 0) -> Any:
        root = name if wanted else name.partition(".")[0]
        return own[root] if root in own and not level else others(name, space, local, wanted, level)

    return find


def _instrumented(tree: ast.Module, entry_point: str) -> types.CodeType:
    """The tests, with every compared or asserted value passed through `__plain__`."""
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {
        node.value.func.id
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
    }
    if entry_point and "check" in defined and "check" not in called:
        tree.body += ast.parse(f"check({entry_point})").body
    return compile(ast.fix_missing_locations(_Plain().visit(tree)), "tests.py", "exec")


class _Plain(ast.NodeTransformer):
    """Wraps the results of calls that are not the tests' own functions, and whatever is compared or asserted."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        node.left = _wrapped(node.left)
        node.comparators = [_wrapped(value) for value in node.comparators]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return _wrapped(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        node.test = _wrapped(node.test)
        return node


def _wrapped(node: ast.expr) -> ast.expr:
    return ast.Call(func=ast.Name(id="__plain__", ctx=ast.Load()), args=[node], keywords=[])
