"""Verifying the chain: in full, every entry read where it lies, or from the last signed checkpoint on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tasks.artifacts import digest_bytes
from tasks.ledger.checkpoint import EVERY, Notary, Statement, pack_numbers, pack_title, spans, unpack
from tasks.ledger.entry import GENESIS, Head, previous_of
from tasks.ledger.folder import Store


@dataclass
class Chain:
    """Entries fed in order: are they whole, and does each follow from the one before."""

    after: Head = Head(0, GENESIS)  # noqa: RUF009 - frozen
    faults: list[str] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)
    packs: list[str] = field(default_factory=list)
    """Digests that the packs of these entries have, by place; only where fed from the first entry on."""

    def __post_init__(self) -> None:
        self._previous, self._expected, self._pack = self.after.digest, self.after.sequence + 1, hashlib.sha256()

    def feed(self, number: int, content: bytes | None, store: Store) -> None:
        """Take the next entry, as it lies in the store."""
        if content is None:
            return
        if number != self._expected:
            self.faults.append(f"ledger entries {self._expected} to {number - 1} are missing")
        try:
            if previous_of(content, number) != self._previous and number == self._expected:
                self.faults.append(f"ledger entry {number} does not follow from entry {number - 1}: one was altered")
        except ValueError as error:
            self.faults.append(str(error).replace(f"entry {number} ", f"entry {store.title('entries', number)} ", 1))
        digest = digest_bytes(content)
        self._fill_pack(number, content)
        self.digests[number] = digest
        self._previous, self._expected = digest, number + 1

    @property
    def head(self) -> Head:
        """The last entry fed."""
        return Head(self._expected - 1, self._previous)

    def _fill_pack(self, number: int, content: bytes) -> None:
        while len(self.packs) < (number - 1) // EVERY:
            self._close_pack()
        self._pack.update(content + b"\n")
        if number % EVERY == 0:
            self._close_pack()

    def _close_pack(self) -> None:
        self.packs.append("sha256:" + self._pack.hexdigest())
        self._pack = hashlib.sha256()


def full_faults(store: Store, notary: Notary | None) -> list[str]:
    """What is wrong with any entry, checkpoint or pack, one sentence each."""
    checkpoints = store.numbers("checkpoints") if notary else []  # before the entries: none of theirs comes too early
    chain, numbers = Chain(), store.numbers("entries")
    for number, content in zip(numbers, store.read_many("entries", numbers), strict=True):
        chain.feed(number, content, store)
    faults = list(chain.faults)
    newest: Statement | None = None
    agreed, disagreed = 0, []
    for number, content in zip(checkpoints, store.read_many("checkpoints", checkpoints), strict=True):
        assert notary is not None, "there are checkpoints"
        try:
            newest = notary.read(content, number, store.title("checkpoints", number))
        except ValueError as error:
            faults.append(str(error))
            continue
        if chain.digests.get(number) == newest.head:
            agreed = number
        else:
            disagreed.append(number)
    faults += _disagreements(chain, agreed, disagreed)
    return faults + (_pack_faults(store, chain, newest) if newest else [])


def quick_faults(store: Store, notary: Notary | None) -> list[str]:
    """What is wrong with the last checkpoint or with what came after it, one sentence each."""
    statement, faults = last_checkpoint(store, notary)
    chain = Chain(Head(statement.sequence, statement.head) if statement else Head(0, GENESIS))
    if statement and digest_bytes(store.read("entries", statement.sequence) or b"") != statement.head:
        faults += _disagreements(chain, 0, [statement.sequence])
    feed(chain, store, store.numbers("entries", chain.after.sequence))
    return faults + chain.faults


def feed(chain: Chain, store: Store, numbers: Sequence[int]) -> None:
    """Read these entries from the store into a chain."""
    for number, content in zip(numbers, store.read_many("entries", numbers), strict=True):
        chain.feed(number, content, store)


def last_checkpoint(
    store: Store, notary: Notary | None, numbers: Iterable[int] | None = None
) -> tuple[Statement | None, list[str]]:
    """The newest checkpoint whose signature holds, and what is wrong with newer ones."""
    faults = []
    if notary is not None:
        for number in reversed(list(store.numbers("checkpoints") if numbers is None else numbers)):
            try:
                content = store.read("checkpoints", number)
                return notary.read(content, number, store.title("checkpoints", number)), faults
            except ValueError as error:
                faults.append(str(error))
    return None, faults


def _disagreements(chain: Chain, agreed: int, disagreed: Sequence[int]) -> list[str]:
    last = chain.head.sequence
    gone = [number for number in disagreed if number > last or number not in chain.digests]
    other = [number for number in disagreed if number not in gone]
    faults = []
    if other:
        more = f", as are {len(other) - 1} more" if len(other) > 1 else ""
        faults.append(
            f"ledger entry {other[0]} is not the one that its checkpoint signed{more}: it was altered, or history was "
            f"rewritten after entry {max((n for n in [agreed] if n < other[0]), default=0)}"
        )
    faults += [f"ledger entry {number}, which its checkpoint signed, is gone" for number in gone[:1]]
    return faults


def _pack_faults(store: Store, chain: Chain, newest: Statement) -> list[str]:
    """Entries that differ from their signed packs, by number, and packs that are not the signed ones."""
    faults = []
    found = list(chain.packs)
    for place, digest in enumerate(newest.packs):
        content = store.read("packs", pack_numbers(place)[-1])
        whole = content is not None and digest_bytes(content) == digest
        if not whole:
            title = store.title("packs", pack_numbers(place)[-1])
            faults.append(f"the pack of {pack_title(place)} ({title}) was {'altered' if content else 'removed'}")
        elif place >= len(found) or found[place] != digest:
            lines = zip(pack_numbers(place), unpack(content or b""), strict=False)
            altered = [n for n, line in lines if n in chain.digests and chain.digests[n] != digest_bytes(line)]
            title = store.title("packs", pack_numbers(place)[-1])
            faults += [
                f"ledger {span} {'were' if 'entries' in span else 'was'} altered since {title} was sealed"
                for span in spans(altered)
            ]
    return faults
