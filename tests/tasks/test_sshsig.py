"""SSH signatures, against OpenSSH's own ssh-keygen."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasks import sshsig

NOW = datetime(2026, 6, 1, tzinfo=UTC)
needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")


def write_key(path: Path, passphrase: str = "") -> str:
    """Write a key pair as ssh-keygen does; the public line comes back."""
    key = Ed25519PrivateKey.generate()
    lock: KeySerializationEncryption = NoEncryption()
    if passphrase:
        lock = BestAvailableEncryption(passphrase.encode())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, lock))
    path.chmod(0o600)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def no_passphrase() -> str:
    raise AssertionError("the key is not protected")


def signers(tmp_path: Path, text: str) -> list[sshsig.AllowedSigner]:
    (tmp_path / "approvers").write_text(text)
    return sshsig.read_allowed_signers(tmp_path / "approvers")


def check(message: bytes, signature: str, allowed: list[sshsig.AllowedSigner], who: str = "alice@x.org") -> bytes:
    return sshsig.verify(message, signature, principal=who, namespace="test", signers=allowed, at=NOW)


@needs_ssh_keygen
def test_ssh_keygen_verifies_our_signature(tmp_path: Path) -> None:
    public = write_key(tmp_path / "key")
    (tmp_path / "approvers").write_text(f"alice@x.org {public}\n")
    signature = sshsig.sign(b"hello", sshsig.load_key(tmp_path / "key", no_passphrase), "test")
    (tmp_path / "sig").write_text(signature)
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        "approvers",
        "-I",
        "alice@x.org",
        "-n",
        "test",
        "-s",
        "sig",
    ]
    good = subprocess.run(command, input=b"hello", cwd=tmp_path, capture_output=True, check=False)
    bad = subprocess.run(command, input=b"hello!", cwd=tmp_path, capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0


@needs_ssh_keygen
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_we_verify_and_load_what_ssh_keygen_makes(tmp_path: Path, passphrase: str) -> None:
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "alice", "-f", "key"]
    subprocess.run(make, cwd=tmp_path, check=True)
    allowed = signers(tmp_path, "alice@x.org " + (tmp_path / "key.pub").read_text())
    key = sshsig.load_key(tmp_path / "key", lambda: passphrase)
    assert check(b"hello", sshsig.sign(b"hello", key, "test"), allowed) == allowed[0].public_key
    if not passphrase:
        (tmp_path / "message").write_bytes(b"hello")
        sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", "key", "-n", "test", "message"]
        subprocess.run(sign, cwd=tmp_path, check=True, capture_output=True)
        check(b"hello", (tmp_path / "message.sig").read_text(), allowed)


def test_what_is_not_signed_is_refused(tmp_path: Path) -> None:
    public = write_key(tmp_path / "key")
    key = sshsig.load_key(tmp_path / "key", no_passphrase)
    allowed = signers(tmp_path, f"alice@x.org,*@team.org {public} comment\n")
    signature = sshsig.sign(b"hello", key, "test")
    check(b"hello", signature, allowed)
    check(b"hello", signature, allowed, "bob@team.org")
    with pytest.raises(ValueError, match="does not match"):
        check(b"hullo", signature, allowed)
    with pytest.raises(ValueError, match=r"not listed for eve@x\.org"):
        check(b"hello", signature, allowed, "eve@x.org")
    with pytest.raises(ValueError, match="is for 'other'"):
        check(b"hello", sshsig.sign(b"hello", key, "other"), allowed)
    with pytest.raises(ValueError, match="not an SSH signature"):
        check(b"hello", signature.replace("U1NIU0lH", "AAAAAAAA"), allowed)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ('namespaces="file,test"', True),
        ('namespaces="file"', False),
        ('valid-before="20260101Z"', False),
        ('valid-after="20260101Z",valid-before="20270101Z"', True),
        ("valid-after=20260701", False),
    ],
)
def test_options_of_allowed_signers(tmp_path: Path, options: str, allowed: bool) -> None:
    lines = signers(tmp_path, f"# who\n\nalice@x.org {options} {write_key(tmp_path / 'key')}\n")
    signature = sshsig.sign(b"m", sshsig.load_key(tmp_path / "key", no_passphrase), "test")
    if allowed:
        check(b"m", signature, lines)
    else:
        with pytest.raises(ValueError, match="may not sign"):
            check(b"m", signature, lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alice@x.org", "expected identities"),
        ("alice@x.org ssh-ed25519 %%%", "line 1"),
        ("alice@x.org ssh-ed25519 AAAA", "line 1"),
        ("alice@x.org cert-authority ssh-ed25519 AAAA", "certificates are not supported"),
        ("alice@x.org valid-after=soon ssh-ed25519 AAAA", "'soon' is not a time"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        signers(tmp_path, line)


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        sshsig.load_key(tmp_path / "none", no_passphrase)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="not an OpenSSH private key"):
        sshsig.load_key(tmp_path / "text", no_passphrase)
    write_key(tmp_path / "locked", "right")
    with pytest.raises(ValueError, match=r"passphrase of .* is wrong"):
        sshsig.load_key(tmp_path / "locked", lambda: "wrong")
    with pytest.raises(ValueError, match="list the approvers there"):
        sshsig.read_allowed_signers(tmp_path / "approvers")
