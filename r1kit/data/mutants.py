"""Programs with one fault put into them (mutation analysis, DeMillo, Lipton and Sayward 1978)."""

import ast
import copy
import itertools
import random
from collections.abc import Callable, Iterator

_SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "upper": "lower", "lower": "upper"}


def mutants(program: str, seed: int | None = None) -> Iterator[str]:
    """Every program that differs from this one in one operator, constant, condition or name.

    What stands in a `while` loop is left alone: most changes there only make it endless.

    Args:
        seed: shuffles them; else they come in the order of the program.

    Raises:
        SyntaxError: where it is no program.
    """
    tree = ast.parse(program)
    seen = {ast.unparse(tree)}
    changes = list(_changes(tree))
    if seed is not None:
        random.Random(seed).shuffle(changes)
    for place, change in changes:
        changed = copy.deepcopy(tree)
        change(next(itertools.islice(ast.walk(changed), place, None)))
        text = ast.unparse(ast.fix_missing_locations(changed))
        if text not in seen:
            seen.add(text)
            yield text


def _changes(tree: ast.Module) -> Iterator[tuple[int, Callable[[ast.AST], None]]]:
    """The place of a node among all of them, and what is done to it."""
    untouched = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.While) for inner in ast.walk(node)}
    untouched |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # texts of documentation
    for place, node in enumerate(ast.walk(tree)):
        if id(node) not in untouched:
            for change in _changes_of(node):
                yield place, change


def _changes_of(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        yield from (_set(op=swap()) for swap in _SWAPS.get(type(node.op), ()))
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from (_set(ops=[swap()]) for swap in _SWAPS.get(type(node.ops[0]), ()))
    elif isinstance(node, ast.Constant):
        yield from (_set(value=value) for value in _other_values(node.value))
    elif isinstance(node, ast.If | ast.IfExp):
        yield _set(test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        yield _set(id=_NAMES[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in _NAMES:
        yield _set(attr=_NAMES[node.attr])


def _other_values(value: object) -> tuple[object, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1)
    if isinstance(value, str):
        return (value + " ",) if value.strip() else (value + "x",)
    return ()


def _set(**fields: object) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        for name, value in fields.items():
            setattr(node, name, value)

    return change
