"""The gates in front of an environment. Each gives its figure, its limit and the way out."""

from collections.abc import Iterator
from datetime import UTC, datetime

from tasks import sshsig
from tasks.approvals import approvals_of, submitters, valid_approvers
from tasks.evidence import is_exact, unvalidated
from tasks.lineage import Ancestry, ancestry, history, origin
from tasks.question import Gate, Question
from tasks.reach import alive
from tasks.score_gates import score_gates
from tasks.signing import signature_fault
from tasks.store import fetch, store_fault


def check_gates(question: Question) -> list[Gate]:
    """Every gate's verdict, whether it passes or not."""
    return [
        _origin(question),
        _ledger(question),
        _signature(question),
        *_lineage(question),
        *_time_in_staging(question),
        *score_gates(question),
        _approvals(question),
    ]


def _origin(question: Question) -> Gate:
    """Staging takes candidates, production what staging holds."""
    model, came_from = question.model, question.model.environment
    if question.to == "staging":
        advice = "" if came_from == "candidate" else f"name the candidate, not {model.title}"
        return Gate("source", came_from == "candidate", f"it comes from {came_from}", "a candidate", advice)
    stack = history(question.entries, question.name, "staging")
    held = (stack[-1].entry.facts["name"], stack[-1].entry.facts["version"]) if stack else None
    passed = held == (model.name, model.version)
    came_from = "staging, which holds another model now" if came_from == "staging" and not passed else came_from
    advice = "" if passed else f"promote it to staging first: `r1 promote {model.reference} --to staging`"
    return Gate("source", passed, f"it comes from {came_from}", "the model that staging holds", advice)


def _ledger(question: Question) -> Gate:
    faults = question.ledger.verify()
    if faults:
        advice = "restore the ledger from a backup, nothing can be proved with this one"
        return Gate("ledger", False, faults[0], "an unbroken chain", advice)
    return Gate("ledger", True, f"{len(question.entries)} entries, chain unbroken")


def _signature(question: Question) -> Gate:
    model = question.model
    advice = "restore the bytes from a backup, or make and register the model again with `r1 run`"
    parts = [part for part in (model.artifact, model.signature, model.evidence) if part is not None]
    wrong = next((reason for part in parts if (reason := store_fault(part, question.workspace))), None)
    if wrong is None and model.signature is not None:
        place, signature = (fetch(part, question.workspace) for part in (model.artifact, model.signature))
        wrong = signature_fault(place, signature, question.workspace)
    elif wrong is None:
        wrong = "there is none"
    if wrong:
        return Gate("signature", False, wrong, "the workspace's signature over exactly these bytes", advice)
    return Gate("signature", True, "bytes and signature hold")


def _lineage(question: Question) -> Iterator[Gate]:
    behind = ancestry(question.entries, question.model.artifact, question.model.run)
    missing = [f"{artifact.kind} {artifact.digest[:19]}…" for artifact in behind.missing]
    if missing:
        figure = f"nothing says where {', '.join(missing)} came from"
        yield Gate("lineage", False, figure, "every step back to the data", "run the recipe again with `r1 run`")
    else:
        yield Gate("lineage", True, f"{len(behind.steps)} steps back to the data")
    unseen = [f"{artifact.kind} {artifact.digest[:19]}…" for artifact in unvalidated(question.entries, behind)]
    if unseen:
        figure = f"trained on {', '.join(unseen)}, which no validation let through"
        yield Gate("data", False, figure, "a verdict on exactly these bytes", "run `r1 run`, which validates them")
    else:
        yield Gate("data", True, "every data set was validated as the same bytes")
    yield from _kept(question, behind)
    yield from _stages(question, behind)


def _kept(question: Question, behind: Ancestry) -> Iterator[Gate]:
    """Nothing of the lineage may have been deleted: what cannot be shown proves nothing."""
    there = alive(question.entries)
    outputs = [(step, edge.artifact) for step in behind.steps for edge in step.entry.outputs]
    gone = [f"{artifact.kind} of {step.entry.job}" for step, artifact in outputs if not there[artifact.digest]]
    if gone:
        figure = f"`r1 gc` deleted {', '.join(gone)}"
        yield Gate("lineage", False, figure, "all of it in the store", "run `r1 run`, which makes it anew")


def _stages(question: Question, behind: Ancestry) -> Iterator[Gate]:
    """What the configuration asks of the stages in the lineage."""
    rules, jobs = question.rules, [step.entry.job for step in behind.steps]
    left_out = [stage for stage in rules.stages if stage not in jobs]
    if rules.stages:
        figure = f"without {', '.join(left_out)}" if left_out else f"with {', '.join(rules.stages)}"
        advice = "run the recipe with these stages (stages.* in pipeline.yaml), or shorten promotion.stages"
        limit = f"a lineage with {', '.join(rules.stages)}"
        yield Gate("stages", not left_out, figure, limit, advice if left_out else "")
    metrics = [(step, origin(question.entries, step).entry.facts.get("metrics", {})) for step in behind.steps]
    moved = [step.entry.job for step, found in metrics if not is_exact(found)]
    if rules.exact:
        figure = f"{', '.join(moved)} went on elsewhere than begun" if moved else "no stage went on elsewhere"
        advice = "run these stages again on one machine, or set promotion.exact to false"
        yield Gate("exact", not moved, figure, "stages that can be made again to the bit", advice if moved else "")
    limits = {str(sign): steps for sign, steps in rules.alarms.items()}
    for step, found in metrics:
        for name, steps in sorted(found.items()):
            sign = name.rpartition("longest_watch_")[2]
            if "longest_watch_" in name and sign in limits and steps >= limits[sign]:
                figure = f"{step.entry.job} trained through {steps:.0f} steps with the sign {sign}"
                advice = f"train it again with watch.{sign}_steps set, or raise promotion.alarms.{sign}"
                yield Gate("alarm", False, figure, f"fewer than {limits[sign]} in a row", advice)


def _time_in_staging(question: Question) -> Iterator[Gate]:
    hours = question.settings.min_staging_hours
    if question.to != "production" or not hours:
        return
    full_name = f"{question.name}-staging"
    came = [r.time for r in question.entries if r.entry.status == "done" and r.entry.facts.get("name") == full_name]
    spent = (datetime.now(UTC) - datetime.fromisoformat(came[-1])).total_seconds() / 3600 if came else 0.0
    figure, advice = f"staging has had it for {spent:.2f} hours", "wait, or lower promotion.min_staging_hours"
    yield Gate("time", spent >= hours, figure, f"at least {hours:g}", "" if spent >= hours else advice)


def _approvals(question: Question) -> Gate:
    wanted = {str(place): count for place, count in question.settings.approvals.items()}.get(question.to, 1)
    limit = f"{wanted} by others than {', '.join(sorted(submitters(question.entries, question.model)))}"
    if wanted == 0:
        return Gate("approvals", True, "none asked")
    advice = f"have an approver run `r1 approve {question.model.reference} --to {question.to} --as NAME`"
    try:
        signers = sshsig.read_allowed_signers(question.approvers)
    except ValueError as error:
        return Gate("approvals", False, str(error), limit, advice)
    found = approvals_of(question.entries, question.model, signers, question.name)
    names = valid_approvers(found, question.to)
    refused = [f"{a.approver}'s does not count: {a.fault}" for a in found if a.fault and a.environment == question.to]
    figure = f"{len(names)} valid approvals for {question.to}" + (f" ({', '.join(names)})" if names else "")
    passed = len(names) >= wanted
    return Gate(
        "approvals",
        passed,
        "; ".join([figure, *([] if passed else refused)]),
        limit,
        "" if passed else advice,
    )
