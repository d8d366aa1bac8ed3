"""Commands about data: anybody's files through the gates that the flow has for its own."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.markup import escape

from flows.console import (
    PIPELINE,
    AsJson,
    ConfigFile,
    Overrides,
    Profile,
    err,
    load_config,
    out,
    print_json,
)
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
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows: Parquet, JSON lines or a JSON list.")],
    kind: Annotated[
        str,
        typer.Option("--kind", help="problems, benchmarks, chains, instructions, preferences or pretrain."),
    ],
    licences: Annotated[
        str, typer.Option("--licences", help="Those that are allowed, by commas; any where it is left out.")
    ] = "",
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="A model's folder to count tokens with; else one in four bytes.")
    ] = None,
    config: ConfigFile = PIPELINE,
    profile: Profile = None,
    set_: Overrides = None,
    quarantine: Annotated[
        Path | None, typer.Option("--quarantine", help="Where rows at fault go, each with rule and value.")
    ] = None,
    page: Annotated[Path | None, typer.Option("--page", help="Where a page on the file goes, as HTML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a data file of your own through the gates that the recipe's data pass.

    Rows are read as what **--kind** says: problems and benchmarks have `prompt` and `answer` (or `tests`), chains and
    instructions `prompt` and `response`, preferences `prompt`, `chosen` and `rejected`; `question`, `problem`,
    `instruction`, `completion` and `output` are understood too. Checked are fields and types, ids, blanks, lengths and
    tokens, languages, licences, the form of chains, the balance of pairs, near-duplicates, and with the verifiers that
    gold answers score 1 (a sample: `--set validate.verify_rows=1000`). The limits are those under `validate` in
    pipeline.yaml. The exit status is 1 where a rule does not hold.

    Examples:

        r1 data validate mine.jsonl --kind problems

        r1 data validate chains.parquet --kind chains --quarantine bad.jsonl --page chains.html

        r1 data validate pairs.json --kind preferences --set validate.min_length_balance=0.2 --json
    """
    from tasks.checkup import Question, check
    from tasks.machine import verifier_pool
    from tasks.report.data_page import write_data_page

    settings = load_config(find_workspace(), config, profile, set_)
    allowed = tuple(name for name in licences.split(",") if name)
    question = Question(file, kind, settings.validate_, allowed, _counter(tokenizer))
    with ExitStack() as stack:
        fallen = stack.enter_context(_writable(quarantine, file)) if quarantine else None
        progress = stack.enter_context(Progress())
        pool = stack.enter_context(verifier_pool(settings.runtime))
        told = check(question, pool, lambda row: _write(fallen, row), lambda words: progress.say("data", words))
    told |= {"quarantine": str(quarantine or ""), "page": str(page or "")}
    if page:
        write_data_page(told, page)
    print_json(told) if as_json else _print_verdict(told)
    if not told["success"]:
        raise typer.Exit(1)


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


def _counter(tokenizer: Path | None) -> Callable[[str], int]:
    """How tokens are counted."""
    from tasks.seen import estimated_tokens

    if tokenizer is None:
        return estimated_tokens
    from r1kit.models import load_tokenizer

    if not (tokenizer / "tokenizer.json").is_file():
        raise ValueError(f"--tokenizer {tokenizer}: there is no tokenizer.json in it; name a model's folder")
    known = load_tokenizer(tokenizer)
    return lambda text: len(known(text, add_special_tokens=False)["input_ids"])


def _print_verdict(told: dict[str, Any]) -> None:
    for rule in told["checks"]:
        mark = "[green]holds[/]" if rule["success"] else "[bold red]fails[/]"
        if rule["failed"] or not rule["success"]:
            first = rule["examples"][0] if rule["examples"] else {"id": "", "value": "", "row": None}
            place = f", first {first['id']}: {str(first['value'])[:100]!r}"
            limit = f" (limit: {rule['limit']})" if rule["limit"] else ""
            out.print(f"{mark} {escape(rule['rule'] + limit)}: {rule['failed']} of {rule['checked']}{escape(place)}")
    for sentence in told["first_unreadable"]:
        err.print(escape(sentence), style="yellow")
    holding = sum(rule["success"] for rule in told["checks"])
    unreadable = f", {told['unreadable']} of them unreadable" if told["unreadable"] else ""
    out.print(f"{told['rows']} rows of {told['kind']}{unreadable}: {holding} of {len(told['checks'])} rules hold")
    if told["fallen"] and not told["quarantine"]:
        out.print("--quarantine FILE has every row at fault")


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
