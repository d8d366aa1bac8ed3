"""Commands about models: chat, eval, approve, promote, rollback."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

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
    family_and_profile,
    load_config,
    out,
    print_json,
)
from flows.server import settle
from tasks.progress import Progress
from tasks.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from tasks.chat import Reply
    from tasks.lineage import Environment

MODEL_HELP = "r1, dev2, distill-NAME (latest run); staging, production; NAME-candidate/3; NAME-staging@current."

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
To = Annotated[str, typer.Option("--to", help="staging or production.")]
Approvers = Annotated[
    Path | None, typer.Option("--approvers", help="File of those who may approve, as OpenSSH's allowed_signers.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(chat)
    app.command(name="eval")(evaluate)
    app.command()(approve)
    app.command()(promote)
    app.command()(rollback)


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


def approve(
    model: Model,
    to: To,
    approver: Annotated[str, typer.Option("--as", metavar="WHO", help="You, as the approvers' file names you.")],
    key: Annotated[Path, typer.Option("--key", help="Your own SSH key (Ed25519).")] = Path("~/.ssh/id_ed25519"),
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    approvers: Approvers = None,
    as_json: AsJson = False,
) -> None:
    """Sign with your own SSH key that a model may enter an environment. Nobody can approve what they submitted.

    Example:

        r1 approve r1 --to staging --as alice@example.org --key ~/.ssh/id_ed25519
    """
    from tasks.approvals import approve as sign

    workspace = find_workspace()
    family, _ = family_and_profile(workspace, config, profile)
    recorded = sign(
        workspace, model, _environment(to), approver=approver, key=key.expanduser(), approvers=approvers, name=family
    )
    if as_json:
        print_json({"sequence": recorded.sequence, "digest": recorded.digest, **recorded.entry.facts})
    else:
        out.print(f"{approver} approved {model} for {to} (ledger entry {recorded.sequence})")


def promote(
    model: Model,
    to: To,
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    set_: Overrides = None,
    approvers: Approvers = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell which gates would let it through.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a model into staging or production, if its evidence, its evaluation and the approvals allow it.

    Examples:

        r1 promote r1 --to staging

        r1 promote staging --to production

        r1 promote r1 --to staging --check
    """
    workspace, environment = find_workspace(), _environment(to)
    if check:
        gates = _check(workspace, model, environment, config, profile, set_, approvers)
        if as_json:
            print_json(gates)
        else:
            _print_gates(gates)
        raise typer.Exit(0 if all(gate["passed"] for gate in gates) else 1)
    settle(workspace)
    from flows import promote as flows

    done = flows.carry_out(
        flows.promote, model=model, to=to, config=str(config), profile=profile, overrides=list(set_ or ()),
        approvers=str(approvers) if approvers else None,
    )  # fmt: skip
    if as_json:
        print_json(done)
        return
    _print_gates(done["gates"])
    out.print(f"{to} holds {done['name']}/{done['version']} ({done['model']})")


def rollback(
    environment: Annotated[str, typer.Argument(help="staging or production.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the ledger.")] = "",
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    as_json: AsJson = False,
) -> None:
    """Give an environment back to the model that held it before.

    Example:

        r1 rollback production --reason "answers got longer"
    """
    settle(find_workspace())
    from flows import promote as flows

    done = flows.carry_out(
        flows.rollback, environment=_environment(environment), config=str(config), profile=profile, reason=reason
    )
    if as_json:
        print_json(done)
    else:
        out.print(f"{environment} holds {done['name']}/{done['version']} ({done['model']}) again")


def _environment(name: str) -> "Environment":
    from tasks.promotion import PROMOTED

    if name not in PROMOTED:
        raise ValueError(f"{name!r} is not an environment; there are {' and '.join(PROMOTED)}")
    return cast("Environment", name)


def _check(
    workspace: Workspace,
    model: str,
    to: "Environment",
    config: Path,
    profile: str | None,
    overrides: list[str] | None,
    approvers: Path | None,
) -> list[dict[str, Any]]:
    from tasks.promotion import check

    family, _ = family_and_profile(workspace, config, profile)
    settings = load_config(workspace, config, profile, overrides).promotion
    gates = check(workspace, model, to, settings=settings, name=family, approvers=approvers)
    return [dataclasses.asdict(gate) for gate in gates]


def _print_gates(gates: Sequence[dict[str, Any]]) -> None:
    for gate in gates:
        mark = "[green]open[/]  " if gate["passed"] else "[bold red]closed[/]"
        wanted = f", wanted {gate['limit']}" if gate["limit"] else ""
        err.print(f"{mark} {gate['name']}: {escape(gate['figure'] + wanted)}")
