"""Commands about data: anybody's files through the gates that the flow has for its own."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.markup import escape

from flows.console import AsJson, err, out, print_json
from tasks.progress import Progress
from tasks.workspace import find_workspace

_NUM_SHOWN = 5
_EVERY_ROWS = 5000

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Check data of your own.")

Mirror = Annotated[
    str, typer.Option("--mirror", help="Directory with the raw files of the built-in data sets, for their names.")
]


def add_to(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="data")


@app.command()
def decontaminate(
    train: Annotated[
        Path, typer.Argument(metavar="TRAIN", help="Rows to train on: Parquet, JSON lines or a JSON list.")
    ],
    against: Annotated[
        list[str],
        typer.Option("--against", metavar="BENCHMARK", help="A benchmark's file, or the name of a built-in data set."),
    ],
    fields: Annotated[
        str, typer.Option("--fields", help="Fields of TRAIN that are texts, by commas; all texts where it is left out.")
    ] = "",
    clean: Annotated[
        Path | None, typer.Option("--out", help="Where the clean rows go, as JSON lines; nowhere if left out.")
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option("--quarantine", help="Where the others go, each with its proof, as JSON lines.")
    ] = None,
    procedural: Annotated[
        bool, typer.Option("--procedural", help="TRAIN follows a generator's template: compare whole texts only.")
    ] = False,
    mirror: Mirror = "",
    check: Annotated[bool, typer.Option("--check", help="Exit with status 1 where a row is contaminated.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the rows of a training file that repeat a benchmark's questions or solutions, and prove it.

    A row is contaminated where one of its texts, or all of them one after the other, is a benchmark's text; shares long
    runs of words with it; is the same but for numbers; or is nearly the same in whatever order. Runs of words that many
    benchmark rows share tell nothing. For each row: which benchmark row, which field, how, how much, and the words.

    Examples:

        r1 data decontaminate mine.jsonl --against test.jsonl --out clean.jsonl --quarantine dirty.jsonl

        r1 data decontaminate mine.parquet --against math500 --against gsm8k_test --mirror data-files --json

        r1 data decontaminate mine.jsonl --against test.parquet --fields prompt,response --check
    """
    from r1kit.data.foreign import sort_out
    from r1kit.data.overlap import OverlapIndex

    chosen = tuple(name for name in fields.split(",") if name)
    held = [text for name in against for text in _held(name, mirror)]
    if not held:
        raise ValueError(f"--against {', '.join(against)}: there is no text in it; name a file with questions")
    methods, benchmarks, found = Counter[str](), Counter[str](), []
    num_clean = num_bad = 0
    with ExitStack() as stack:
        kept, proofs = (stack.enter_context(_writable(path, train)) if path else None for path in (clean, quarantine))
        for row in _with_progress(sort_out(train, OverlapIndex(held), chosen, whole=procedural), "rows read"):
            if row.fault:
                num_bad += 1
                err.print(escape(f"{row.fault.file}, row {row.fault.row}: {row.fault.reason}"), style="yellow")
            elif row.overlap is None:
                num_clean += 1
            if row.overlap is None and not row.fault:
                _write(kept, row.values)
                continue
            proof = row.proof()
            _write(proofs, proof)
            if row.overlap is not None:
                methods[row.overlap.method] += 1
                benchmarks[row.overlap.benchmark] += 1
                found += [proof] if len(found) < _NUM_SHOWN else []
    told = {
        "file": str(train), "against": against, "benchmark_texts": len(held),
        "rows": num_clean + num_bad + methods.total(), "clean": num_clean, "contaminated": methods.total(),
        "unreadable": num_bad, "by_method": dict(methods), "benchmark_rows_found": len(benchmarks), "first": found,
        "out": str(clean or ""), "quarantine": str(quarantine or ""),
    }  # fmt: skip
    print_json(told) if as_json else _print_contamination(told)
    if num_bad or (check and methods):
        raise typer.Exit(1)


def _held(name: str, mirror: str) -> Iterable[Any]:
    """The texts of a benchmark, a file's or a built-in source's."""
    from r1kit.data import foreign
    from r1kit.data.table import SOURCES

    path = Path(name)
    if path.exists() or path.suffix:
        return foreign.held(path)
    if name not in SOURCES:
        from r1kit.settings import suggest

        raise ValueError(f"--against {name}: neither a file nor a built-in data set; {suggest(name, SOURCES)}")
    cache = find_workspace().cache_dir
    cache.mkdir(parents=True, exist_ok=True)
    return foreign.built_in(SOURCES[name], mirror, cache)


def _with_progress(rows: Iterable[Any], words: str) -> Iterator[Any]:
    """The rows, told of as they come."""
    with Progress() as progress:
        for number, row in enumerate(rows, 1):
            if number % _EVERY_ROWS == 0:
                progress.say("data", f"{number:,} {words}")
            yield row


def _writable(path: Path, read: Path) -> IO[str]:
    if path.resolve() == read.resolve():
        raise ValueError(f"{path} is the file that is read; name another one to write to")
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}; name another place") from None


def _write(stream: IO[str] | None, value: Any) -> None:
    if stream is not None:
        stream.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def _print_contamination(told: dict[str, Any]) -> None:
    for proof in told["first"]:
        text = f"{proof['id']} ({proof['field']}) repeats {proof['benchmark']} ({proof['benchmark_field']}): "
        out.print(escape(text + f"{proof['method']}, {proof['share']:.0%}, {proof['text'][:100]!r}"))
    rest = told["contaminated"] - len(told["first"])
    if rest > 0:
        out.print(f"… and {rest} more" + ("" if told["quarantine"] else "; --quarantine FILE has them all"))
    unreadable = f", {told['unreadable']} unreadable" if told["unreadable"] else ""
    out.print(f"{told['rows']} rows: {told['clean']} clean, {told['contaminated']} contaminated{unreadable}")
