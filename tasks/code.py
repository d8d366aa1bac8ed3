"""The version of a stage: a digest of every source file whose code it can reach."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.artifacts import digest_bytes, digest_json
from tasks.workspace import REPOSITORY

PACKAGES = ("r1kit", "tasks")
CARRIERS = (
    "approvals", "artifacts", "audit", "audit_view", "chat", "code", "doctor", "evidence", "gates", "gc", "isolated",
    "launch", "ledger", "lineage", "machine", "progress", "promotion", "question", "rank", "reach", "recovery",
    "registry", "report", "score_gates", "signing", "sshsig", "stage", "store", "summary", "tracking", "vault",
    "workspace",
)  # fmt: skip
# The values of the configuration stand in the key already.
NOT_CODE = frozenset({"r1kit.config", "r1kit.settings", *(f"tasks.{name}" for name in CARRIERS)})
"""Modules that carry a stage but do not change what it makes."""

_MODULE_NAME = re.compile(r"^(?:r1kit|tasks)(?:\.\w+)+$")


def code_digest(module: str, root: Path = REPOSITORY) -> str:
    """`sha256:…` over the source of `module` and of every module of ours that it can reach.

    Imports count wherever they stand, within functions too, and so do names of our modules in strings (a
    worker process started with `-m`). Imports for type checkers alone do not.
    """
    return digest_json({name: _file_digest(path) for name, path in sorted(reachable(module, root).items())})


def reachable(module: str, root: Path = REPOSITORY) -> dict[str, Path]:
    """Name → file of every module that `module` can reach, itself included."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _find(name, root)
        if path is None or name in found or name in NOT_CODE:
            continue
        found[name] = path
        waiting += [parent for parent in _parents(name) if parent not in found]
        waiting += _imports(name, path, root)
    return found


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _find(name: str, root: Path) -> Path | None:
    if name.partition(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(name: str, path: Path, root: Path) -> set[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    for node in _running_nodes(ast.parse(path.read_bytes(), str(path))):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                origin = _absolute(node, package)
                names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
            case ast.Constant(value=str() as text) if _MODULE_NAME.match(text):
                names.add(text)
    return {found for found in names if _find(found, root)}


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


@functools.cache
def _file_digest(path: Path) -> str:
    return digest_bytes(path.read_bytes())
