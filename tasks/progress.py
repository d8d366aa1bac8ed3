"""What a person sees while stages run: a live line each on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 5.0
"""Between plain lines of one stage."""

SHOWN = (
    ("pass_at_1", "pass@1"), ("reward_accuracy", "right"), ("reward", "reward"), ("agreement", "agreement"),
    ("kept_share", "kept"), ("loss", "loss"), ("response_tokens", "tokens"),
)  # fmt: skip
"""Metrics worth a place in the line, most telling first, and what people call them."""
NUM_SHOWN = 2
STATUS_STYLES = {
    "ran": "green",
    "cached": "cyan",
    "skipped": "dim",
    "failed": "bold red",
    "running": "yellow",
}


@dataclass
class _Line:
    """A stage that runs."""

    started: float = field(default_factory=time.monotonic)
    step: int = 0
    total: int = 0
    first: tuple[int, float] | None = None
    """Step and time at the start of this count, for the rate."""
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    printed: float = 0.0

    def left_seconds(self) -> float | None:
        """Estimate from the rate so far."""
        if self.first is None or self.step <= self.first[0]:
            return None
        rate = (time.monotonic() - self.first[1]) / (self.step - self.first[0])
        return rate * (self.total - self.step)


class Progress:
    """Watches the stages of a run and shows them. A context manager; calls may come from several threads."""

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True, quiet=quiet)
        self._lines: dict[str, _Line] = {}
        self._lock = threading.RLock()
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def begin(self, name: str) -> None:
        """A stage starts."""
        with self._lock:
            self._lines[name] = _Line()
            if not self._live:
                self._print(name, "starts")

    def step(self, name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """A stage made a step."""
        with self._lock:
            line = self._lines.setdefault(name, _Line())
            if line.first is None or total != line.total or step <= line.step:
                line.first = (step, time.monotonic())
            line.step, line.total = step, total
            line.metrics = metrics or line.metrics
            if not self._live and time.monotonic() - line.printed >= SECONDS_BETWEEN_LINES:
                line.printed = time.monotonic()
                self._print(name, " · ".join(_facts(line)))

    def say(self, name: str, message: str) -> None:
        """A stage says something."""
        with self._lock:
            if name in self._lines:
                self._lines[name].message = message
            if not self._live or name not in self._lines:
                self._print(name, message)

    def end(self, name: str, status: str, seconds: float, note: str = "") -> None:
        """A stage ended."""
        with self._lock:
            self._lines.pop(name, None)
            took = duration(seconds) if status == "ran" else ""
            mark = Text(f"{status:8}", style=STATUS_STYLES.get(status, ""))
            self.console.print(Text.assemble(_name(name), mark, f"{took:>8}  ", (note, "dim")))

    def _print(self, name: str, text: str) -> None:
        self.console.print(Text.assemble(_name(name), text))

    def _render(self) -> Group:
        with self._lock:
            table = Table.grid(padding=(0, 1))
            for name, line in self._lines.items():
                bar: Any = Spinner("dots")
                if line.total:
                    bar = ProgressBar(total=line.total, completed=line.step, width=24)
                facts = " · ".join(_facts(line)) if line.total else line.message
                since = duration(time.monotonic() - line.started)
                table.add_row(_name(name), bar, Text(facts), Text(since, style="dim"))
            return Group(table)


def duration(seconds: float) -> str:
    """`4.2 s`, `3:07`, `2:10:00`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _name(name: str) -> Text:
    return Text(f"{name:<20} ", style="bold")


def _facts(line: _Line) -> list[str]:
    facts = [f"{line.step}/{line.total}"]
    metrics = {name.rpartition("/")[2]: value for name, value in line.metrics.items()}
    shown = [(title, metrics[name]) for name, title in SHOWN if name in metrics][:NUM_SHOWN]
    facts += [f"{title} {value:.3g}" for title, value in shown]
    left = line.left_seconds()
    if left is not None and line.step < line.total:
        facts.append(f"{duration(left)} left")
    return facts
