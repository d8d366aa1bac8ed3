"""Commands about models: chat, eval."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.panel import Panel

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

if TYPE_CHECKING:
    from tasks.chat import Reply

MODEL_HELP = "r1, dev2, distill-NAME (latest run); staging, production; NAME-candidate/3; NAME-staging@current."

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Approvers = Annotated[
    Path | None, typer.Option("--approvers", help="File of those who may approve, as OpenSSH's allowed_signers.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(chat)
    app.command(name="eval")(evaluate)


def chat(
    model: Model = "r1",
    prompt: Annotated[str | None, typer.Argument(help="The question; asked for where it is left out.")] = None,
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, help="0 takes the likeliest.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another one draws another answer.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a model; its thinking is shown apart from its answer. Every question stands alone.

    Examples:

        r1 chat r1 'How many times does the letter "r" appear in the text: "strawberry"?'

        r1 chat production
    """
    from tasks.chat import Speaker

    workspace = find_workspace()
    settings = load_config(workspace, config, profile, None)
    wanted = {"max_tokens": max_tokens, "temperature": temperature}
    sampling = settings.evaluate.sampling.model_copy(update={k: v for k, v in wanted.items() if v is not None})
    speaker = Speaker(model, settings, workspace)
    questions = [prompt] if prompt is not None else _typed()
    for question in questions:
        reply = speaker.ask(question, sampling, seed=seed)
        if as_json:
            print_json(dataclasses.asdict(reply))
        else:
            _print_reply(reply)


def _typed() -> Iterator[str]:
    """Questions from the terminal or a pipe, a line each, until it ends."""
    asking = sys.stdin.isatty()
    if asking:
        err.print("a question a line; Ctrl-D ends", style="dim")
    while True:
        try:
            line = input("> " if asking else "")
        except EOFError:
            return
        if line.strip():
            yield line


def _print_reply(reply: "Reply") -> None:
    if reply.thinking is not None:
        out.print(Panel(escape(reply.thinking) or "–", title="thinking", title_align="left", style="dim"))
    cut = "" if reply.finished else " [dim](cut at the limit)[/]"
    out.print(f"[bold]{escape(reply.answer) or '–'}[/]{cut}")


def evaluate(
    model: Model = "r1",
    config: ConfigFile = PIPELINE,
    profile: Profile = None,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on the benchmarks of the latest run, without noting it anywhere.

    Examples:

        r1 eval r1 --set evaluate.samples_per_problem=8

        r1 eval production --set evaluate.max_problems=100 --json
    """
    from flows.evaluation import evaluate_model

    workspace = find_workspace()
    settings = load_config(workspace, config, profile, set_)
    with Progress() as progress:
        document = evaluate_model(model, settings, workspace, progress)
    if as_json:
        print_json(document)
        return
    from rich.table import Table

    from tasks.summary import benchmarks_of

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("benchmark", "pass@1", "95 %", "n × k", "tokens", "format"):
        table.add_column(title)
    for name, scores in benchmarks_of(document).items():
        share = "–" if scores.pass_at_1 is None else f"{scores.pass_at_1:.1%}"
        interval = "–" if scores.low is None or scores.high is None else f"{scores.low:.1%} – {scores.high:.1%}"
        size = f"{scores.n} × {scores.k}"
        table.add_row(name, share, interval, size, f"{scores.mean_response_tokens:.1f}", f"{scores.format_rate:.0%}")
    out.print(table)
