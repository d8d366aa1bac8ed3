"""A mirror of made-up files, the verifiers, and the real files where they are at hand."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from r1kit.data import prepare as module
from r1kit.data.config import DataConfig
from r1kit.rewards import VerifierPool
from r1kit.rows import RowType, read_rows
from tests.r1kit.data import made_up

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Prepared:
    """What a call of `prepare` left behind."""

    output: Path
    manifest: dict[str, Any]

    def rows(self, kind: str, row_type: type[RowType]) -> list[RowType]:
        return read_rows(self.output / f"{kind}.parquet", row_type)

    def set_aside(self, **wanted: Any) -> list[dict[str, Any]]:
        lines = (self.output / "quarantine.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if all(row[name] == value for name, value in wanted.items())]

    def source(self, kind: str, name: str) -> dict[str, Any]:
        return next(s for s in self.manifest["sources"] if (s["kind"], s["source"]) == (kind, name))


Prepare = Callable[..., Prepared]


@pytest.fixture(scope="session")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=1, deadline_seconds=10) as verifiers:
        yield verifiers


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: VerifierPool) -> Prepare:
    """Prepares made-up data: `prepare({"problems": [...]}, {path: bytes}, name of the output)`."""

    def call(config: Mapping[str, Any], files: Mapping[str, bytes] | None = None, name: str = "out") -> Prepared:
        mirror = tmp_path / "mirror"
        monkeypatch.setattr(module, "SOURCES", made_up.write(mirror, made_up.FILES | dict(files or {})))
        output = tmp_path / name
        manifest = module.prepare(
            DataConfig.model_validate({"mirror": str(mirror), **config}),
            output,
            cache_dir=tmp_path / "cache",
            pool=pool,
            say=lambda message: None,
            log=lambda step, total, metrics: None,
        )
        return Prepared(output, manifest)

    return call


@pytest.fixture(scope="session")
def real_files() -> Path:
    """The directory of the real raw files, which R1_DATA_MIRROR names."""
    path = Path(os.environ.get("R1_DATA_MIRROR", REPOSITORY.parent / "shared" / "data"))
    if not (path / "math" / "gsm8k_train.jsonl").is_file():
        pytest.skip("the real data files are not here: name their directory with R1_DATA_MIRROR")
    return path
