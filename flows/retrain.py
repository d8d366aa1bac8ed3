"""The scheduled flow: pull the data, run the recipe, register a candidate, tell someone."""

import os
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.start import PIPELINE, Request, RunFailed, start
from tasks.notify import notify
from tasks.summary import Summary


@flow(name="retrain", persist_result=False)
def retrain(
    profile: str | None = None,
    overrides: list[str] | None = None,
    config: str = str(PIPELINE),
    mirror: str | None = None,
    home: str | None = None,
) -> State[None]:
    """Run the recipe as `r1 run` does, in the workspace `home`, and say what came of it.

    What has not changed since the last run is not made again, so that a schedule costs only what is new.
    """
    if home:
        os.environ["R1_HOME"] = home
    request = Request(Path(config), profile, overrides or (), Path(mirror) if mirror else None, quiet=False)
    try:
        summary, run_dir = start(request)
    except (RunFailed, ValueError) as error:
        problem = notify("r1kit: retraining failed", str(error))
        return Failed(message=str(error) + (f" ({problem})" if problem else ""))
    title = _title(summary)
    create_markdown_artifact(key="retrain", markdown=_table(summary, run_dir), description=title)
    problem = notify(f"r1kit: {title}", str(run_dir / "report.html"))
    return Completed(message=title + (f" ({problem})" if problem else ""))


def _title(summary: Summary) -> str:
    if summary.registered is None:
        return f"run {summary.run_id} finished, nothing registered"
    name = f"{summary.registered.name}/{summary.registered.version}"
    return f"registered {name}" if summary.registered.new else f"nothing new: {name} stands"


def _table(summary: Summary, run_dir: Path) -> str:
    lines = [f"# {_title(summary)}", "", "| stage | status | seconds |", "|---|---|---|"]
    lines += [f"| {stage.name} | {stage.status} | {stage.seconds:.0f} |" for stage in summary.stages]
    return "\n".join([*lines, "", f"Report: {run_dir / 'report.html'}"])
