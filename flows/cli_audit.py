"""The command `r1 audit`: six questions on models and their history, answered offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli_models import MODEL_HELP, Approvers
from flows.console import PIPELINE, AsJson, ConfigFile, Profile, err, family_and_profile, out, print_json
from tasks.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from tasks.audit import Question


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(audit)


def audit(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)] = "r1",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="QUESTION", help="trained, validated, approved, rebuildable or altered."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Instead: was any byte altered, in the whole history and every store?")
    ] = False,
    touched_by: Annotated[
        str,
        typer.Option(
            "--touched-by",
            metavar="WHAT",
            help="Instead: the models that a data set, row, model, code or judge reached.",
        ),
    ] = "",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Run its recipe again from the pins, compare bits.")
    ] = False,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="STAGE", help="With --rebuild: only this stage. Repeatable.")
    ] = None,
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    approvers: Approvers = None,
    as_json: AsJson = False,
) -> None:
    """Tell where a model came from, back to base: data, verdicts, code, settings, approvals; and if all is still so.

    Works offline. The exit code is 1 where anything is wrong.

    Examples:

        r1 audit production

        r1 audit r1 --only trained --json

        r1 audit --all

        r1 audit --touched-by sha256:3fa1c2

        r1 audit r1 --rebuild --stage base
    """
    workspace = find_workspace()
    if stage and not rebuild:
        raise ValueError("--stage belongs to --rebuild; give both, or leave it out")
    if everything + bool(touched_by) + rebuild + bool(only) > 1:
        raise ValueError("--all, --touched-by, --rebuild and --only ask different things; give one of them at a time")
    family, _ = family_and_profile(workspace, config, profile)
    if everything:
        _show_history(workspace, approvers, as_json)
    elif touched_by:
        _show_touched(workspace, touched_by, family, as_json)
    elif rebuild:
        _show_rebuild(workspace, model, family, stage or [], as_json)
    else:
        _show_model(workspace, model, family, approvers, _questions(only or []), as_json)


def _questions(only: list[str]) -> "tuple[Question, ...]":
    from r1kit.settings import suggest
    from tasks.audit import QUESTIONS

    for question in only:
        if question not in QUESTIONS:
            raise ValueError(f"--only {question}: there is no such question; {suggest(question, QUESTIONS)}")
    return cast("tuple[Question, ...]", tuple(only)) or QUESTIONS


def _show_model(
    workspace: Workspace, model: str, family: str, approvers: Path | None, asked: "tuple[Question, ...]", as_json: bool
) -> None:
    from tasks.audit import audit as look_into
    from tasks.audit_view import render

    report = look_into(workspace, model, name=family, approvers=approvers, asked=asked)
    print_json(report.model_dump(mode="json")) if as_json else out.print(render(report))
    _leave(report.sound)


def _show_history(workspace: Workspace, approvers: Path | None, as_json: bool) -> None:
    from tasks.audit import audit_everything
    from tasks.audit_view import render_history

    report = audit_everything(workspace, approvers=approvers)
    print_json(report.model_dump(mode="json")) if as_json else out.print(render_history(report))
    _leave(report.sound)


def _show_touched(workspace: Workspace, what: str, family: str, as_json: bool) -> None:
    from tasks.audit import touched_by
    from tasks.audit_view import render_touched

    report = touched_by(workspace, what, name=family)
    print_json(report.model_dump(mode="json")) if as_json else out.print(render_touched(report))


def _show_rebuild(workspace: Workspace, model: str, family: str, stages: list[str], as_json: bool) -> None:
    from tasks.audit import rebuild
    from tasks.audit_view import render_rebuild

    report = rebuild(workspace, model, name=family, stages=stages, say=lambda line: err.print(line, markup=False))
    print_json(report.model_dump(mode="json")) if as_json else out.print(render_rebuild(report))
    _leave(report.sound)


def _leave(sound: bool) -> None:
    if not sound:
        raise typer.Exit(1)
