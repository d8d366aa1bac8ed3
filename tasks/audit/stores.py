"""Every artifact of the history hashed again, every signature checked, every pin compared."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from tasks.artifacts import Artifact, canonical_json, describe, digest_bytes, digest_json
from tasks.audit.data import whereabouts
from tasks.audit.people import title_of
from tasks.ledger import Recorded
from tasks.lineage import made, version_entries
from tasks.pins import Pin, md5_of, pinned_files
from tasks.signing import public_key, signature_fault
from tasks.store import fetch, store_fault
from tasks.workspace import Workspace


@dataclass
class Looked:
    """What was looked at and what was found."""

    count: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_at_artifacts(workspace: Workspace, entries: Sequence[Recorded], root: Path) -> Looked:
    """Hash every artifact that any entry names, once for each place where it lies."""
    looked = Looked()
    deleted = {e.artifact.uri: r.sequence for r in entries if r.entry.kind == "deletion" for e in r.entry.inputs}
    faults: dict[tuple[str, str], str | None] = {}
    stated: dict[tuple[str, str], tuple[str, int]] = {}
    for recorded in entries:
        for edge in (*recorded.entry.inputs, *recorded.entry.outputs):
            artifact = edge.artifact
            place = (artifact.uri, artifact.digest)
            facts = (artifact.kind, artifact.size_bytes)
            if stated.setdefault(place, facts) != facts:
                looked.problems.append(
                    f"ledger entry {recorded.sequence} calls {artifact.uri} {_said(facts)}, an earlier one "
                    f"{_said(stated[place])}"
                )
            if place in faults:
                continue
            faults[place] = None if artifact.uri in deleted else _fault(artifact, workspace, root / ".dvc" / "cache")
            looked.count, looked.size_bytes = looked.count + 1, looked.size_bytes + artifact.size_bytes
            if artifact.uri in deleted:
                looked.notes.append(f"{artifact.uri} was deleted on record (ledger entry {deleted[artifact.uri]})")
            elif wrong := faults[place]:
                again = _made_anew(workspace, entries, recorded, edge.role, artifact)
                line = f"{artifact.kind} of ledger entry {recorded.sequence} ({_title(recorded)}): {wrong}"
                (looked.notes if again else looked.problems).append(
                    line + (f"; made anew by entry {again}" if again else "")
                )
    return looked


def _said(facts: tuple[str, int]) -> str:
    return f"{facts[0]} of {facts[1]} bytes"


def _fault(artifact: Artifact, workspace: Workspace, cache: Path) -> str | None:
    found, wrong = whereabouts(artifact, workspace, cache)
    if artifact.path is None:  # what was fetched before is no evidence of what lies there
        wrong = store_fault(artifact, workspace) or wrong
    return wrong or _size_fault(found, artifact)


def _size_fault(place: Artifact, artifact: Artifact) -> str | None:
    assert place.path is not None and place.path.exists(), "its digest was just found right"
    files = [place.path] if place.path.is_file() else place.path.rglob("*")
    found = sum(file.stat().st_size for file in files if file.is_file())
    if found == artifact.size_bytes:
        return None
    return f"{artifact.uri} has {found} bytes, not the {artifact.size_bytes} that the ledger says"


def _made_anew(workspace: Workspace, entries: Sequence[Recorded], lost: Recorded, role: str, artifact: Artifact) -> int:
    """The later entry of the same stage key that made the same bytes again, which are whole; 0 if there is none."""
    if not made(lost):
        return 0
    key = lost.entry.facts.get("key")
    for recorded in entries:
        again = recorded.entry.output(role)
        same_stage = made(recorded) and recorded.entry.facts.get("key") == key and recorded.sequence > lost.sequence
        if same_stage and again is not None and again.digest == artifact.digest and again.uri != artifact.uri:
            return 0 if _fault(again, workspace, Path()) else recorded.sequence
    return 0


def look_at_signatures(workspace: Workspace, entries: Sequence[Recorded]) -> Looked:
    """Verify the signature of every version, the key itself, and that evidence is the evidence that was registered."""
    looked = Looked(problems=list(_key_faults(workspace)))
    for recorded in version_entries(entries):
        looked.problems += _version_faults(workspace, recorded)
        looked.count += 1
    return looked


def _version_faults(workspace: Workspace, recorded: Recorded) -> Iterator[str]:
    entry, name = recorded.entry, f"{title_of(recorded)} (ledger entry {recorded.sequence})"
    model, signature, evidence = (entry.output(part) for part in ("model", "signature", "evidence"))
    if model is None or signature is None or evidence is None:
        yield f"{name} has not all of model, signature and evidence"
        return
    paths = [_there(part, workspace) for part in (model, signature, evidence)]
    if any(path is None for path in paths):
        return  # what is missing was told as such
    own, signed, bundle = (path for path in paths if path is not None)
    if wrong := signature_fault(own, signed, workspace):
        yield f"the signature of {name} does not hold: {wrong}"
    key = public_key(workspace)
    if key.is_file() and digest_bytes(key.read_bytes()) != entry.facts.get("signing_key_digest"):
        yield f"{name} names another signing key than {key}"
    yield from _evidence_faults(recorded, bundle / "evidence.json", model, name)


def _evidence_faults(recorded: Recorded, file: Path, model: Artifact, name: str) -> Iterator[str]:
    try:
        evidence: dict[str, Any] = json.loads(file.read_text())
        found = digest_json(evidence)
    except (OSError, ValueError) as error:
        yield f"the evidence of {name} cannot be read: {error}"
        return
    if canonical_json(evidence) != file.read_bytes() or evidence.get("model_digest") != model.digest:
        yield f"the evidence of {name} is on {str(evidence.get('model_digest'))[:19]}…, not on its model"
    stated = recorded.entry.facts.get("evidence_document_digest")
    if recorded.entry.kind == "registration" and found != stated:
        yield f"the evidence of {name} is {found[:19]}…, not {str(stated)[:19]}…"


def _there(artifact: Artifact, workspace: Workspace) -> Path | None:
    """Where an artifact's bytes lie, right or wrong; None where they are missing."""
    if artifact.path is not None:
        return artifact.path if artifact.path.exists() else None
    try:
        return fetch(artifact, workspace)
    except (OSError, ValueError):
        return None


def _key_faults(workspace: Workspace) -> Iterator[str]:
    """The private key, where this machine has it, and the public one belong together."""
    private, public = workspace.keys_dir / "signing.pem", public_key(workspace)
    if not private.exists() or not public.exists():
        return
    try:
        key = serialization.load_pem_private_key(private.read_bytes(), password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        yield f"the signing key {private} cannot be read: {str(error).splitlines()[0]}"
        return
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if pem != public.read_bytes():
        yield f"{public} is not the public part of {private}"


def look_at_pins(entries: Sequence[Recorded], root: Path) -> Looked:
    """Compare dvc.lock with the prepared files, and with what the ledger says was last prepared."""
    looked = Looked()
    for profile, artifacts in _prepared(entries, root).items():
        try:
            pinned = pinned_files(profile, root)
        except ValueError as error:
            looked.problems.append(str(error))
            continue
        names = {artifact.path.relative_to(root).as_posix(): artifact for artifact in artifacts if artifact.path}
        looked.count += len(pinned)
        looked.problems += [
            f"dvc.lock pins {path}, which the ledger does not know" for path in pinned.keys() - names.keys()
        ]
        for name, artifact in names.items():
            wrong, note = _pin_fault(name, root / name, pinned.get(name), artifact)
            looked.problems += [wrong] if wrong else []
            looked.problems += _cache_faults(name, root, pinned.get(name))
            looked.notes += [note] if note else []
    return looked


def _prepared(entries: Sequence[Recorded], root: Path) -> dict[str, list[Artifact]]:
    """Profile → the prepared files that the ledger named last, of those that lie where DVC pins them."""
    found: dict[str, list[Artifact]] = {}
    for recorded in entries:
        outputs = [e.artifact for e in recorded.entry.outputs if recorded.entry.job == "data" and made(recorded)]
        own = [a for a in outputs if a.path is not None and a.path.parent.parent == root / "data"]
        found |= dict.fromkeys({a.path.parent.name for a in own if a.path}, own)
    return found


def _pin_fault(name: str, file: Path, pin: Pin | None, artifact: Artifact) -> tuple[str, str]:
    """What is wrong with a pin, and what is worth knowing of it."""
    if pin is None:
        return f"dvc.lock does not pin {name}", ""
    if not file.is_file():
        return f"{name}, which dvc.lock pins, is missing", ""
    found = md5_of(file)
    if (found, file.stat().st_size) != (pin.md5, pin.size_bytes):
        return (
            f"{name} has md5 {found[:12]}… and {file.stat().st_size} bytes, but dvc.lock pins {pin.md5[:12]}… and "
            f"{pin.size_bytes}",
            "",
        )
    if describe(file, artifact.kind).digest != artifact.digest:
        return "", f"{name} is pinned as newer bytes than the ledger has seen"
    return "", ""


def _cache_faults(name: str, root: Path, pin: Pin | None) -> list[str]:
    """What DVC keeps of a pinned file, where it keeps it, is what is pinned."""
    if pin is None:
        return []
    kept = root / ".dvc" / "cache" / "files" / "md5" / pin.md5[:2] / pin.md5[2:]
    if not kept.is_file() or md5_of(kept) == pin.md5:
        return []
    return [f"{kept}, DVC's copy of {name}, was altered"]


def _title(recorded: Recorded) -> str:
    entry = recorded.entry
    return f"{entry.job}[{entry.instance}]" if entry.instance else entry.job
