"""The command `r1`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer._click.exceptions import ClickException

from flows import (
    cli_audit,
    cli_data,
    cli_export,
    cli_models,
    cli_promotion,
    cli_score,
    cli_service,
    cli_trace,
)
from flows.console import (
    PIPELINE,
    AsJson,
    ConfigFile,
    Overrides,
    Profile,
    err,
    models_table,
    out,
    print_json,
    stages_table,
)
from tasks.progress import duration
from tasks.summary import Summary
from tasks.workspace import explain, find_workspace

app = typer.Typer(
    name="r1",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Retrain reasoning models by the DeepSeek-R1 recipe, and keep the proof of where each came from.\n\n"
    "Begin with **r1 run**, then **r1 report** and **r1 chat r1**. Everything is kept in .r1/ "
    "(or in R1_HOME); removing that is a full reset.",
)
cli_models.add_to(app)
cli_promotion.add_to(app)
cli_audit.add_to(app)
cli_export.add_to(app)
cli_score.add_to(app)
cli_data.add_to(app)
cli_trace.add_to(app)
cli_service.add_to(app)

INTERRUPTED = 130


@app.command()
def run(
    config: ConfigFile = PIPELINE,
    profile: Profile = None,
    set_: Overrides = None,
    mirror: Annotated[
        Path | None, typer.Option("--mirror", help="Directory with the raw data files, instead of their addresses.")
    ] = None,
    first: Annotated[
        str, typer.Option("--from", metavar="STAGE", help="Take the stages before it from an earlier run.")
    ] = "",
    last: Annotated[str, typer.Option("--until", metavar="STAGE", help="Leave out the stages after it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Run the recipe, from data to a registered candidate.

    Stages whose inputs, settings and code have not changed are not run again; a run that was stopped or killed goes
    on where it was.

    Examples:

        r1 run

        r1 run --profile small --mirror data-files --set zero.steps=20

        r1 run --until cold_start
    """
    _check_stage("--from", first)
    _check_stage("--until", last)
    _check_span(first, last)
    from flows.start import Request, RunFailed, start

    request = Request(config, profile, tuple(set_ or ()), mirror, first, last)
    try:
        summary, run_dir = start(request)
    except RunFailed as error:
        if as_json and error.summary:
            print_json(error.summary.model_dump(mode="json"))
        elif error.summary:
            err.print(stages_table(error.summary))
        raise ValueError(f"{_failed_stage(error.summary)}{error}") from error
    except KeyboardInterrupt:  # typer would end without a word
        err.print("\nstopped; the same command goes on from here: finished stages and checkpoints are kept")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    out.print()
    out.print(stages_table(summary))
    out.print(f"\nrun {summary.run_id} took {duration(summary.seconds)}")
    if summary.registered:
        out.print(f"registered {summary.registered.name}/{summary.registered.version}")
    out.print(f"report {run_dir / 'report.html'}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the latest run: its stages, and how its models fared.

    Example:

        r1 status --json
    """
    from flows.start import latest
    from tasks.workspace import is_held

    workspace = find_workspace()
    summary, run_dir = latest(workspace)
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    killed = summary.status == "running" and not is_held(workspace)
    word = "killed; `r1 run` goes on with it" if killed else summary.status
    out.print(f"run {summary.run_id} · profile {summary.profile} · [bold]{word}[/] · {duration(summary.seconds)}\n")
    out.print(stages_table(summary))
    if any(model.benchmarks for model in summary.models):
        out.print()
        out.print(models_table(summary))
    if summary.error:
        err.print(f"\n{summary.error}")
    out.print(f"\n{run_dir}")


@app.command()
def report(
    run_id: Annotated[str, typer.Argument(help="A run's id; the latest one where it is left out.")] = "latest",
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's HTML report anew and print its path.

    Example:

        r1 report --open
    """
    from tasks.report import write_report
    from tasks.summary import read_summary

    run_dir = find_workspace().runs_dir / run_id
    summary = read_summary(run_dir)
    path = write_report(run_dir.resolve(), summary)
    if as_json:
        print_json({"run_id": summary.run_id, "report": str(path)})
    else:
        out.print(str(path))
    if open_:
        typer.launch(path.as_uri())


def main() -> None:
    """Run the command; errors are one line on standard error."""
    sys.exit(_main())


def _main() -> int:
    try:
        return int(app(standalone_mode=False) or 0)
    except ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ValueError as error:
        if os.environ.get("R1_DEBUG"):
            raise
        err.print(f"[bold red]error:[/] {_escaped(str(error))}")
        return 1
    except OSError as error:
        sentence = explain(error, find_workspace())
        if sentence is None or os.environ.get("R1_DEBUG"):
            raise
        err.print(f"[bold red]error:[/] {_escaped(sentence)}")
        return 1


def _check_stage(option: str, stage: str) -> None:
    from r1kit.settings import suggest
    from tasks.stage import STAGES

    if stage and stage not in STAGES:
        raise ValueError(f"{option} {stage}: there is no such stage; {suggest(stage, STAGES)}")


def _failed_stage(summary: Summary | None) -> str:
    """`reject: `, where a stage failed, rather than the run."""
    from flows.folder import STOPPED

    stages = summary.stages if summary else ()
    return next((f"{s.name}: " for s in stages if s.status == "failed" and s.error != STOPPED), "")


def _check_span(first: str, last: str) -> None:
    from tasks.stage import STAGES

    if first and last and STAGES.index(first) > STAGES.index(last):
        raise ValueError(f"--from {first} comes after --until {last}, so nothing would run; exchange them")


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
