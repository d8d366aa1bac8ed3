"""Whatever is wrong with what it is given, a command says one clear sentence and changes nothing."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tasks import store
from tasks.approvals import approve
from tasks.artifacts import local_path
from tasks.gc import collect
from tasks.ledger import open_ledger
from tasks.lineage import resolve_model
from tasks.promotion import check, promote, rollback
from tasks.workspace import Workspace
from tests.tasks.promoted import FREE, LAST_RUN, assert_whole, candidate, files, registry
from tests.tasks.recipe import approver
from tests.tasks.test_sshsig import write_key

ALICE = "alice@example.org"
STRICT = FREE.model_copy(update={"approvals": {"staging": 1, "production": 1}})

Case = Callable[[Workspace, Path], Any]


def sign(workspace: Workspace, place: Path, model: str = "r1", to: Any = "staging", key: str = f"{ALICE}.key") -> Any:
    return approve(workspace, model, to, approver=ALICE, key=place / key, approvers=place / "approvers")


def let_in(workspace: Workspace, place: Path, model: str = "r1", to: Any = "staging") -> Any:
    return promote(workspace, model, to, settings=STRICT, approvers=place / "approvers")


def private_key(path: Path, key: Any, form: PrivateFormat = PrivateFormat.OpenSSH) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))


def with_key(make: Callable[[Path], Any]) -> Case:
    """Approving with a key that is none."""

    def case(workspace: Workspace, place: Path) -> None:
        make(place / "other")
        sign(workspace, place, key="other")

    return case


def listed(options: str, *, given: bool = False) -> Case:
    """An approver whose line in the list has these options, from before or from after the approval."""

    def case(workspace: Workspace, place: Path) -> None:
        if given:
            sign(workspace, place)
        file = place / "approvers"
        file.write_text(file.read_text().replace(" ssh-ed25519", f" {options} ssh-ed25519", 1))
        let_in(workspace, place) if given else sign(workspace, place)

    return case


def forged(**changes: Any) -> Case:
    """An approval in the ledger of which somebody changed something."""

    def case(workspace: Workspace, place: Path) -> None:
        entry = sign(workspace, place).entry
        open_ledger(workspace).append(entry.model_copy(update={"facts": {**entry.facts, **changes}}))
        (place / "approvers").write_text((place / "approvers").read_text().replace(ALICE, "bob@example.org"))
        let_in(workspace, place)

    return case


def broken_signature(workspace: Workspace, place: Path) -> None:
    signature = resolve_model("candidate", workspace).signature
    path = local_path(signature.uri) if signature else None
    assert path is not None
    content = path.read_bytes()
    path.write_bytes(b"\0\1\2")
    try:
        sign(workspace, place)
        let_in(workspace, place)
    finally:
        path.write_bytes(content)


CASES: dict[str, tuple[Case, str]] = {
    "unknown model": (lambda w, p: sign(w, p, "r9"), "there is no model 'r9' here; known models: "),
    "unknown version": (lambda w, p: let_in(w, p, "r1kit-candidate/9"), "there is no model 'r1kit-candidate/9' here"),
    "a model not registered": (lambda w, p: let_in(w, p, "base"), "'base' is not registered; finish a run with"),
    "unknown environment": (lambda w, p: let_in(w, p, to="prod"), "'prod' is not an environment to promote to; there"),
    "unknown environment, rollback": (lambda w, p: rollback(w, "prod"), "'prod' is not an environment"),  # pyright: ignore
    "unknown environment, check": (lambda w, p: check(w, "r1", "candidate", settings=STRICT), "'candidate' is not an"),
    "nothing to roll back to": (lambda w, p: rollback(w, "staging"), "nothing was ever promoted to it"),
    "no key": (with_key(lambda file: None), "cannot be read: No such file"),
    "an RSA key": (
        with_key(lambda file: private_key(file, rsa.generate_private_key(65537, 2048))),
        "is not an Ed25519 key but RSA; make one with `ssh-keygen -t ed25519`",
    ),
    "an ECDSA key": (
        with_key(lambda file: private_key(file, ec.generate_private_key(ec.SECP256R1()))),
        "is not an Ed25519 key but ",
    ),
    "a public key": (
        with_key(lambda file: file.write_text(write_key(file.with_name("pair")))),
        "is a public key; give the private key beside it",
    ),
    "a PEM that is no SSH key": (
        with_key(lambda file: private_key(file, Ed25519PrivateKey.generate(), PrivateFormat.PKCS8)),
        "is a PEM file but no OpenSSH private key",
    ),
    "a text": (with_key(lambda file: file.write_text("hello")), "is not an OpenSSH private key"),
    "a wrong passphrase": (with_key(lambda file: write_key(file, "right")), "the passphrase of "),
    "an expired signer": (listed('valid-before="20250101Z"'), "it expired or was revoked at 2025-01-01 00:00Z"),
    "a signer of later": (listed('valid-after="20990101Z"'), "it is valid from 2099-01-01 00:00Z on"),
    "a signer of something else": (listed('namespaces="git"'), "it is listed for git alone"),
    "no list of approvers": (lambda w, p: ((p / "approvers").unlink(), sign(w, p)), "list the approvers there"),
    "a list that is no text": (
        lambda w, p: ((p / "approvers").write_bytes(b"\xff\xfe\0"), sign(w, p)),
        "is not a text file, so it lists no approvers",
    ),
    "an unreadable model signature": (broken_signature, "was altered"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Workspace:
    """One workspace with a candidate: nothing that follows may change it but by approvals."""
    workspace = Workspace(tmp_path_factory.mktemp("shared") / "r1")
    workspace.root.mkdir()
    shutil.copy(empty_database, workspace.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R1_SUBMITTER", "submitter@example.org")
        candidate(workspace)
    return workspace


@pytest.fixture
def untouched(shared: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("R1_KEY_PASSPHRASE", "wrong")
    monkeypatch.setenv("R1_SUBMITTER", "submitter@example.org")
    return shared


def lines(workspace: Workspace) -> list[str]:
    """Digests of the entries other than approvals, which a case may have needed."""
    entries = open_ledger(workspace).entries()
    return [r.entry.model_dump_json() for r in entries if r.entry.kind != "approval"]


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_changed(untouched: Workspace, tmp_path: Path, name: str) -> None:
    case, words = CASES[name]
    approver(tmp_path)
    before = lines(untouched), registry(untouched)
    bytes_before = set(files(untouched.artifacts_dir))
    with pytest.raises(ValueError) as caught:
        case(untouched, tmp_path)
    told = str(caught.value)
    assert words in told and "Traceback" not in told
    assert len(told.splitlines()) == (2 if told.startswith("r1kit-candidate/1 (r1) may not enter") else 1)
    assert (lines(untouched), registry(untouched)) == before
    assert set(files(untouched.artifacts_dir)) == bytes_before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": "no signature"}, "this is not an SSH signature"),
        ({"statement": "{}"}, "the signature does not match what it should have signed"),
        ({"approver": "eve@example.org"}, "is not listed for eve@example.org"),
    ],
)
def test_an_approval_that_somebody_changed_does_not_count(
    tracked: Workspace, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    candidate(tracked, stored=False)
    approver(tmp_path)
    with pytest.raises(ValueError, match="approvals: 0 valid") as caught:
        forged(**changes)(tracked, tmp_path)
    assert words in str(caught.value)


def test_revoked_from_a_moment_on(tracked: Workspace, tmp_path: Path) -> None:
    candidate(tracked, stored=False)
    approver(tmp_path)
    sign(tracked, tmp_path)
    file = tmp_path / "approvers"
    line = file.read_text()
    moment = datetime.now(UTC) - timedelta(hours=1)
    file.write_text(line.replace(" ssh-", f' valid-before="{moment:%Y%m%d%H%M}Z" ssh-', 1))
    with pytest.raises(ValueError, match="it expired or was revoked at"):
        let_in(tracked, tmp_path)
    moment = datetime.now(UTC) + timedelta(minutes=2)
    file.write_text(line.replace(" ssh-", f' valid-before="{moment:%Y%m%d%H%M}Z" ssh-', 1))
    let_in(tracked, tmp_path)


def test_a_store_that_lies_about_a_write(tracked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate(tracked)
    before = registry(tracked)

    def short(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:-1])

    with monkeypatch.context() as patch:
        patch.setattr(store, "_copy_synced", short)
        with pytest.raises(ValueError, match="the store did not keep what it was given"):
            promote(tracked, "r1", "staging", settings=FREE)
    assert registry(tracked) == before
    assert [r.entry.status for r in open_ledger(tracked).entries()][-2:] == ["intended", "undone"]
    promote(tracked, "r1", "staging", settings=FREE)
    assert_whole(tracked, "staging")


@pytest.mark.parametrize("step", ["create_run", "create_model_version", "set_registered_model_alias"])
def test_a_store_that_goes_away_in_the_middle(tracked: Workspace, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """MLflow's database turns into something that is none, at one step of a promotion; then it is back."""
    from mlflow.tracking import MlflowClient

    candidate(tracked)
    database, kept = tracked.root / "mlflow.db", tracked.root / "kept.db"
    original = getattr(MlflowClient, step)

    def gone(client: Any, *arguments: Any, **options: Any) -> Any:
        if database.exists():
            database.rename(kept)
            database.mkdir()
            from tasks.tracking import client_of

            client_of(tracked)._tracking_client.store.engine.dispose()
            client_of(tracked)._get_registry_client().store.engine.dispose()
        return original(client, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, gone)
        with pytest.raises(ValueError, match="does not answer as it should") as caught:
            promote(tracked, "r1", "staging", settings=FREE)
    assert "\n" not in str(caught.value)
    database.rmdir()
    kept.rename(database)
    if step != "set_registered_model_alias":
        promote(tracked, "r1", "staging", settings=FREE)
    else:
        with pytest.raises(ValueError, match="already holds"):
            promote(tracked, "r1", "staging", settings=FREE)
    assert registry(tracked)["aliases"]["r1kit-staging"]
    assert_whole(tracked, "staging")


def test_an_empty_workspace(workspace: Workspace, tmp_path: Path) -> None:
    approver(tmp_path)
    for wrong in (lambda: sign(workspace, tmp_path), lambda: let_in(workspace, tmp_path)):
        with pytest.raises(ValueError, match="no model was made yet, start with `r1 run`"):
            wrong()
    assert collect(workspace, LAST_RUN).items == () and not (workspace.root / "mlflow.db").exists()
