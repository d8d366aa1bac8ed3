"""Approvals: a statement on one model, its evidence and one environment, signed with the approver's own key.

The signature is OpenSSH's (`ssh-keygen -Y verify -n r1kit-approval` checks it too), the list of approvers is
an allowed_signers file, and the ledger keeps statement and signature, so that an audit can verify them again.
"""

import functools
import getpass
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import sshsig
from tasks.artifacts import canonical_json, digest_bytes
from tasks.ledger import Edge, Entry, Recorded, open_ledger
from tasks.lineage import (
    ENVIRONMENTS,
    Environment,
    ResolvedModel,
    families,
    family_of,
    from_version,
    history,
    registered,
    registrations,
    resolve_model,
)
from tasks.sshsig import AllowedSigner
from tasks.workspace import REPOSITORY, Workspace

if TYPE_CHECKING:
    from r1kit.promotion import PromotionConfig

NAMESPACE = "r1kit-approval"
STATEMENT = "r1kit approval 1"
DEFAULT_KEY = Path("~/.ssh/id_ed25519")


@dataclass(frozen=True)
class Waiting:
    """A model that waits for approvals."""

    model: str
    """`r1kit-candidate/3`, or `r1kit-staging/2`."""
    to: str
    submitters: tuple[str, ...]
    approvers: tuple[str, ...]
    """Who approved it, so that it counts."""
    needed: int
    """Approvals still needed."""


@dataclass(frozen=True)
class Approval:
    """One approval in the ledger, checked again."""

    approver: str
    environment: str
    time: str
    sequence: int
    key: str
    """Fingerprint."""
    fault: str | None
    """Why it does not count; None if it does."""


def submitter() -> str:
    """Who asks for a model to be registered: R1_SUBMITTER, else git's user.email, else user@host."""
    stated = os.environ.get("R1_SUBMITTER")
    return stated.strip() if stated else _git_email() or f"{getpass.getuser()}@{socket.gethostname()}"


@functools.cache
def _git_email() -> str:
    command = ["git", "config", "user.email"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def approvers_file(workspace: Workspace) -> Path:
    """Where the approvers are listed unless a command says otherwise: `approvers` in the workspace, else in
    the repository."""
    own = workspace.root / "approvers"
    return own if own.exists() else REPOSITORY / "approvers"


def ask_passphrase() -> str:
    """The key's passphrase: R1_KEY_PASSPHRASE, else asked on the terminal."""
    stated = os.environ.get("R1_KEY_PASSPHRASE")
    return stated if stated is not None else getpass.getpass("Passphrase of the key: ")


def approve(
    workspace: Workspace,
    reference: str,
    to: Environment,
    *,
    approver: str,
    key: Path = DEFAULT_KEY,
    approvers: Path | None = None,
    name: str = "r1kit",
) -> Recorded:
    """Sign that a model may enter an environment, and write it to the ledger.

    Raises ValueError where the model is not registered, the approver submitted it, or the key is not listed
    for the approver.
    """
    ledger = open_ledger(workspace)
    entries = ledger.entries()
    model = _registered(workspace, entries, reference, name)
    listed = approvers or approvers_file(workspace)
    signers = sshsig.read_allowed_signers(listed)
    listed_text = listed.read_bytes().decode()
    head = ledger.head()
    statement = {
        "statement": STATEMENT,
        "model": f"{model.name}/{model.version}",
        "model_digest": model.artifact.digest,
        "evidence_digest": model.evidence.digest if model.evidence else "",
        "environment": to,
        "approver": approver,
        "approvers_digest": digest_bytes(listed_text.encode()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "ledger": {"sequence": head.sequence, "digest": head.digest},
    }
    message = canonical_json(statement)
    private_key = sshsig.load_key(key, ask_passphrase)
    signature = sshsig.sign(message, private_key, NAMESPACE)
    facts = {
        "environment": to,
        "approver": approver,
        "key": sshsig.fingerprint(sshsig.wire_public_key(private_key.public_key())),
        "statement": message.decode(),
        "signature": signature,
        "approvers_digest": statement["approvers_digest"],
        "approvers": listed_text,  # the keys of this time, for whoever asks when the file has changed
    }
    entry = Entry(
        kind="approval",
        job="approve",
        status="done",
        run=model.run,
        inputs=(Edge(role="model", artifact=model.artifact),),
        facts=facts,
    )
    fault = _fault(facts, model, to, signers, submitters(entries, model), at=datetime.now(UTC))
    if fault:
        raise ValueError(f"approval refused: {fault}")
    return ledger.append(entry)


def submitters(entries: Sequence[Recorded], model: ResolvedModel) -> frozenset[str]:
    """Everybody who had these bytes registered; a later run that only found them registered does not count."""
    of_model = (r for r in entries if r.entry.kind == "registration" and r.entry.status == "done")
    return frozenset(
        str(r.entry.facts["submitter"])
        for r in of_model
        if (artifact := r.entry.output("model")) is not None and artifact.digest == model.artifact.digest
    )


def approvals_of(
    entries: Sequence[Recorded], model: ResolvedModel, signers: Sequence[AllowedSigner], name: str = "r1kit"
) -> list[Approval]:
    """Every approval of these bytes, for any environment, its signature verified again."""
    checked: list[Approval] = []
    own = submitters(entries, model)
    latest = datetime.min.replace(tzinfo=UTC)
    for recorded in entries:
        # The chain gives the order: an entry is no older than those before it, whatever the clock said that wrote it.
        latest = max(latest, _moment(recorded) or latest)
        entry = recorded.entry
        subject = entry.input("model")
        if entry.kind != "approval" or subject is None or subject.digest != model.artifact.digest:
            continue
        facts = {name: str(entry.facts.get(name, "")) for name in ("approver", "environment", "key")}
        fault = _fault(entry.facts, model, facts["environment"], signers, own, latest)
        fault = fault or _misplaced(entries, recorded, model, name)
        if fault is None and _moment(recorded) is None:
            fault = f"its time {recorded.time!r} cannot be read"
        checked.append(
            Approval(facts["approver"], facts["environment"], recorded.time, recorded.sequence, facts["key"], fault)
        )
    return checked


def pending(
    workspace: Workspace, settings: "PromotionConfig", *, approvers: Path | None = None, who: str = ""
) -> list[Waiting]:
    """The newest candidate of each family, and what its staging holds, where approvals are missing.

    With `who`, only what that person has neither submitted nor approved. Raises ValueError as `approve` does.
    """
    entries = open_ledger(workspace).entries()
    signers = sshsig.read_allowed_signers(approvers or approvers_file(workspace)) if entries else []
    found = []
    for name in families(entries):
        stacks = {place: history(entries, name, place) for place in ENVIRONMENTS[1:]}
        newest = {"staging": registrations(entries, name), "production": stacks["staging"]}
        for to, wanted in ((place, settings.approvals.get(place, 1)) for place in ("staging", "production")):
            held = {_digest(r) for r in stacks[to][-1:]}
            for recorded in newest[to][-1:]:
                model = from_version(recorded, "")
                names = valid_approvers(approvals_of(entries, model, signers, name), to)
                own = submitters(entries, model)
                done = {person.lower() for person in (*names, *own)}
                if model.artifact.digest not in held and len(names) < wanted and who.lower() not in done:
                    title = f"{model.name}/{model.version}"
                    found.append(Waiting(title, to, tuple(sorted(own)), tuple(names), wanted - len(names)))
    return found


def _digest(recorded: Recorded) -> str:
    model = recorded.entry.output("model")
    return model.digest if model is not None else ""


def valid_approvers(approvals: Sequence[Approval], environment: str) -> list[str]:
    """Different people with different keys whose approval for the environment counts."""
    by_key = {a.key: a.approver for a in approvals if a.environment == environment and a.fault is None}
    return sorted({approver.lower(): approver for approver in by_key.values()}.values())


def _registered(workspace: Workspace, entries: Sequence[Recorded], reference: str, name: str) -> ResolvedModel:
    model = registered(entries, family_of(reference, name), resolve_model(reference, workspace, name))
    if model is None:
        raise ValueError(f"the model {reference!r} is not registered; finish a run with `r1 run` first")
    return model


def _fault(
    facts: Mapping[str, Any],
    model: ResolvedModel,
    to: str,
    signers: Sequence[AllowedSigner],
    own: frozenset[str],
    at: datetime,
) -> str | None:
    """Why an approval does not count; None if it does."""
    approver, written = str(facts.get("approver", "")), str(facts.get("statement", ""))
    try:
        public_key = sshsig.verify(
            written.encode(),
            str(facts.get("signature", "")),
            principal=approver,
            namespace=NAMESPACE,
            signers=signers,
            at=at,
        )
        statement = json.loads(written)
    except ValueError as error:
        return str(error)
    if not isinstance(statement, dict):
        return "the signed statement is no approval"
    expected = {
        "statement": STATEMENT,
        "model_digest": model.artifact.digest,
        "evidence_digest": model.evidence.digest if model.evidence else "",
        "environment": to,
        "approver": approver,
    }
    for field, value in expected.items():
        if statement.get(field) != value:
            return f"the signed statement says {field} {statement.get(field)!r}, not {value!r}"
    if approver.lower() in {person.lower() for person in own}:
        return f"{approver} submitted the model; somebody else has to approve it"
    shared = next((p for p in own if any(s.public_key == public_key and s.speaks_for(p) for s in signers)), None)
    return f"the key of {approver} is also that of {shared}, who submitted the model" if shared else None


def _moment(recorded: Recorded) -> datetime | None:
    """When an entry says it was written; None where that cannot be read, which an audit names."""
    try:
        return datetime.fromisoformat(recorded.time)
    except ValueError:
        return None


def _misplaced(entries: Sequence[Recorded], approval: Recorded, model: ResolvedModel, name: str) -> str | None:
    """Why an approval whose signature holds does not count where it stands in the ledger.

    It counts from the state of the ledger that was signed with it: written again after a rollback, it stays withdrawn.
    An audit gives only the entries that matter, and compares that state itself.
    """
    signed = json.loads(approval.entry.facts["statement"]).get("ledger") or {}
    at, environment = signed.get("sequence", 0), approval.entry.facts["environment"]
    before = next((r.digest for r in entries if r.sequence == at), None)
    if not 0 < at < approval.sequence or before not in (None, signed.get("digest")):
        return f"it was signed over another ledger, whose entry {at} was {str(signed.get('digest'))[:19]}…"
    for recorded in entries:
        entry = recorded.entry
        left = entry.input("model")
        of_place = entry.kind == "rollback" and entry.facts.get("name") == f"{name}-{environment}"
        if of_place and left is not None and left.digest == model.artifact.digest and recorded.sequence > at:
            return f"the model was rolled back from {environment} since (ledger entry {recorded.sequence})"
    return None
