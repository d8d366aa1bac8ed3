"""Signed checkpoints: at this moment, the ledger's last entry was this one, and these were its packs.

A checkpoint names the last entry's digest, and with it everything before; whoever rewrites an entry that it covers
needs the workspace's signing key too. A pack is a copy of a thousand entries in one object, one a line: it is read at
one go, and it tells which of them was altered.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from r1kit.schema import Section
from tasks.artifacts import DIGEST_PATTERN, canonical_json, digest_bytes
from tasks.ledger.entry import Entry, Recorded
from tasks.signing import public_key, signing_key
from tasks.workspace import Workspace

EVERY = 1000
"""Entries to a pack, and from one checkpoint to the next at most."""


class Statement(Section):
    """What a checkpoint signs."""

    format: Literal["r1kit-checkpoint/1"] = "r1kit-checkpoint/1"
    sequence: int = Field(ge=1)
    """The last entry's number."""
    head: str = Field(pattern=DIGEST_PATTERN)
    """The last entry's digest."""
    packs: tuple[str, ...]
    """Digests of the packs so far: entries 1 to 1000, 1001 to 2000 and so on."""
    time: str
    key: str = Field(pattern=DIGEST_PATTERN)
    """sha256 of the public key's PEM file."""


class Checkpoint(Section):
    """A statement and its signature."""

    statement: Statement
    signature: str
    """ECDSA with P-256 and SHA-256 over the statement's canonical JSON, base64 of DER."""


@dataclass(frozen=True)
class Notary:
    """Signs with the workspace's key; believes that one and every other public key beside it (`keys/*.pub`)."""

    workspace: Workspace

    def sign(self, sequence: int, head: str, packs: Sequence[str]) -> bytes:
        """A checkpoint as it is kept."""
        private = serialization.load_pem_private_key(signing_key(self.workspace).read_bytes(), password=None)
        assert isinstance(private, ec.EllipticCurvePrivateKey), "the workspace's key is on P-256"
        statement = Statement(
            sequence=sequence,
            head=head,
            packs=tuple(packs),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            key=digest_bytes(public_key(self.workspace).read_bytes()),
        )
        signature = private.sign(_signed(statement), ec.ECDSA(hashes.SHA256()))
        checkpoint = Checkpoint(statement=statement, signature=base64.b64encode(signature).decode())
        return canonical_json(checkpoint.model_dump(mode="json"))

    def read(self, content: bytes | None, number: int, where: str) -> Statement:
        """What a checkpoint states. Raises ValueError where its signature does not hold."""
        try:
            checkpoint = Checkpoint.model_validate_json(content or b"")
        except ValidationError:
            raise ValueError(f"the checkpoint {where} cannot be read: it was altered") from None
        statement = checkpoint.statement
        key = self._keys().get(statement.key)
        if key is None:
            raise ValueError(
                f"the checkpoint {where} was signed by the key {statement.key[:19]}…, which is not in "
                f"{self.workspace.keys_dir}; put its public half there as a .pub file if it is to be believed"
            )
        try:
            key.verify(base64.b64decode(checkpoint.signature), _signed(statement), ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            raise ValueError(f"the signature of the checkpoint {where} does not hold: it was altered") from None
        if statement.sequence != number:
            raise ValueError(f"the checkpoint {where} is that of entry {statement.sequence}: it was moved")
        return statement

    def _keys(self) -> dict[str, ec.EllipticCurvePublicKey]:
        found = {}
        for path in sorted(self.workspace.keys_dir.glob("*.pub")):
            pem = path.read_bytes()
            try:
                key = serialization.load_pem_public_key(pem)
            except ValueError:
                continue  # of another kind, as an approver's
            if isinstance(key, ec.EllipticCurvePublicKey):
                found[digest_bytes(pem)] = key
        return found


def is_due(recorded: Recorded) -> bool:
    """Whether a checkpoint follows this entry: every thousandth, and whatever changes which model stands where."""
    return recorded.sequence % EVERY == 0 or _weighs(recorded.entry)


def pack(contents: Iterable[bytes]) -> bytes:
    """Entries in one object, one a line: canonical JSON has no line breaks."""
    return b"".join(content + b"\n" for content in contents)


def unpack(content: bytes) -> list[bytes]:
    """The entries of a pack."""
    return content.split(b"\n")[:-1]


def pack_numbers(place: int) -> range:
    """The numbers of the entries in the pack at a place, from 0."""
    return range(place * EVERY + 1, (place + 1) * EVERY + 1)


def pack_title(place: int) -> str:
    """`entries 1 to 1000`."""
    numbers = pack_numbers(place)
    return f"entries {numbers[0]} to {numbers[-1]}"


def spans(numbers: Sequence[int]) -> Iterator[str]:
    """`entry 3`, `entries 5 to 9`: numbers, ascending, in words."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            first, last = numbers[start], numbers[place - 1]
            yield f"entry {first}" if first == last else f"entries {first} to {last}"
            start = place


def _weighs(entry: Entry) -> bool:
    return entry.status == "done" and entry.kind in ("registration", "promotion", "rollback", "deletion")


def _signed(statement: Statement) -> bytes:
    return canonical_json(statement.model_dump(mode="json"))
