"""What the commands share: where to print, how tables look, which profile is meant."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from tasks.progress import STATUS_STYLES, duration
from tasks.summary import Summary
from tasks.workspace import REPOSITORY, SETTINGS_FILE, Workspace

if TYPE_CHECKING:
    from r1kit.config import Config

PIPELINE = REPOSITORY / "pipeline.yaml"

ConfigFile = Annotated[Path, typer.Option("--config", help="The file of settings.", show_default="pipeline.yaml")]
Profile = Annotated[str | None, typer.Option("--profile", "-p", help="Which profile of the file; see its top.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: zero.steps=20. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
"""Results; wide where they go to a file or a pipe, so that nothing is cut off."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Errors and progress."""


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def stages_table(summary: Summary) -> Table:
    """The stages of a run and what became of them."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("stage")
    table.add_column("status")
    table.add_column("time", justify="right")
    table.add_column("")
    measured = {model.stage: model for model in summary.models if "overall" in model.benchmarks}
    for stage in summary.stages:
        note = stage.error or stage.note
        if stage.name in measured:
            scores = measured[stage.name].benchmarks["overall"]
            note = f"{measured[stage.name].name}: {_score(scores.pass_at_1, scores.low, scores.high)}"
        took = duration(stage.seconds) if stage.status in ("ran", "failed") else ""
        status = f"[{STATUS_STYLES.get(stage.status, '')}]{stage.status}[/]"
        table.add_row(stage.name, status, took, _plain(note, 100))
    return table


def models_table(summary: Summary) -> Table:
    """The models of a run and how they fared on each benchmark."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("model", "benchmark", "pass@1 (95 %)", "n × k", "tokens", "format", "one language"):
        table.add_column(title)
    for model in summary.models:
        for name, scores in model.benchmarks.items():
            table.add_row(
                model.name, name, _score(scores.pass_at_1, scores.low, scores.high), f"{scores.n} × {scores.k}",
                f"{scores.mean_response_tokens:.1f}", f"{scores.format_rate:.0%}",
                "–" if scores.one_language_rate is None else f"{scores.one_language_rate:.0%}",
            )  # fmt: skip
    return table


def family_and_profile(workspace: Workspace, config: Path, profile: str | None) -> tuple[str, str | None]:
    """The registered models' prefix and the profile: those asked for, else the latest run's, else the default's."""
    from r1kit.settings import read_settings

    latest = workspace.runs_dir / "latest"
    if profile is None and (latest / "summary.json").is_file() and (latest / SETTINGS_FILE).is_file():
        resolved = yaml.safe_load((latest / SETTINGS_FILE).read_text())
        return str(resolved["name"]), str(json.loads((latest / "summary.json").read_text())["profile"])
    settings = read_settings(config, profile, ())
    return str(settings.values.get("name", "r1kit")), settings.profile


def load_config(workspace: Workspace, config: Path, profile: str | None, overrides: Sequence[str] | None) -> "Config":
    """The resolved configuration of the profile that is meant."""
    from r1kit.config import load

    return load(config, family_and_profile(workspace, config, profile)[1], overrides or ())


def _score(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "–"
    return f"{100 * value:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _plain(text: str, width: int) -> str:
    return text.replace("[", "\\[") if len(text) <= width else text[: width - 1].replace("[", "\\[") + "…"
