"""Digests name bytes: the same files give the same digest, any change gives another."""

from pathlib import Path

import pytest

from tasks.artifacts import Artifact, canonical_json, describe, digest_directory, fault, manifest, verify


def make(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_same_files_same_digest(tmp_path: Path) -> None:
    files = {"a.txt": "1", "sub/b.txt": "2"}
    assert digest_directory(make(tmp_path / "x", files)) == digest_directory(make(tmp_path / "y", files))


@pytest.mark.parametrize("files", [{"a": "2"}, {"b": "1"}, {"a": "1", "c": ""}, {"sub/a": "1"}])
def test_any_change_changes_the_digest(tmp_path: Path, files: dict[str, str]) -> None:
    assert digest_directory(make(tmp_path / "x", {"a": "1"})) != digest_directory(make(tmp_path / "y", files))


def test_digest_of_a_file_ignores_its_name(tmp_path: Path) -> None:
    make(tmp_path, {"a.txt": "same", "b.txt": "same", "d/a.txt": "same"})
    assert digest_directory(tmp_path / "a.txt") == digest_directory(tmp_path / "b.txt")
    assert digest_directory(tmp_path / "a.txt") != digest_directory(tmp_path / "d")


def test_manifest_is_sorted_and_complete(tmp_path: Path) -> None:
    records = manifest(make(tmp_path, {"b": "22", "a/z": "1", "a.b": ""}))
    assert [(record["path"], record["size"]) for record in records] == [("a.b", 0), ("a/z", 1), ("b", 2)]


def test_altered_and_missing_bytes_are_found(tmp_path: Path) -> None:
    artifact = describe(make(tmp_path / "model with space", {"w": "1"}), "model")
    assert verify(artifact) and artifact.size_bytes == 1
    (tmp_path / "model with space" / "w").write_text("2")
    assert "altered" in str(fault(artifact))
    (tmp_path / "model with space" / "w").unlink()
    (tmp_path / "model with space").rmdir()
    assert "missing" in str(fault(artifact))


def test_nothing_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        digest_directory(tmp_path / "none")


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(ValueError, match="regular file"):
        digest_directory(tmp_path)


def test_digest_must_be_one() -> None:
    with pytest.raises(ValueError, match="digest"):
        Artifact(kind="model", uri="file:///x", digest="md5:1", size_bytes=0)


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError):
        canonical_json(float("nan"))
