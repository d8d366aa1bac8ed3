"""The OpenSSF signature beside every registered model, by the workspace's own P-256 key."""

import os
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.artifacts import digest_bytes
from tasks.workspace import Workspace


def signing_key(workspace: Workspace) -> Path:
    """The private key, made at first use; the public one lies beside it as `signing.pub`."""
    private, public = workspace.keys_dir / "signing.pem", public_key(workspace)
    if not private.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        workspace.keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _create(private, pem)
    if not public.exists():
        key = serialization.load_pem_private_key(private.read_bytes(), password=None)
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        _create(public, pem)
    return private


def public_key(workspace: Workspace) -> Path:
    """Where the key that verifies lies."""
    return workspace.keys_dir / "signing.pub"


def key_digest(workspace: Workspace) -> str:
    """sha256 of the public key: names the signer in the ledger."""
    signing_key(workspace)
    return digest_bytes(public_key(workspace).read_bytes())


def sign_model(model: Path, signature: Path, workspace: Workspace) -> None:
    """Sign every file of a model directory; the signature is a Sigstore bundle in a file of its own."""
    from model_signing import hashing, signing

    config = signing.Config().use_elliptic_key_signer(private_key=signing_key(workspace))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    config.sign(model, signature)


def signature_fault(model: Path, signature: Path, workspace: Workspace) -> str | None:
    """Why a model's signature does not hold under the workspace's key; None if it does."""
    from model_signing import verifying

    key = public_key(workspace)
    if not key.exists():
        return f"the key {key} that would verify it is missing"
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=key).verify(model, signature)
    except InvalidSignature:
        return f"it was not made by the key {key}"
    except (ValueError, KeyError, OSError) as error:
        return str(error)
    return None


def _create(path: Path, content: bytes) -> None:
    """Write a file readable by its owner alone, whole, unless another process was first."""
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
