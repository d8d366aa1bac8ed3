"""Entries appended to a finished history as they should be, which tell what is not so."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from tasks import sshsig
from tasks.approvals import NAMESPACE
from tasks.artifacts import canonical_json
from tasks.ledger import Entry, Recorded, open_ledger
from tests.tasks.alterations import Alteration, History
from tests.tasks.finished import ALICE, BOB, CAROL

PAST = datetime(2019, 6, 1, tzinfo=UTC)


def forged(history: History) -> list[Alteration]:
    """Every forged entry."""
    cases = [*_replayed(history), *_wrongly_signed(history), *_wrong_clocks(history), *_untrue(history)]
    return [Alteration("forged", *case) for case in cases]


Case = tuple[str, Callable[[], object], str]


def _append(history: History, entry: Entry) -> Recorded:
    return open_ledger(history.workspace).append(entry)


def _changed(
    history: History, entry: Entry, facts: dict[str, Any] | None = None, **update: Any
) -> Callable[[], object]:
    """Appends an entry with other facts or fields."""
    return partial(_append, history, entry.model_copy(update={**update, "facts": {**entry.facts, **(facts or {})}}))


def _approvals(history: History) -> list[Recorded]:
    return [r for r in history.entries if r.entry.kind == "approval"]


def _replayed(history: History) -> Iterator[Case]:
    """A real approval used for something else."""
    first, second, third = (r.entry for r in _approvals(history))
    for recorded in _approvals(history):
        yield f"approval {recorded.sequence} again", _changed(history, recorded.entry), "replayed"
    production = _changed(history, first, {"environment": "production"})
    yield "for another environment", production, "says environment 'staging', not 'production'"
    yield "by another person", _changed(history, first, {"approver": BOB}), f"approval of {BOB}.*does not hold"
    yield "beside another model", _changed(history, first, inputs=third.inputs), "it stands beside"
    exchanged = _changed(history, first, {"signature": second.facts["signature"]})
    yield "with another's signature", exchanged, "does not match what it should have signed"
    yield "under another list", _changed(history, first, {"approvers": ""}), "the list of approvers of that time"
    yield "with another fingerprint", _changed(history, third, {"key": "SHA256:x"}), "says that the key is SHA256:x"


def _wrongly_signed(history: History) -> Iterator[Case]:
    """Signed with a real key, by somebody who may not, or over what is not so."""
    third = _approvals(history)[-1]

    def case(who: str, **changes: Any) -> Callable[[], object]:
        return lambda: _append(history, _signed(history, third, who, **changes))

    yield "by the submitter", case(ALICE, approver="submitter@example.org"), "does not hold"
    yield "with another's key", case(BOB, approver=ALICE), f"approval of {ALICE}.*does not hold"
    yield "after the key's last day", case(CAROL), f"approval of {CAROL}.*may not sign"
    ledger = {"sequence": 3, "digest": "sha256:" + "0" * 64}
    yield "over another ledger", case(ALICE, ledger=ledger), "signed over another ledger"
    yield "on other bytes", case(ALICE, model_digest="sha256:" + "0" * 64), "says model_digest"
    yield "on other evidence", case(ALICE, evidence_digest="sha256:" + "0" * 64), "says evidence_digest"
    yield "on an unknown model", case(ALICE, model="r1kit-candidate/9"), "which the ledger does not know"


def _wrong_clocks(history: History) -> Iterator[Case]:
    third = _approvals(history)[-1]
    ended = Entry(kind="run", job="recipe", status="done", run=history.entries[0].entry.run)
    future = datetime.now(UTC) + timedelta(days=2)

    def dated(time: datetime, entry: Callable[[], Entry]) -> Callable[[], object]:
        return lambda: _date(history, _append(history, entry()), time)

    revoked = dated(PAST, lambda: _signed(history, third, CAROL, time=PAST.isoformat()))
    yield "a clock set back to when a key was valid", revoked, "a clock was set back"
    early = partial(_signed, history, third, ALICE, time=PAST.isoformat())
    yield "signed long before it was entered", lambda: _append(history, early()), "a clock was set"
    yield "a clock set back", dated(PAST, lambda: ended), "a clock was set back"
    yield "a clock set forward", dated(future, lambda: ended), "has not come yet"


def _untrue(history: History) -> Iterator[Case]:
    """Stages, registrations, promotions and rollbacks that never were."""
    done = [r.entry for r in reversed(history.entries) if r.entry.status in ("ran", "done")]
    stage = next(entry for entry in done if entry.job == "prefer")
    promoted = next(entry for entry in done if entry.kind == "promotion")
    registered = next(entry for entry in reversed(done) if entry.kind == "registration")
    lie = partial(_changed, history)
    yield "a stage with fewer inputs", lie(stage, inputs=stage.inputs[1:]), "stage key is not that"
    yield "a stage with another seed", lie(stage, {"seed": 7}), "stage key is not that"
    yield "a stage with other code", lie(stage, {"code_digest": "sha256:2"}), "stage key is not that"
    yield "a stage with other settings", lie(stage, {"config": {}}), "configuration is not the one"
    yield "a stage after its run's end", lie(stage), "after its end"
    yield "a stage of no run", lie(stage, run="20200101-000000-aaaa"), "has no folder"
    yield "a stage without its MLflow run", lie(stage, {"mlflow_run_id": "0"}), "MLflow run 0 .* is gone"
    reused = stage.model_copy(update={"status": "reused", "outputs": registered.outputs[:1]})
    yield "other outputs reused", lie(reused), "reuses other outputs"
    yield "what nobody made reused", lie(reused, {"key": "sha256:3"}), "reuses what no entry before it made"
    yield "a promotion that nobody intended", lie(promoted, {"intent": 1, "version": "7"}), "nobody intended"
    yield "a promotion of nothing", lie(promoted, {"source": "r1kit-candidate/9"}), "which no entry made"
    other = lie(promoted, outputs=registered.outputs)
    yield "a promotion with another's evidence", other, "is not that of r1kit-candidate"
    yield "a second registration", lie(registered), "a second time"
    yield "a registration of another model", lie(registered, inputs=stage.inputs), "not the model that was to be"
    yield "a second rollback", lie(history.entries[-1].entry), "not to the model that held it before"


def _signed(history: History, like: Recorded, who: str, *, approver: str = "", **changes: Any) -> Entry:
    """An approval like another, signed by somebody's real key over a changed statement."""
    statement = {**json.loads(like.entry.facts["statement"]), "approver": approver or who}
    statement |= {"time": datetime.now(UTC).isoformat(timespec="seconds"), **changes}
    key = sshsig.load_key(history.made.keys[who], lambda: "")
    message = canonical_json(statement)
    facts = {
        **like.entry.facts,
        "approver": approver or who,
        "key": sshsig.fingerprint(sshsig.wire_public_key(key.public_key())),
        "statement": message.decode(),
        "signature": sshsig.sign(message, key, NAMESPACE),
    }
    return like.entry.model_copy(update={"facts": facts})


def _date(history: History, recorded: Recorded, time: datetime) -> None:
    """Give the last entry another time, as a machine with a wrong clock would have written it."""
    file = history.entry_file(recorded.sequence)
    event = json.loads(file.read_bytes())
    event["eventTime"] = time.isoformat(timespec="milliseconds")
    file.write_bytes(canonical_json(event))
