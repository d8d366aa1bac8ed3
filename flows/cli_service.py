"""Commands about the machine and the schedule: deploy, doctor."""

from typing import Annotated

import typer
from rich.table import Table

from flows.console import (
    PIPELINE,
    AsJson,
    ConfigFile,
    Overrides,
    Profile,
    family_and_profile,
    load_config,
    out,
    print_json,
)
from flows.server import settle
from tasks.workspace import find_workspace

STYLES = {"good": "green", "note": "yellow", "bad": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deploy)
    app.command()(doctor)


def deploy(
    config: ConfigFile = PIPELINE,
    profile: Profile = None,
    set_: Overrides = None,
    cron: Annotated[
        str, typer.Option("--cron", help="Five fields; the profile's schedule.cron where it is left out.")
    ] = "",
    pool: Annotated[str, typer.Option("--pool", help="Name of the process work pool.")] = "r1kit",
    worker: Annotated[bool, typer.Option("--worker", help="Then be a worker, until stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the retraining on a cron schedule, on the Prefect server at PREFECT_API_URL.

    A worker carries the runs out; each is `r1 run` with the profile and settings given here.

    Example:

        prefect server start &

        export PREFECT_API_URL=http://127.0.0.1:4200/api

        r1 deploy --profile tiny --cron "0 3 * * 1" --worker
    """
    from flows import deploy as deployments

    deployments.server_url()
    workspace = find_workspace()
    settle(workspace)
    settings = load_config(workspace, config, profile, set_)
    chosen = family_and_profile(workspace, config, profile)[1]
    parameters = {
        "profile": chosen,
        "overrides": list(set_ or ()),
        "config": str(config.resolve()),
        "home": str(workspace.root),
    }
    done = deployments.deploy(
        parameters, pool=pool, cron=cron or settings.schedule.cron, timezone=settings.schedule.timezone
    )
    if as_json:
        print_json({**done.__dict__, "worker_command": done.worker_command, "parameters": parameters})
    else:
        out.print(f"{done.deployment} runs profile {chosen} at cron [bold]{done.cron}[/] ({done.timezone})")
        out.print(f"start a worker: {done.worker_command}" if not worker else "working; Ctrl-C stops")
        out.print(f"run it now: prefect deployment run {done.deployment}")
    if worker:
        raise typer.Exit(deployments.work(pool))


def doctor(as_json: AsJson = False) -> None:
    """Look whether this machine is fit: versions, packages, disk, workspace, ledger.

    Example:

        r1 doctor
    """
    from tasks.doctor import examine

    findings = examine(find_workspace())
    if as_json:
        print_json([finding.__dict__ for finding in findings])
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for finding in findings:
            table.add_row(f"[{STYLES[finding.state]}]{finding.state}[/]", finding.what, finding.detail)
        out.print(table)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
