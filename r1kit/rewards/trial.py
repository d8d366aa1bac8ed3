"""The process of the tests: runs them against an answer that lives in another process.

The names that the tests use but do not define are the answer's, and stand for it here: a call goes over, and a plain
value comes back, rebuilt here from text. So comparisons, built-ins, modules and the tests themselves are out of the
answer's reach, and their outcome is known to this process alone.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import symtable
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from r1kit.rewards.wire import BrokenFrame, pack, read_frame, unpack, write_frame


class Answer:
    """This side of the pipes to an answer.

    Args:
        requests: descriptor to write to.
        replies: descriptor to read from.
        give_up: ends this process where the other one has ended or talks nonsense, with the reason (empty where only
            its remains can tell). No test may go on after that, whatever exceptions it catches.
    """

    def __init__(self, requests: int, replies: int, give_up: Callable[[str], NoReturn]) -> None:
        self._requests = requests
        self._replies = replies
        self._give_up = give_up
        self._known: dict[int, Remote] = {}

    def run(self, program: str) -> None:
        """Run the program; raises what it raises."""
        self._say(program)
        self._hear()

    def names(self, names: list[str]) -> dict[str, Any]:
        """Those of the names that the program has defined, with what they stand for."""
        return self.ask("names", *names)

    def ask(self, operation: str, *arguments: Any) -> Any:
        """The result of an operation in the answer's process; raises what it raises there."""
        self._say([operation, pack(list(arguments), _number)])
        return self._hear()

    def _say(self, content: Any) -> None:
        try:
            write_frame(self._requests, content)
        except BrokenPipeError:
            self._give_up("")

    def _hear(self) -> Any:
        try:
            reply = read_frame(self._replies)
            if isinstance(reply, dict) and "raised" in reply:
                kind, name, text = map(str, reply["raised"])
            elif isinstance(reply, dict) and "value" in reply:
                return unpack(reply["value"], self._remote)
            else:
                raise BrokenFrame("a broken reply")
        except (BrokenFrame, ValueError, TypeError) as error:
            self._give_up(str(error) if isinstance(error, BrokenFrame) else "a broken reply")
        raise _exception(kind, name, text)

    def _remote(self, number: int) -> Remote:
        if type(number) is not int:
            raise TypeError("a number names a remote object")
        return self._known.setdefault(number, Remote(self, number))


class Remote:
    """An object of the answer's that is no plain value. The same object is the same here; it equals nothing else."""

    def __init__(self, answer: Answer, number: int) -> None:
        vars(self).update(_answer=answer, _number=number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it over there."""
        return self._answer.ask("call", self, list(args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._answer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._answer.ask("setattr", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._answer.ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._answer.ask("setitem", self, key, value)

    def __contains__(self, item: Any) -> bool:
        return bool(self._answer.ask("contains", self, item))

    def __iter__(self) -> Any:
        return self._answer.ask("iter", self)

    def __next__(self) -> Any:
        return self._answer.ask("next", self)

    def __len__(self) -> int:
        return int(self._answer.ask("len", self))

    def __bool__(self) -> bool:
        return bool(self._answer.ask("bool", self))

    def __str__(self) -> str:
        return str(self._answer.ask("str", self))

    def __instancecheck__(self, value: Any) -> bool:
        return bool(self._answer.ask("isinstance", self, value))


def _number(value: Any) -> int:
    if type(value) is not Remote:
        raise TypeError(f"the tests hand over a {type(value).__name__}, which is no plain value")
    return vars(value)["_number"]


def _exception(kind: str, name: str, text: str) -> BaseException:
    """The exception that the answer raised, as far as it is one of Python's own."""
    found = vars(builtins).get(kind)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        return RuntimeError(text)
    try:
        return found(text if kind == name else f"{name}: {text}")
    except TypeError:  # UnicodeDecodeError and the like want more than a text
        return ValueError(f"{name}: {text}")


def judge(payload: dict[str, Any], answer: Answer) -> tuple[float, str]:
    """Run the answer, then its tests: 1 if both end well."""
    try:
        tree = ast.parse(payload["tests"])
        entry_point = payload["entry_point"]
        free = _free(payload["tests"])
        under_test = entry_point or _first_called(tree, free)
        code = compile(_completed(tree, entry_point), "tests.py", "exec")
        space = _own_modules(tree)
        if payload["tests_shown"] and not _same_tests(payload["answer"], tree):
            return 0.0, "the tests have been changed"
        asked = (free - space.keys() - vars(builtins).keys()) | ({under_test} if under_test else set())
        answer.run(payload["answer"])
        space |= answer.names(sorted(asked))
        if under_test and under_test not in space:
            raise NameError(f"name {under_test!r} is not defined")
        run = exec
        run(code, {"__name__": "tests", **space})
    except BaseException as error:  # noqa: BLE001  (what tests and answer raise, SystemExit too, is their verdict)
        return 0.0, sentence(error)
    return 1.0, "all tests pass"


def _same_tests(program: str, tests: ast.Module) -> bool:
    """Whether all assertions that an answer repeats beside its functions are among the tests as they were given."""
    given = {ast.dump(node) for node in tests.body}
    return all(ast.dump(node) in given for node in ast.parse(program).body if isinstance(node, ast.Assert))


def sentence(error: BaseException) -> str:
    """An exception in a few words."""
    if isinstance(error, AssertionError):
        return f"a test fails: {error}"[:200] if str(error) else "a test fails"
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {error}"[:200]


def _first_called(tree: ast.Module, free: set[str]) -> str:
    """The function under test: the first that an assertion calls and the tests do not define.

    One that is named like a built-in counts where nothing else is free; empty if there is none.
    """
    asserted = [node for top in tree.body if isinstance(top, ast.Assert) for node in ast.walk(top.test)]
    called = [node.func.id for node in asserted if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    others = free - vars(builtins).keys()
    return next((name for name in called if name in (others or free)), "")


def _completed(tree: ast.Module, entry_point: str) -> ast.Module:
    """The tests, with the call of `check` that some leave to their reader."""
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {
        node.value.func.id
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
    }
    if entry_point and "check" in defined and "check" not in called:
        tree.body += ast.parse(f"check({entry_point})").body
    return tree


def _own_modules(tree: ast.Module) -> dict[str, Any]:
    """The standard library's modules that the tests use without importing them, by name."""
    bases = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return {name: importlib.import_module(name) for name in bases & sys.stdlib_module_names}


def _free(source: str) -> set[str]:
    """Global names that the tests use and do not define."""
    used: set[str] = set()
    defined: set[str] = set()
    for table in _tables(symtable.symtable(source, "tests.py", "exec")):
        for symbol in table.get_symbols():
            if table.get_type() == "module" or symbol.is_global():
                if symbol.is_referenced():
                    used.add(symbol.get_name())
                if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
                    defined.add(symbol.get_name())
    return used - defined


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
