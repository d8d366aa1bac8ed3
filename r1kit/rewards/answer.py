"""The process of an answer: runs the program, then does what its tests ask of it.

It never sees the tests: their process asks for names, calls, attributes, and compares what comes back.
"""

from __future__ import annotations

import builtins
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from r1kit.rewards.confine import PACKAGES
from r1kit.rewards.wire import BrokenFrame, pack, read_frame, unpack, write_frame

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, args, kwargs: function(*args, **kwargs),
    "isinstance": lambda kind, value: isinstance(value, kind),
    "getattr": getattr, "setattr": setattr, "getitem": operator.getitem, "setitem": operator.setitem,
    "contains": operator.contains, "iter": iter, "next": next, "len": len, "bool": bool, "str": str,
}  # fmt: skip


def serve(requests: int, replies: int) -> NoReturn:
    """Run the program in the first frame, then answer requests until there are no more."""
    module = types.ModuleType("answer")
    for hidden in [name for name in sys.modules if name.split(".")[0] in ("r1kit", "__main__")]:
        del sys.modules[hidden]
    sys.modules["answer"] = sys.modules["__main__"] = module
    sys.argv = ["answer"]
    sys.meta_path.insert(0, _Refusal())
    run, kept = exec, _Kept()
    try:
        program = read_frame(requests)
        write_frame(replies, _outcome(lambda: run(compile(program, "answer.py", "exec"), module.__dict__), kept))
        while True:
            request = read_frame(requests)
            write_frame(replies, _outcome(lambda request=request: _do(request, module, kept), kept))
    except (BrokenFrame, BrokenPipeError):
        os._exit(0)


class _Refusal:
    """Says what there is to import, before an unreadable folder does."""

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> None:
        if path is None and name not in sys.stdlib_module_names and name not in PACKAGES:
            raise ModuleNotFoundError(f"no module {name!r} here: there are the standard library, {', '.join(PACKAGES)}")


class _Kept:
    """The objects that the tests have been told of, by number."""

    def __init__(self) -> None:
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def refer(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return self._numbers[id(value)]

    def resolve(self, number: int) -> Any:
        return self._objects[number]


def _do(request: list[Any], module: types.ModuleType, kept: _Kept) -> Any:
    operation, packed = request
    arguments = unpack(packed, kept.resolve)
    if operation == "names":
        return {name: vars(module)[name] for name in arguments if name in vars(module)}
    return _OPERATIONS[operation](*arguments)


def _outcome(act: Callable[[], Any], kept: _Kept) -> dict[str, Any]:
    """What came of it: a value, or the exception's nearest built-in class with its text."""
    try:
        return {"value": pack(act(), kept.refer)}
    except BaseException as error:  # noqa: BLE001  (a model's program: what it raises is data)
        kind = type(error)
        base = next(parent for parent in kind.__mro__ if vars(builtins).get(parent.__name__) is parent)
        return {"raised": [base.__name__, kind.__name__, _text(error)]}


def _text(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:  # noqa: BLE001  (its own __str__ may do anything)
        return ""
