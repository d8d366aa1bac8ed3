"""The data: typed rows from their sources, pinned by DVC exactly as they are."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.stage import StageContext, StageOutput

if TYPE_CHECKING:
    from r1kit.config import Config
    from tasks.workspace import Workspace

DOCUMENTS = {"manifest": "manifest.json", "quarantine": "quarantine.jsonl"}
"""What lies beside the rows: where they came from, and which were set aside for what reason."""


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on; where the raw files are read from does not change them."""
    data = config.data.model_dump(mode="json", exclude={"mirror"})
    return {"data": data, "profile": config.profile}


def run(context: StageContext) -> StageOutput:
    """inputs: none. outputs: one Parquet file a kind, manifest, quarantine; all where DVC pins them."""
    from tasks.workspace import find_workspace

    files = prepare_and_pin(context.config, find_workspace(), log=context.log, say=context.say)
    return StageOutput({role: (role, path) for role, path in files.items()}, _metrics(files))


def prepare_and_pin(
    config: "Config",
    workspace: "Workspace",
    *,
    log: Callable[[int, int, Mapping[str, float]], None],
    say: Callable[[str], None],
) -> dict[str, Path]:
    """Make a profile's prepared files, put them in their place all at once, and pin them.

    Returns:
        Role → file.
    """
    directory = prepare_files(config, workspace, log=log, say=say)
    from tasks.pins import pin

    say("pinning them with DVC")
    pin(config.profile, workspace)
    return files_of(directory)


def prepare_files(
    config: "Config",
    workspace: "Workspace",
    *,
    log: Callable[[int, int, Mapping[str, float]], None],
    say: Callable[[str], None],
) -> Path:
    """Make a profile's prepared files and put them in their place; the directory comes back.

    A kill on the way leaves the files that were there before.
    """
    from r1kit.data.prepare import prepare
    from tasks.machine import verifier_pool
    from tasks.pins import check_profile, data_dir

    check_profile(config.profile)
    directory = data_dir(config.profile)
    directory.mkdir(parents=True, exist_ok=True)
    workspace.cache_dir.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as scratch,
        verifier_pool(config.runtime) as pool,
    ):
        made = Path(scratch)
        prepare(config.data, made, cache_dir=workspace.cache_dir, pool=pool, say=say, log=log)
        for path in files_of(made).values():
            path.replace(directory / path.name)
    return directory


def files_of(directory: Path) -> dict[str, Path]:
    """Role → file of a directory of prepared files."""
    from r1kit.data.config import KINDS

    names = {kind: f"{kind}.parquet" for kind in KINDS} | DOCUMENTS
    return {role: directory / name for role, name in names.items()}


def _remove_leftovers(directory: Path) -> None:
    """What a killed preparation left."""
    for scratch in directory.glob(".new-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _metrics(files: Mapping[str, Path]) -> dict[str, float]:
    import pyarrow.parquet as pq

    rows = {f"rows_{role}": pq.read_metadata(path).num_rows for role, path in files.items() if role not in DOCUMENTS}
    with files["quarantine"].open("rb") as stream:
        rows["set_aside"] = sum(1 for _ in stream)
    return {name: float(count) for name, count in rows.items()} | {
        "megabytes": sum(os.path.getsize(path) for path in files.values()) / 2**20
    }
