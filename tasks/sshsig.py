"""SSH signatures (OpenSSH's PROTOCOL.sshsig) with Ed25519 keys, as `ssh-keygen -Y sign` and `-Y verify` do."""

import base64
import fnmatch
import hashlib
import re
import struct
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

MAGIC = b"SSHSIG"
VERSION = 1
KEY_TYPE = b"ssh-ed25519"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
_KEY_TYPES = re.compile(r"^(ssh-|ecdsa-|sk-)")
_FIELD = re.compile(r'(?:[^\s"]|"(?:\\.|[^"\\])*")+')
_OPTION = re.compile(r'([A-Za-z-]+)(?:=(?:"((?:\\.|[^"\\])*)"|([^,]*)))?(?:,|$)')


@dataclass(frozen=True)
class AllowedSigner:
    """One line of an allowed_signers file."""

    principals: tuple[str, ...]
    """Patterns of identities; `!` in front excludes."""
    public_key: bytes
    """In SSH's wire form."""
    namespaces: tuple[str, ...] = ("*",)
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def speaks_for(self, principal: str) -> bool:
        """Whether the line lists this identity."""
        name = principal.lower()
        patterns = [pattern.lower() for pattern in self.principals]
        if any(p.startswith("!") and fnmatch.fnmatchcase(name, p[1:]) for p in patterns):
            return False
        return any(not p.startswith("!") and fnmatch.fnmatchcase(name, p) for p in patterns)


def load_key(path: Path, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """An OpenSSH private key file; `passphrase` is asked only where the file is protected.

    Raises ValueError where the file is not an Ed25519 key or the passphrase is wrong.
    """
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise ValueError(f"the key {path} cannot be read: {error.strerror}") from error
    wrong = _not_private(content)
    if wrong:
        raise ValueError(f"{path} {wrong}")
    try:
        key = load_ssh_private_key(content, password=None)
    except TypeError:  # cryptography's way to say that it is protected
        try:
            key = load_ssh_private_key(content, password=passphrase().encode())
        except ValueError as error:
            raise ValueError(f"the passphrase of {path} is wrong") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is not an OpenSSH private key; make one with `ssh-keygen -t ed25519`") from error
    if isinstance(key, Ed25519PrivateKey):
        return key
    kind = type(key).__name__.lstrip("_").partition("Private")[0].upper()
    raise ValueError(f"{path} is not an Ed25519 key but {kind}; make one with `ssh-keygen -t ed25519`")


def _not_private(content: bytes) -> str | None:
    """What a file is that people take for their private key; None where it may be one."""
    if _KEY_TYPES.match(content[:80].decode(errors="replace").lstrip()):
        return "is a public key; give the private key beside it, the file without .pub"
    if content.lstrip().startswith(b"-----BEGIN") and b"OPENSSH PRIVATE KEY" not in content[:80]:
        return "is a PEM file but no OpenSSH private key; make one with `ssh-keygen -t ed25519`"
    return None


def wire_public_key(key: Ed25519PublicKey) -> bytes:
    """A public key in SSH's wire form."""
    return _string(KEY_TYPE) + _string(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def fingerprint(public_key: bytes) -> str:
    """`SHA256:…`, as ssh-keygen prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


def sign(message: bytes, key: Ed25519PrivateKey, namespace: str) -> str:
    """An armoured signature of a message."""
    signature = key.sign(_signed(message, namespace.encode(), b"sha512"))
    blob = MAGIC + struct.pack(">I", VERSION) + _string(wire_public_key(key.public_key()))
    blob += _string(namespace.encode()) + _string(b"") + _string(b"sha512")
    blob += _string(_string(KEY_TYPE) + _string(signature))
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    return "\n".join([BEGIN, *lines, END, ""])


def verify(
    message: bytes,
    armoured: str,
    *,
    principal: str,
    namespace: str,
    signers: Sequence[AllowedSigner],
    at: datetime,
) -> bytes:
    """The public key, in wire form, that signed `message` for `principal`.

    Raises ValueError with the reason where the signature does not hold, or the key was not allowed to sign
    for that identity, in that namespace, at that time.
    """
    public_key, found_namespace, hash_name, signature = _take_apart(armoured)
    if found_namespace != namespace.encode():
        raise ValueError(f"the signature is for {found_namespace.decode(errors='replace')!r}, not {namespace!r}")
    if hash_name not in HASHES:
        raise ValueError(f"the signature uses the hash {hash_name.decode(errors='replace')!r}")
    try:
        Ed25519PublicKey.from_public_bytes(_raw_key(public_key)).verify(
            signature, _signed(message, found_namespace, hash_name)
        )
    except InvalidSignature:
        raise ValueError("the signature does not match what it should have signed") from None
    lines = [s for s in signers if s.public_key == public_key and s.speaks_for(principal)]
    if not lines:
        raise ValueError(f"the key {fingerprint(public_key)} is not listed for {principal}")
    why = [_refusal(line, namespace, at) for line in lines]
    if None in why:
        return public_key
    raise ValueError(f"the key {fingerprint(public_key)} of {principal} may not sign {namespace!r}: {why[0]}")


def key_of(armoured: str) -> bytes:
    """The public key, in wire form, that a signature says it was made with. Raises ValueError where it is none."""
    return _take_apart(armoured)[0]


def read_allowed_signers(path: Path) -> list[AllowedSigner]:
    """The Ed25519 lines of an allowed_signers file. Raises ValueError naming the line that cannot be read."""
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; list the approvers there, one a line: "
            "`alice@example.org ssh-ed25519 AAAA…` (the public key from ~/.ssh/id_ed25519.pub)"
        )
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file, so it lists no approvers: {error.reason}") from error
    return parse_allowed_signers(text, str(path))


def parse_allowed_signers(text: str, where: str) -> list[AllowedSigner]:
    """The Ed25519 lines of a text. Raises ValueError naming `where` it stands and the line that cannot be read."""
    signers = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            try:
                signer = _parse_line(stripped)
            except ValueError as error:
                raise ValueError(f"{where}, line {number}: {error}") from error
            signers += [signer] if signer else []
    return signers


def _parse_line(line: str) -> AllowedSigner | None:
    """One line; None for key types other than Ed25519."""
    fields = _FIELD.findall(line)
    if len(fields) < 3:
        raise ValueError("expected identities, options if any, key type and key")
    principals = tuple(fields[0].strip('"').split(","))
    options: dict[str, str] = {}
    if not _KEY_TYPES.match(fields[1]):
        options = {m[1].lower(): m[2] or m[3] or "" for m in _OPTION.finditer(fields[1])}
        fields = [fields[0], *fields[2:]]
    if "cert-authority" in options:
        raise ValueError("certificates are not supported, list each approver's own key")
    if fields[1] != KEY_TYPE.decode():
        return None
    if len(fields) < 3:
        raise ValueError("the key is missing")
    signer = AllowedSigner(
        principals=principals,
        public_key=base64.b64decode(fields[2], validate=True),
        namespaces=tuple(options.get("namespaces", "*").split(",")),
        valid_after=_moment(options["valid-after"]) if "valid-after" in options else None,
        valid_before=_moment(options["valid-before"]) if "valid-before" in options else None,
    )
    _raw_key(signer.public_key)
    return signer


def _moment(text: str) -> datetime:
    """YYYYMMDD[HHMM[SS]], in UTC with a `Z` at the end, else local time."""
    digits = text.removesuffix("Z")
    shape = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    if shape is None:
        raise ValueError(f"{text!r} is not a time like 20260131 or 202601312359Z")
    moment = datetime.strptime(digits, shape)
    return moment.replace(tzinfo=UTC) if text.endswith("Z") else moment.astimezone(UTC)


def _refusal(signer: AllowedSigner, namespace: str, at: datetime) -> str | None:
    """Why a line does not allow a signature of that time in that namespace; None if it does."""
    if not any(fnmatch.fnmatchcase(namespace, pattern) for pattern in signer.namespaces):
        return f"it is listed for {', '.join(signer.namespaces)} alone"
    after, before = signer.valid_after, signer.valid_before
    if after is not None and at < after:
        return f"it is valid from {after:%Y-%m-%d %H:%M}Z on, and signed at {at:%Y-%m-%d %H:%M}Z"
    if before is not None and at >= before:
        return f"it expired or was revoked at {before:%Y-%m-%d %H:%M}Z, and signed at {at:%Y-%m-%d %H:%M}Z"
    return None


def _signed(message: bytes, namespace: bytes, hash_name: bytes) -> bytes:
    """What the key signs: the hash of the message with its purpose."""
    hashed = HASHES[hash_name](message).digest()
    return MAGIC + _string(namespace) + _string(b"") + _string(hash_name) + _string(hashed)


def _take_apart(armoured: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Public key, namespace, hash name and raw signature of an armoured signature."""
    try:
        body = armoured[armoured.index(BEGIN) + len(BEGIN) : armoured.index(END)]
        blob = base64.b64decode("".join(body.split()), validate=True)
        if blob[:6] != MAGIC or struct.unpack_from(">I", blob, 6)[0] != VERSION:
            raise ValueError
        public_key, rest = _take(blob[10:])
        namespace, rest = _take(rest)
        _reserved, rest = _take(rest)
        hash_name, rest = _take(rest)
        wrapped, _end = _take(rest)
        kind, rest = _take(wrapped)
        signature, _end = _take(rest)
    except (ValueError, struct.error):
        raise ValueError("this is not an SSH signature") from None
    if kind != KEY_TYPE:
        raise ValueError(f"the signature is by a {kind.decode(errors='replace')} key, not an Ed25519 one")
    return public_key, namespace, hash_name, signature


def _raw_key(public_key: bytes) -> bytes:
    """The 32 bytes of an Ed25519 key in wire form."""
    kind, rest = _take(public_key)
    raw, end = _take(rest)
    if kind != KEY_TYPE or len(raw) != 32 or end:
        raise ValueError("this is not an Ed25519 public key")
    return raw


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _take(blob: bytes) -> tuple[bytes, bytes]:
    """The first length-prefixed string of a blob, and what follows it."""
    length = int.from_bytes(blob[:4], "big")
    if len(blob) < 4 + length:
        raise ValueError("the key or signature is cut short")
    return blob[4 : 4 + length], blob[4 + length :]
