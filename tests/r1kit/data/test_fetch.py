"""Raw files are those that the table of sources names, or they are refused."""

import hashlib
from pathlib import Path

import pytest

from r1kit.data.fetch import raw_file
from r1kit.data.source import RawFile
from r1kit.data.table import SOURCES

CONTENT = b"one\ntwo\n"


def file_at(url: str) -> RawFile:
    return RawFile("some/file.jsonl", url, hashlib.sha256(CONTENT).hexdigest())


def test_an_altered_file_of_a_mirror_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some" / "file.jsonl"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert raw_file(file_at("https://example.org/x"), str(tmp_path), tmp_path) == path
    path.write_bytes(CONTENT.replace(b"two", b"six"))
    with pytest.raises(ValueError, match=r"some/file\.jsonl has the checksum .* but the table of sources says"):
        raw_file(file_at("https://example.org/x"), str(tmp_path), tmp_path)


def test_a_file_that_the_mirror_lacks_is_named_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"some/file\.jsonl is not in the mirror .* copy it there from https://example"
    ):
        raw_file(file_at("https://example.org/x"), str(tmp_path), tmp_path)


def test_a_fetched_file_is_kept_and_checked(tmp_path: Path) -> None:
    origin = tmp_path / "origin.jsonl"
    origin.write_bytes(CONTENT)
    file = file_at(origin.as_uri())
    path = raw_file(file, "", tmp_path / "cache")
    origin.unlink()
    assert raw_file(file, "", tmp_path / "cache") == path and path.read_bytes() == CONTENT


def test_an_origin_that_changed_leaves_nothing_behind(tmp_path: Path) -> None:
    origin = tmp_path / "origin.jsonl"
    origin.write_bytes(b"other")
    with pytest.raises(ValueError, match="the origin or the connection altered it"):
        raw_file(file_at(origin.as_uri()), "", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "raw").iterdir())


def test_humaneval_comes_with_its_package(tmp_path: Path) -> None:
    (file,) = SOURCES["humaneval"].files
    assert raw_file(file, "", tmp_path).name == "HumanEval.jsonl.gz"


def test_a_file_that_nothing_pins_is_refused_with_what_would_pin_it(tmp_path: Path) -> None:
    origin = tmp_path / "origin.jsonl"
    origin.write_bytes(CONTENT)
    unpinned = RawFile("some/file.jsonl", origin.as_uri(), "")
    found = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(ValueError, match=rf"put some/file\.jsonl: {found} under data\.checksums"):
        raw_file(unpinned, "", tmp_path / "cache")
    path = raw_file(unpinned, "", tmp_path / "cache", {"some/file.jsonl": found})
    assert path.read_bytes() == CONTENT
    with pytest.raises(ValueError, match="the origin or the connection altered it"):
        raw_file(unpinned, "", tmp_path / "other", {"some/file.jsonl": "0" * 64})
