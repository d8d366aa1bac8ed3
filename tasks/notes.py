"""The curves and details of a stage on the disk, written so that a kill leaves them whole."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from tasks.workspace import Workspace


class StageNotes:
    """The curves and details of a stage, kept by its key so that a resumed or reused stage still has them."""

    def __init__(self, key: str, workspace: Workspace) -> None:
        self.directory = workspace.stages_dir / key.removeprefix("sha256:")
        self._stream: Any = None

    @property
    def metrics(self) -> Path:
        """One JSON line a step."""
        return self.directory / "metrics.jsonl"

    @property
    def details(self) -> Path:
        """What the body gave for the report."""
        return self.directory / "details.json"

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Note a step's metrics."""
        if self._stream is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._stream = self.metrics.open("a", buffering=1)
        line = {"step": step, "total": total, "time": round(time.time(), 3), "metrics": finite(metrics)}
        self._stream.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Stop writing."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def finish(self, details: Mapping[str, Any]) -> None:
        """Keep one line a step (those repeated after a kill replace the first), and the details."""
        self.close()
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self.metrics, "".join(json.dumps(line) + "\n" for line in self.read()))
        write_atomically(self.details, to_json(details, inf_nan_mode="strings").decode())

    def read(self) -> list[dict[str, Any]]:
        """The steps noted so far, each once."""
        if not self.metrics.is_file():
            return []
        steps: dict[tuple[int, int], dict[str, Any]] = {}
        for text in self.metrics.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off by a kill
            steps[line["step"], line["total"]] = line
        return list(steps.values())


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them: what is not a finite number becomes null."""
    numbers = {name: float(value) for name, value in metrics.items()}
    return {name: n if abs(n) < float("inf") else None for name, n in numbers.items()}


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
