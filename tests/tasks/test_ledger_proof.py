"""Altered, removed, reordered, inserted, cut off, rewritten: all is found, with its number; a quick look finds less."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.artifacts import canonical_json, digest_bytes
from tasks.ledger import GENESIS, Edge, Entry, Ledger, LedgerBroken, open_ledger
from tasks.ledger.checkpoint import Checkpoint
from tasks.ledger.entry import new_id, to_bytes
from tasks.workspace import Workspace
from tests.tasks.recipe import artifact

NOTE = Entry(kind="approval", job="approve", status="done")
LENGTH = 2050


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with 2,050 entries, the last a registration: two packs, checkpoints at 1000, 2000 and 2050."""
    workspace = Workspace(tmp_path_factory.mktemp("long") / "r1")
    workspace.ledger_dir.mkdir(parents=True)
    previous = GENESIS
    model = artifact(workspace.root / "model", "model", "weights")
    note = NOTE.model_copy(update={"inputs": (Edge(role="model", artifact=model),)})
    for number in range(1, LENGTH):
        if number % 1000 == 0:
            previous = open_ledger(workspace).append(note).digest
            continue
        content = to_bytes(note, number, previous, new_id())
        (workspace.ledger_dir / f"{number:08d}.json").write_bytes(content)
        previous = digest_bytes(content)
    open_ledger(workspace).append(Entry(kind="registration", job="register", status="done"))
    return workspace.root


@pytest.fixture
def long(written: Path, workspace: Workspace) -> Workspace:
    """A copy of it."""
    shutil.copytree(written, workspace.root)
    return workspace


def file(workspace: Workspace, number: int) -> Path:
    return workspace.ledger_dir / f"{number:08d}.json"


def alter(workspace: Workspace, number: int) -> None:
    path = file(workspace, number)
    path.write_bytes(path.read_bytes().replace(b'"eventTime":"2', b'"eventTime":"3'))


def rewrite(workspace: Workspace, start: int, *, end: int = LENGTH) -> None:
    """Another history from an entry on, every entry following from the one before."""
    previous = digest_bytes(file(workspace, start - 1).read_bytes())
    for number in range(start, end + 1):
        event = json.loads(file(workspace, number).read_bytes())
        event["eventTime"] = "3" + event["eventTime"][1:]
        event["run"]["facets"]["r1kit_entry"] |= {"previous": previous, "sequence": number}
        content = canonical_json(event)
        file(workspace, number).write_bytes(content)
        previous = digest_bytes(content)


def insert(workspace: Workspace, number: int) -> None:
    """An entry put in between, and those behind it numbered anew."""
    for moved in range(LENGTH, number - 1, -1):
        file(workspace, moved).rename(file(workspace, moved + 1))
    shutil.copy(file(workspace, number + 1), file(workspace, number))
    rewrite(workspace, number, end=LENGTH + 1)


def swap(workspace: Workspace, number: int) -> None:
    one, other, spare = file(workspace, number), file(workspace, number + 1), workspace.root / "spare"
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def cut(workspace: Workspace, after: int, *, hide: bool = False) -> None:
    for number in range(after + 1, LENGTH + 1):
        file(workspace, number).unlink()
    if hide:
        (workspace.ledger_dir / "checkpoints" / "00002050.json").unlink()


def forge(workspace: Workspace, number: int, **changes: object) -> None:
    path = workspace.ledger_dir / "checkpoints" / f"{number:08d}.json"
    checkpoint = json.loads(path.read_bytes())
    checkpoint["statement"] |= changes
    path.write_bytes(canonical_json(checkpoint))


def test_an_untouched_history_gives_no_alarm(long: Workspace) -> None:
    assert open_ledger(long).verify() == [] and open_ledger(long).verify(full=False) == []
    assert sorted(p.name for p in (long.ledger_dir / "checkpoints").iterdir()) == [
        "00001000.json", "00002000.json", "00002050.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (long.ledger_dir / "packs").iterdir()) == ["00001000.jsonl", "00002000.jsonl"]
    first = (long.ledger_dir / "packs" / "00001000.jsonl").read_bytes().splitlines()
    assert first == [file(long, number).read_bytes() for number in range(1, 1001)]


TAMPERING: dict[str, tuple[Callable[[Workspace], object], str]] = {
    "one altered": (lambda w: alter(w, 17), "ledger entry 17 was altered since .*00001000.jsonl was sealed"),
    "one altered, unsealed": (lambda w: alter(w, 2020), "ledger entry 2021 does not follow from entry 2020"),
    "the last altered": (lambda w: alter(w, LENGTH), "ledger entry 2050 is not the one that its checkpoint signed"),
    "one removed": (lambda w: file(w, 1500).unlink(), "ledger entries 1500 to 1500 are missing"),
    "two swapped": (lambda w: swap(w, 40), r"00000040\.json cannot be read: it says that it is number 41"),
    "one inserted": (lambda w: insert(w, 1200), "ledger entries 1200 to 2000 were altered since"),
    "cut off": (lambda w: cut(w, 2030), "ledger entry 2050, which its checkpoint signed, is gone"),
    "cut off, with its checkpoint": (lambda w: cut(w, 2030, hide=True), "2050, which this workspace has seen, is gone"),
    "all gone": (lambda w: shutil.rmtree(w.ledger_dir), "2050, which this workspace has seen, is gone"),
    "rewritten": (lambda w: rewrite(w, 1990), "ledger entries 1990 to 2000 were altered since .*00002000.jsonl"),
    "rewritten, unsealed": (lambda w: rewrite(w, 2010), "checkpoint signed: .* rewritten after entry 2000"),
    "torn": (lambda w: file(w, 900).write_bytes(b"{"), r"00000900\.json cannot be read"),
    "no entry": (lambda w: file(w, 900).write_bytes(b"[]"), r"00000900\.json cannot be read"),
    "a checkpoint altered": (lambda w: forge(w, 1000, time="x"), r"signature of the checkpoint .*00001000\.json does"),
    "a checkpoint for another head": (lambda w: forge(w, 2050, head=GENESIS), "00002050.json does not hold"),
    "a checkpoint torn": (
        lambda w: (w.ledger_dir / "checkpoints" / "00001000.json").write_text("{"),
        r"the checkpoint .*00001000\.json cannot be read: it was altered",
    ),
    "a checkpoint moved": (
        lambda w: (w.ledger_dir / "checkpoints" / "00001000.json").rename(w.ledger_dir / "checkpoints/00001001.json"),
        r"00001001\.json is that of entry 1000: it was moved",
    ),
    "a pack altered": (
        lambda w: (w.ledger_dir / "packs" / "00001000.jsonl").write_text("{}\n"),
        r"the pack of entries 1 to 1000 \(.*\) was altered",
    ),
    "a pack removed": (
        lambda w: (w.ledger_dir / "packs" / "00002000.jsonl").unlink(),
        r"the pack of entries 1001 to 2000 \(.*\) was removed",
    ),
    "the key gone": (lambda w: shutil.rmtree(w.keys_dir), "put its public half there as a .pub file"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_done_is_found_with_its_number(long: Workspace, what: str) -> None:
    tamper, said = TAMPERING[what]
    tamper(long)
    faults = open_ledger(long).verify()
    assert any(re.search(said, fault) for fault in faults), faults


def test_a_quick_look_sees_what_follows_the_last_checkpoint(long: Workspace) -> None:
    ledger = open_ledger(long)
    for _ in range(3):
        ledger.append(NOTE)
    assert ledger.verify(full=False) == []
    alter(long, 2052)
    assert ledger.verify(full=False) == ["ledger entry 2053 does not follow from entry 2052: one was altered"]


@pytest.mark.parametrize("number", [2050, 2040])
def test_a_quick_look_takes_what_was_signed_to_be_as_it_was(long: Workspace, number: int) -> None:
    alter(long, number)
    assert (open_ledger(long).verify(full=False) != []) == (number == 2050)
    assert open_ledger(long).verify() != []


def test_what_does_not_hold_is_not_signed(long: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    ledger = open_ledger(long)
    ledger.append(NOTE)
    ledger.append(NOTE)
    alter(long, 2051)
    with caplog.at_level(logging.WARNING):
        recorded = ledger.append(Entry(kind="deletion", job="gc", status="done"))
    assert recorded.sequence == 2053 and not (long.ledger_dir / "checkpoints" / "00002053.json").exists()
    assert "no checkpoint was signed at ledger entry 2053: ledger entry 2052 does not follow" in caplog.text


@pytest.mark.parametrize("tamper", [lambda w: cut(w, 2030, hide=True), lambda w: rewrite(w, 2010)])
def test_nothing_is_added_to_a_ledger_that_lost_what_was_seen(long: Workspace, tamper: Callable[..., None]) -> None:
    tamper(long)
    before = sorted(p.name for p in long.ledger_dir.iterdir())
    with pytest.raises(LedgerBroken, match=r"ledger entry 2050.*nothing was written, restore the ledger from a backup"):
        open_ledger(long).append(NOTE)
    assert sorted(p.name for p in long.ledger_dir.iterdir()) == before
    long.ledger_seen.unlink()
    shutil.rmtree(long.ledger_dir / "checkpoints")
    assert open_ledger(long).append(NOTE).sequence == len(Ledger(long.ledger_dir).entries())


def test_a_checkpoint_of_another_workspace_holds_by_its_key(long: Workspace, tmp_path: Path) -> None:
    """The key is named, and believed once it is put beside one's own."""
    other = Workspace(tmp_path / "other")
    shutil.copytree(long.ledger_dir, other.ledger_dir)
    assert all("is not in" in fault for fault in open_ledger(other).verify())
    other.keys_dir.mkdir()
    shutil.copy(long.keys_dir / "signing.pub", other.keys_dir / "colleague.pub")
    assert open_ledger(other).verify() == []
    content = (other.ledger_dir / "checkpoints" / "00002050.json").read_bytes()
    assert Checkpoint.model_validate_json(content).statement.head == open_ledger(other).head().digest


def test_packs_missed_by_a_killed_writer_are_sealed_later(long: Workspace) -> None:
    for name in ("checkpoints/00002000.json", "checkpoints/00002050.json", "packs/00002000.jsonl"):
        (long.ledger_dir / name).unlink()
    open_ledger(long).append(Entry(kind="registration", job="register", status="done"))
    assert (long.ledger_dir / "packs" / "00002000.jsonl").exists() and open_ledger(long).verify() == []
