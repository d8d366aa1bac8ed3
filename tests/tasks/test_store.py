"""What is published comes back bit for bit, or not at all."""

from pathlib import Path

import pytest

from tasks.artifacts import describe, digest_directory
from tasks.store import fetch, publish
from tasks.tracking import open_run
from tasks.workspace import Workspace


def model(place: Path, content: str = "w") -> Path:
    (place / "sub").mkdir(parents=True, exist_ok=True)
    (place / "weights").write_text(content)
    (place / "sub" / "config.json").write_text("{}")
    return place


def test_a_copy_is_a_copy(tracked: Workspace, tmp_path: Path) -> None:
    source = model(tmp_path / "source")
    with open_run(tracked, "zero") as run:
        artifact = publish(source, "model", run)
    (source / "weights").write_text("changed afterwards")
    assert (fetch(artifact, tracked) / "weights").read_text() == "w"


def test_publishing_again_replaces_all_of_it(tracked: Workspace, tmp_path: Path) -> None:
    with open_run(tracked, "zero") as run:
        publish(model(tmp_path / "a"), "model", run)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "weights").write_text("second")
        second = publish(tmp_path / "b", "model", run)
    assert second.digest == digest_directory(tmp_path / "b")
    assert [path.name for path in fetch(second, tracked).iterdir()] == ["weights"]


def test_two_of_a_kind_lie_beside_each_other(tracked: Workspace, tmp_path: Path) -> None:
    with open_run(tracked, "reward_models") as run:
        made = {
            name: publish(model(tmp_path / name, name), "reward_model", run, name=name)
            for name in ("helpful", "harmless")
        }
    assert {name: (fetch(artifact, tracked) / "weights").read_text() for name, artifact in made.items()} == {
        "helpful": "helpful",
        "harmless": "harmless",
    }


def test_a_copy_that_went_wrong_is_told(tracked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = model(tmp_path / "source")
    with open_run(tracked, "zero") as run:
        copy = run.client.log_artifacts

        def cut_short(run_id: str, local: str, place: str) -> None:
            copy(run_id, local, place)
            next(path for path in tracked.root.rglob("weights")).write_text("")

        monkeypatch.setattr(run.client, "log_artifacts", cut_short)
        with pytest.raises(ValueError, match=r"altered: .* while it was being published; is the disk full\?"):
            publish(source, "model", run)


@pytest.mark.parametrize("remote", [False, True])
def test_altered_bytes_are_not_handed_out(tracked: Workspace, tmp_path: Path, remote: bool) -> None:
    with open_run(tracked, "zero") as run:
        artifact = publish(model(tmp_path / "source") / "weights", "table", run)
    assert artifact.path is not None
    artifact.path.write_text("altered")
    if remote:
        artifact = artifact.model_copy(update={"uri": f"runs:/{run.run_id}/table/weights"})
    with pytest.raises(ValueError, match="was altered"):
        fetch(artifact, tracked)
    assert not list(tracked.cache_dir.rglob("weights"))


def test_a_spoiled_cache_is_fetched_again(tracked: Workspace, tmp_path: Path) -> None:
    with open_run(tracked, "zero") as run:
        artifact = publish(model(tmp_path / "source"), "model", run)
    remote = artifact.model_copy(update={"uri": f"runs:/{run.run_id}/model"})
    cached = fetch(remote, tracked)
    assert cached.is_relative_to(tracked.cache_dir) and digest_directory(cached) == artifact.digest
    (cached / "weights").write_text("spoiled")
    (cached / "extra").write_text("more")
    assert digest_directory(fetch(remote, tracked)) == artifact.digest


def test_what_is_missing_is_told(workspace: Workspace, tmp_path: Path) -> None:
    artifact = describe(model(tmp_path / "source"), "model")
    (tmp_path / "source").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"model: .*source is missing; run again to make it anew"):
        fetch(artifact, workspace)
