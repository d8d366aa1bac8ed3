"""What `dvc repro data@PROFILE` runs: make the prepared files; DVC then pins them."""

import sys
from collections.abc import Mapping

from tasks.data import prepare_files
from tasks.progress import Progress
from tasks.workspace import REPOSITORY, find_workspace, keep_caches_within


def main(profile: str) -> None:
    """Make the files of a profile, as pipeline.yaml has it."""
    from r1kit.config import load

    workspace = find_workspace()
    keep_caches_within(workspace)
    config = load(REPOSITORY / "pipeline.yaml", profile)
    with Progress() as progress:
        progress.begin("data")

        def log(step: int, total: int, metrics: Mapping[str, float]) -> None:
            progress.step("data", step, total, metrics)

        prepare_files(config, workspace, log=log, say=lambda message: progress.say("data", message))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tasks.prepare PROFILE")
    try:
        main(sys.argv[1])
    except ValueError as error:
        sys.exit(f"error: {error}")
