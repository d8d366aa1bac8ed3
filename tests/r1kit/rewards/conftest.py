"""One warm pool for all tests of a process, and one that is watched from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit.rewards import VerifierPool


@pytest.fixture(scope="session")
def pool() -> Iterator[VerifierPool]:
    """A pool that gives its verdicts as much time as a busy machine may need."""
    with VerifierPool(workers=1, deadline_seconds=10.0) as warm:
        yield warm


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that marks every process a pool starts from now on, and holds all scratch folders."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place
