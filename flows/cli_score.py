"""The command `score`: anybody's completions against the verifiers."""

import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from flows.console import AsJson, err

if TYPE_CHECKING:
    from r1kit.scoring import Scored


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(score)


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, perhaps gzipped; - reads standard input.")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes a kind; as many as cores where it is left out.")
    ] = None,
    deadline: Annotated[float, typer.Option("--deadline", min=0.1, help="Seconds for one verdict.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Score completions of your own with the verifiers that training uses; one verdict a line, in the file's order.

    Each line of FILE is a JSON object:

    - **kind**: math, choice, code, debug or gym

    - **prompt**: what was asked (optional: it decides nothing)

    - **answer**: the right answer (math, choice, gym), as text or as a number

    - **tests**: Python source, or a list of lines of it (code, debug); with `check(candidate)` also **entry_point**

    - **completion**: all that the model wrote, `<think>` included

    - **dataset**, **entry**: of reasoning-gym (gym)

    - optional: **id**; **language** of the chain, en or zh; **opens_think**: true where the chat template itself wrote
    `<think>`

    The final answer is taken from `<answer>`, else from the last `\\boxed{}`, else it is what follows the chain, if
    short. A verdict has its score (1 is right), the reason, the seconds it took, and the form of the text: format,
    language, repetition.

    A line that cannot be scored gets one sentence on standard error, and the others are scored all the same; the exit
    status is then 1.

    Examples:

        echo '{"kind": "math", "answer": "1/2", "completion": "<think> … </think> <answer> 0.5 </answer>"}' > mine.jsonl

        r1 score mine.jsonl

        r1 score mine.jsonl --json --workers 8 > verdicts.jsonl

        echo '{"kind": "code", "tests": "assert f(2) == 4", "completion": "def f(x): return x * x"}' | r1 score -
    """
    from r1kit.rewards import VerifierPool
    from r1kit.scoring import BadLine, limited
    from r1kit.scoring import score as verdicts_on

    right, all_of, num_bad = Counter[str](), Counter[str](), 0
    name = "standard input" if str(file) == "-" else str(file)
    with _opened(file) as lines, VerifierPool(workers or len(os.sched_getaffinity(0)), deadline) as pool:
        for item in verdicts_on(limited(lines), name, pool):
            if isinstance(item, BadLine):
                num_bad += 1
                sys.stderr.write(f"{item.sentence}\n")
            else:
                all_of[item.kind] += 1
                right[item.kind] += item.verdict.score >= 1
            if as_json:
                sys.stdout.write(_encodable(json.dumps(item.to_json(), ensure_ascii=False)) + "\n")
            elif not isinstance(item, BadLine):
                sys.stdout.write(_line(item))
    for kind, total in all_of.items():
        err.print(f"{kind}: {right[kind]} of {total} right ({right[kind] / total:.1%})")
    if num_bad:
        err.print(f"{num_bad} {'line' if num_bad == 1 else 'lines'} could not be scored")
        raise typer.Exit(1)


def _line(item: "Scored") -> str:
    verdict = item.verdict
    cells = (str(item.row), item.id or "-", item.kind, f"{verdict.score:g}", verdict.reason, f"{verdict.seconds:.3f} s")
    return "\t".join(_printable(cell) for cell in cells) + "\n"


def _printable(text: str) -> str:
    """On one line, and without what a terminal would obey: a model wrote some of it."""
    return _encodable("".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split())))


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs."""
    return text.encode(errors="replace").decode()


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Raises ValueError where there is no such file."""
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; name one with JSON lines, or - for standard input")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            yield cast("BinaryIO", lines)
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{file}: it is not whole gzip data ({error}); compress it again") from None
