"""The chain of entries: appending to it, reading it, verifying it."""

import contextlib
import itertools
import json
import logging
import random
import sqlite3
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tasks.artifacts import canonical_json, digest_bytes
from tasks.ledger import emit
from tasks.ledger.checkpoint import EVERY, Notary, is_due, pack, pack_numbers, unpack
from tasks.ledger.entry import GENESIS, Entry, Head, Recorded, new_id, parse, to_bytes
from tasks.ledger.folder import FolderStore, Store
from tasks.ledger.index import History, Index
from tasks.ledger.proof import Chain, full_faults, last_checkpoint, quick_faults
from tasks.ledger.s3 import S3Store
from tasks.workspace import Workspace

LOG = logging.getLogger(__name__)
MAX_REFUSALS = 20
"""Times that one place is refused as taken and then found empty, before something must be wrong with the store."""
MAX_PAUSE_SECONDS = 0.2
"""Between attempts, where other writers were quicker: about what eight at once need for one each."""


class LedgerMoved(ValueError):
    """Another process wrote to the ledger first."""


class LedgerBroken(ValueError):
    """The ledger no longer holds what this workspace saw of it: nothing is added to it."""


class Ledger:
    """The entries in a folder or another store.

    With a workspace it signs checkpoints, remembers what it has seen, keeps its index from one command to the next,
    and sends its entries on to where OPENLINEAGE_URL says.
    """

    def __init__(self, place: Path | Store, workspace: Workspace | None = None) -> None:
        self.store: Store = FolderStore(place) if isinstance(place, Path) else place
        self._notary = Notary(workspace) if workspace else None
        self._memory = workspace.ledger_seen if workspace else None
        self._index = Index(workspace.ledger_index if workspace else None)
        self._parsed: dict[int, Recorded] = {}
        self._seen = self._recall()
        self._is_checked = False

    def append(self, entry: Entry, *, after: Head | None = None) -> Recorded:
        """Write an entry at the end. Atomic: it is there whole, or it is not.

        With `after`, only if that is still the last one; raises LedgerMoved otherwise. Raises LedgerBroken where the
        ledger no longer holds what this workspace saw of it, ValueError where its store does not answer or does not
        keep its word.
        """
        identity = new_id()
        with self.store.turn():
            content, recorded = self._write(entry, identity, after)
        self._remember(Head(recorded.sequence, recorded.digest))
        emit.send(content)
        if self._notary and is_due(recorded):
            self._sign(recorded)
        return recorded

    def head(self) -> Head:
        """The last entry's number and digest; number 0 for an empty ledger."""
        seen = self._seen
        numbers = self.store.numbers("entries", max(seen.sequence - 1, 0))
        if seen.sequence and numbers[:1] != [seen.sequence]:
            numbers, self._is_checked = self.store.numbers("entries"), False
        if not numbers:
            return Head(0, GENESIS)
        if self._is_checked and numbers[-1] == seen.sequence:
            return seen
        head = Head(numbers[-1], digest_bytes(self.store.read("entries", numbers[-1]) or b""))
        as_seen = head == seen if head.sequence == seen.sequence else self._is_checked or self._seen_fault() is None
        if as_seen:
            self._remember(head)
        return head

    def entries(self) -> History:
        """All entries, first to last. Raises ValueError naming the one that cannot be read."""
        try:
            return self._refreshed()
        except sqlite3.DatabaseError:
            self._index.renew()
            return self._refreshed()

    def verify(self, *, full: bool = True) -> list[str]:
        """What is wrong with the ledger, one sentence each; empty if nothing is.

        In full, every entry is read where it lies. Otherwise only what follows the last signed checkpoint is, and
        what came before is taken to be as it was signed.
        """
        found = (full_faults if full else quick_faults)(self.store, self._notary)
        seen = self._seen_fault()
        return list(dict.fromkeys([*found, *([seen] if seen else [])]))

    def _write(self, entry: Entry, identity: str, after: Head | None) -> tuple[bytes, Recorded]:
        refused, refusals = 0, 0
        for attempt in itertools.count():
            head = self.head()
            if head != self._seen:
                raise LedgerBroken(f"{self._seen_fault()}; nothing was written, {self._way_out()}")
            if after is not None and head != after:
                raise LedgerMoved(f"the ledger went on from entry {after.sequence} to {head.sequence} meanwhile")
            sequence = head.sequence + 1
            content = to_bytes(entry, sequence, head.digest, identity)
            if self.store.create("entries", sequence, content):
                return content, parse(content, sequence)
            refused, refusals = sequence, refusals + 1 if refused == sequence else 0
            if refusals == MAX_REFUSALS:
                raise ValueError(
                    f"{self.store.address} refuses entry {sequence} as being there, and does not have it; nothing can "
                    "be added to a ledger there, so keep it in another store (R1_LEDGER)"
                )
            time.sleep(random.uniform(0, min(MAX_PAUSE_SECONDS, 0.005 * 2 ** min(attempt, 10))))
        raise AssertionError("the loop ends by itself")

    # What this workspace has seen of the ledger.

    def _seen_fault(self) -> str | None:
        """How the ledger no longer holds what this workspace saw of it; None if it does."""
        seen = self._seen
        content = self.store.read("entries", seen.sequence) if seen.sequence else None
        if seen.sequence and content is None:
            return f"ledger entry {seen.sequence}, which this workspace has seen, is gone: the ledger was cut off"
        if content is not None and digest_bytes(content) != seen.digest:
            return (
                f"ledger entry {seen.sequence} is not the one that this workspace has seen: "
                "it, or what came before it, was altered"
            )
        return None

    def _way_out(self) -> str:
        own = f", or remove {self._memory} if it is meant to be so" if self._memory else ""
        return f"restore the ledger from a backup{own}"

    def _recall(self) -> Head:
        if self._memory is None:
            return Head(0, GENESIS)
        try:
            known = json.loads(self._memory.read_bytes())
            return Head(int(known["sequence"]), str(known["digest"]))
        except FileNotFoundError:
            return Head(0, GENESIS)
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self._memory}, which tells how far the ledger was seen, cannot be read; remove it"
            ) from None

    def _remember(self, head: Head) -> None:
        """Know this entry as the ledger's last, in later commands too."""
        self._seen, self._is_checked = head, True
        if self._memory is None or self._recall().sequence >= head.sequence:
            return
        scratch = self._memory.with_name(f".{self._memory.name}-{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):  # what it is good for is not worth failing for
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(canonical_json({"sequence": head.sequence, "digest": head.digest}))
            scratch.replace(self._memory)

    # The index, and reading by it.

    def _refreshed(self) -> History:
        """The index brought up to what the store holds now."""
        index, store = self._index, self.store
        last, digest = index.last()
        if last and digest_bytes(store.read("entries", last) or b"") != digest:
            index.forget()
            self._parsed.clear()
            last = 0
        if store.remote and last:
            found: Sequence[int] = [*index.numbers(), *store.numbers("entries", last)]
        else:
            found = store.numbers("entries")
        if not (last and len(found) == found[-1] and index.is_whole(last)):  # somewhere numbers are missing
            known, there = set(index.numbers()), set(found)
            index.forget(number for number in known - there if found and number < found[-1])
            self._take_in([number for number in found if number not in known])
        else:
            self._take_in(found[last:])
        return History(index, found, self._read)

    def _take_in(self, numbers: Sequence[int]) -> None:
        """Read entries into the index, from packs where whole ones are wanted and signed for."""
        packs = self._signed_packs() if self.store.remote and len(numbers) >= EVERY else ()
        for place, group in itertools.groupby(numbers, lambda number: (number - 1) // EVERY):
            batch = list(group)
            contents = self._unpacked(place, packs) if len(batch) == EVERY and place < len(packs) else None
            found = zip(batch, contents or self.store.read_many("entries", batch), strict=True)
            self._index.add(
                (self._parse(content, number), content if self.store.remote else None)
                for number, content in found
                if content is not None
            )

    def _signed_packs(self) -> Sequence[str]:
        statement, _ = last_checkpoint(self.store, self._notary)
        return statement.packs if statement else ()

    def _unpacked(self, place: int, packs: Sequence[str]) -> list[bytes] | None:
        content = self.store.read("packs", pack_numbers(place)[-1])
        return unpack(content) if content is not None and digest_bytes(content) == packs[place] else None

    def _read(self, number: int) -> Recorded:
        if number not in self._parsed:
            content = self.content(number)
            if content is None:
                raise ValueError(f"{self.store.title('entries', number)} is gone; restore the ledger from a backup")
            self._parsed[number] = self._parse(content, number)
        return self._parsed[number]

    def _parse(self, content: bytes, number: int) -> Recorded:
        try:
            return parse(content, number)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{number}", self.store.title("entries", number), 1)) from error

    def content(self, number: int) -> bytes | None:
        """An entry's bytes as they were written; None where there is none."""
        kept = self._index.content(number) if self.store.remote else None
        return self.store.read("entries", number) if kept is None else kept

    # Checkpoints.

    def _sign(self, recorded: Recorded) -> None:
        """Sign that this entry is the last, and seal the packs that are full. Never signs what does not hold."""
        try:
            self._checkpoint(Head(recorded.sequence, recorded.digest))
        except (ValueError, OSError) as error:  # the entry is written: a later checkpoint covers it too
            LOG.warning("no checkpoint was signed at ledger entry %d: %s", recorded.sequence, error)

    def _checkpoint(self, head: Head) -> None:
        assert self._notary is not None, "only who has a key signs"
        if self.store.remote:
            self.entries()  # into the index, several at once
        known = [number for number in self.store.numbers("checkpoints") if number < head.sequence]
        before, faults = last_checkpoint(self.store, self._notary, known)
        packs = list(before.packs) if before else []
        start = len(packs) * EVERY
        chain = Chain(Head(start, digest_bytes(self.content(start) or b"") if start else GENESIS))
        contents: dict[int, bytes] = {}
        for number in range(start + 1, head.sequence + 1):
            content = self.content(number)
            chain.feed(number, content, self.store)
            contents[number] = content or b""
        chain.digests[start] = chain.after.digest
        if before and chain.digests.get(before.sequence) != before.head:
            faults.append(f"ledger entry {before.sequence} is not the one that its checkpoint signed")
        if faults or chain.faults or chain.head != head:
            raise ValueError([*faults, *chain.faults, "it is no longer there"][0])
        for place in range(len(packs), head.sequence // EVERY):
            content = pack(contents[number] for number in pack_numbers(place))
            last = pack_numbers(place)[-1]
            if not self.store.create("packs", last, content) and self.store.read("packs", last) != content:
                raise ValueError(f"{self.store.title('packs', last)} holds other entries than the ledger")
            packs.append(digest_bytes(content))
        self.store.create("checkpoints", head.sequence, self._notary.sign(head.sequence, head.digest, packs))


def open_ledger(workspace: Workspace) -> Ledger:
    """The workspace's ledger. Raises ValueError where R1_LEDGER names no place that it could be in."""
    address = workspace.ledger_address
    if address.startswith("s3://"):
        return Ledger(S3Store(address), workspace)
    if "://" in address:
        raise ValueError(f"R1_LEDGER is {address!r}; it must be a folder or an address like s3://bucket/prefix")
    return Ledger(FolderStore(Path(address)), workspace)
