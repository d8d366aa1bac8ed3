"""Starting a run of the recipe: checks, the workspace's lock, the server, the flow, and what is told at the end."""

import json
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flows.server import Server
from r1kit.settings import read_settings
from tasks.isolated import StageCrashed
from tasks.progress import Progress
from tasks.summary import Summary, read_summary
from tasks.workspace import REPOSITORY, Workspace, explain, find_workspace, hold, keep_caches_within

PIPELINE = REPOSITORY / "pipeline.yaml"


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    config: Path = PIPELINE
    profile: str | None = None
    overrides: Sequence[str] = field(default_factory=tuple)
    mirror: Path | None = None
    """Directory with the raw data files."""
    first: str = ""
    """`--from`."""
    last: str = ""
    """`--until`."""
    quiet: bool = False

    def all_overrides(self) -> list[str]:
        """With the mirror's."""
        mirror = [f"data.mirror={json.dumps(str(self.mirror.resolve()))}"] if self.mirror else []
        return [*self.overrides, *mirror]


class RunFailed(Exception):
    """A run that did not finish; the message is one line for a person."""

    def __init__(self, message: str, summary: Summary | None, run_dir: Path | None) -> None:
        super().__init__(message)
        self.summary, self.run_dir = summary, run_dir


def start(request: Request) -> tuple[Summary, Path]:
    """Run the recipe; the summary and the run's directory come back.

    Raises:
        ValueError: The request, the configuration or the workspace cannot be used; nothing was begun.
        RunFailed: A stage failed. Everything finished is kept.
        KeyboardInterrupt: On Ctrl-C or SIGTERM, once what ran is stopped.
    """
    if request.mirror is not None and not request.mirror.is_dir():
        raise ValueError(f"--mirror {request.mirror}: there is no such directory")
    workspace = find_workspace()
    keep_caches_within(workspace)
    settings = read_settings(request.config, request.profile, request.all_overrides())
    with _interrupts() as interrupted, hold(workspace), Server(workspace) as server:
        from r1kit.config import load  # torch and transformers come with it, while the server starts

        config = load(request.config, request.profile, request.all_overrides())
        server.wait()
        return _run(request, config, settings.profile, workspace, interrupted)


def _run(
    request: Request, config: object, profile: str, workspace: Workspace, interrupted: threading.Event
) -> tuple[Summary, Path]:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.recipe import RUN, recipe
    from flows.run import RecipeRun, Span

    with Progress(quiet=request.quiet) as progress:
        run = RecipeRun(config, profile, workspace, progress, Span(request.first, request.last))  # type: ignore[arg-type]
        RUN.set(run)
        try:
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # the heartbeat costs a second
                recipe(run.folder.run_id, profile)
        except KeyboardInterrupt:
            _close(run, "interrupted", "interrupted")
            raise
        except Exception as error:
            if interrupted.is_set():  # libraries may answer an interrupt with an error of their own
                _close(run, "interrupted", "interrupted")
                raise KeyboardInterrupt from error
            message = tell(error, workspace)
            if not isinstance(error, ValueError):
                (run.folder.path / "error.txt").write_text(traceback.format_exc())
                message += f" (details: {run.folder.path / 'error.txt'})"
            _close(run, "failed", message)
            raise RunFailed(message, run.folder.summary, run.folder.path) from error
        _close(run, "finished", "")
    return run.folder.summary, run.folder.path


def _close(run: object, status: str, error: str) -> None:
    from flows.run import RecipeRun

    assert isinstance(run, RecipeRun)
    run.folder.close(status, error)  # type: ignore[arg-type]
    run.folder.write_report()


def tell(error: BaseException, workspace: Workspace) -> str:
    """One line for a person."""
    if isinstance(error, OSError):
        return explain(error, workspace) or f"{type(error).__name__}: {error}"
    if isinstance(error, StageCrashed):
        return str(error).strip().splitlines()[-1]
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def latest(workspace: Workspace) -> tuple[Summary, Path]:
    """The newest run. Raises ValueError where there is none."""
    run_dir = workspace.runs_dir / "latest"
    return read_summary(run_dir), run_dir.resolve()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C and a polite kill end a run the same way; the event tells afterwards that one came."""
    came = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        came.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came  # a worker of Prefect's has its own way to end runs
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
