"""SLSA provenance v1 in an in-toto Statement v1, in a DSSE envelope signed with the workspace's key.

The subject is the model: the directory by `dirHash` and by the digest that the ledger knows it by, and every file by
its sha256. Files are subjects only where their bytes are the recorded ones, so that nothing altered is ever attested.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.artifacts import canonical_json
from tasks.exports.making import Making, Step, Thing, dumps
from tasks.signing import key_digest, signing_key

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:r1kit:recipe:1"
"""docs/exports.md says what its parameters mean."""
MANIFEST = "r1kitManifest"
"""Name of the ledger's digest among others: sha256 of the canonical manifest, not of bytes in a row."""

_HEXADECIMAL = re.compile(r"^([0-9a-f]{40}|[0-9a-f]{64})$")


def render(making: Making) -> str:
    """The envelope as JSON. Raises ValueError where the key that should sign is not here."""
    key = _key(making)
    payload = canonical_json(statement(making))
    # With a deterministic nonce (RFC 6979) the same statement has the same signature.
    signature = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    keyid = key_digest(making.workspace).removeprefix("sha256:")
    signed = {"keyid": keyid, "sig": base64.b64encode(signature).decode()}
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE, "signatures": [signed]}
    return dumps(envelope)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(making: Making) -> dict[str, Any]:
    """The in-toto statement."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": list(_subjects(making)),
        "predicateType": PREDICATE_TYPE,
        "predicate": {"buildDefinition": _definition(making), "runDetails": _details(making)},
    }


def _key(making: Making) -> ec.EllipticCurvePrivateKey:
    """The workspace's private key. One is made where nothing was ever signed, but never in the place of a lost one."""
    private = making.workspace.keys_dir / "signing.pem"
    if making.report.name and not private.exists():
        raise ValueError(
            f"the signing key {private} is not here, so the provenance of {making.title} cannot be signed; "
            "restore the key from a backup, or export on the machine that has it"
        )
    key = serialization.load_pem_private_key(signing_key(making.workspace).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"the signing key {private} is not an elliptic-curve key; restore it from a backup")
    return key


def _subjects(making: Making) -> Iterator[dict[str, Any]]:
    model = making.model
    yield {"name": making.title, "digest": digest_set(model)}
    for file in model.files:
        yield {"name": file["path"] or making.title, "digest": {"sha256": file["sha256"]}}


def digest_set(thing: Thing) -> dict[str, str]:
    """An artifact's digests by in-toto's names: `sha256` of a file, `dirHash` of a directory, and the ledger's."""
    own = {MANIFEST: thing.hexadecimal}
    if len(thing.files) == 1 and not thing.files[0]["path"]:
        return {"sha256": thing.files[0]["sha256"], **own}
    if thing.files and not any("\n" in file["path"] for file in thing.files):
        ordered = sorted(thing.files, key=lambda file: file["path"].encode())
        listed = "".join(f"{file['sha256']}  {file['path']}\n" for file in ordered)
        return {"dirHash": hashlib.sha256(listed.encode()).hexdigest(), **own}
    return own


def _definition(making: Making) -> dict[str, Any]:
    settings = [
        {"title": step.record.title, "config": step.record.config, "seed": step.record.seed} for step in making.steps
    ]
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "model": making.report.model,
            "run": making.report.run,
            "stages": settings,
        },
        "internalParameters": {"steps": [_step(step) for step in making.steps]},
        "resolvedDependencies": list(_dependencies(making)),
    }


def _step(step: Step) -> dict[str, Any]:
    record = step.record
    return {
        "title": record.title,
        "stage": record.stage,
        "ledgerEntry": record.sequence,
        "key": record.key,
        "codeDigest": record.code_digest,
        "configDigest": record.config_digest,
        "environment": dict(record.environment),
        "runtime": dict(step.runtime),
        "bitExact": record.exact,
        "startedOn": step.started,
        "finishedOn": record.time,
        "inputs": dict(record.inputs),
        "outputs": dict(record.outputs),
    }


def _dependencies(making: Making) -> Iterator[dict[str, Any]]:
    """What came from outside: raw data files, prepared data sets, the pretrained base, code, the lock of packages."""
    for record in making.report.data:
        thing = making.things[record.digest]
        about = {"role": "training data", "validated": record.validated or "never"}
        yield _descriptor(thing, f"data/{record.kind}", about)
        for source in record.sources:
            for file in source.get("files") or ():
                notes = {"source": str(source.get("source", "")), "licence": str(source.get("licence", ""))}
                yield {
                    "name": str(file.get("path", "")),
                    "uri": str(file.get("url", "")),
                    "digest": {"sha256": str(file.get("sha256", ""))},
                    "annotations": {"role": "raw data", **notes},
                }
    if making.pretrained:
        known = {"gitCommit": str(making.base.get("revision", "")), "sha256": str(making.base.get("sha256", ""))}
        digest = {name: value for name, value in known.items() if _HEXADECIMAL.match(value)}
        yield {"name": "base model", "uri": _uri(making.pretrained), **({"digest": digest} if digest else {})}
    commits = dict.fromkeys(step.record.environment.get("commit", "") for step in making.steps)
    for commit in filter(None, commits):
        clean = commit.removesuffix("+changes")
        notes = {"annotations": {"changed": "the working tree had changes beside this commit"}}
        yield {"name": "r1kit", "digest": {"gitCommit": clean}, **(notes if clean != commit else {})}
    for lock in making.locks:
        yield {"name": "requirements.lock", "digest": {"sha256": lock.digest.removeprefix("sha256:")}}


def _uri(source: str) -> str:
    """A base model's source as a URI: a package of PyPI, a hub name, or a directory as it was named."""
    if source.startswith("pypi:"):
        name, _, version = source.removeprefix("pypi:").partition("==")
        return f"pkg:pypi/{name.lower()}" + (f"@{version}" if version else "")
    return f"pkg:huggingface/{source}" if source.count("/") == 1 and not source.startswith((".", "/")) else source


def _descriptor(thing: Thing, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    """A resource descriptor. One whose bytes are lost or altered says so."""
    notes = {**annotations, **({"fault": thing.fault} if thing.fault else {})}
    return {"name": name, "uri": thing.artifact.uri, "digest": digest_set(thing), "annotations": notes}


def _details(making: Making) -> dict[str, Any]:
    model_step = making.steps[-1].record if making.steps else None
    builder = key_digest(making.workspace).removeprefix("sha256:")
    environment = dict(model_step.environment) if model_step else {}
    return {
        "builder": {
            "id": f"urn:r1kit:workspace:{builder}",
            "version": {name: environment[name] for name in ("python", "platform") if environment.get(name)}
            | {"r1kit": making.producer},
        },
        "metadata": {
            "invocationId": f"urn:r1kit:run:{making.report.run}",
            **({"startedOn": min(step.started for step in making.steps)} if making.steps else {}),
            "finishedOn": model_step.time if model_step else making.time,
        },
        "byproducts": list(_byproducts(making)),
    }


def _byproducts(making: Making) -> Iterator[dict[str, Any]]:
    """What else was made on the way, and last what the audit found."""
    data = {record.digest for record in making.report.data} | {making.model.artifact.digest}
    for digest, thing in making.things.items():
        if digest not in data:
            yield _descriptor(thing, thing.title, {"kind": thing.artifact.kind})
    findings = {
        "signature": making.report.signature,
        "problems": list(making.problems),
        "gaps": list(making.gaps),
        "ledger": {"entries": making.report.ledger_entries, "head": making.report.ledger_head},
        "approvals": [a.model_dump(mode="json") for a in making.report.approvals],
    }
    content = canonical_json(findings)
    yield {
        "name": "audit",
        "mediaType": "application/json",
        "content": base64.b64encode(content).decode(),
        "digest": {"sha256": hashlib.sha256(content).hexdigest()},
    }
