"""The gates in front of an environment. Each gives its figure, its limit and the way out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import sshsig
from tasks.approvals import approvals_of, submitters, valid_approvers
from tasks.artifacts import Artifact, fault
from tasks.evidence import Examined, Scores, read_evaluation, unvalidated
from tasks.ledger import Ledger, Recorded
from tasks.lineage import Environment, ResolvedModel, ancestry, evaluation_of, history, producer
from tasks.signing import signature_fault
from tasks.store import fetch
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from r1kit.config import PromotionConfig
    from r1kit.statistics import Interval


@dataclass(frozen=True)
class Gate:
    """One gate's verdict."""

    name: str
    passed: bool
    figure: str
    """What was found."""
    limit: str = ""
    """What was asked."""
    advice: str = ""
    """The way out."""

    def __str__(self) -> str:
        limit = f", wanted {self.limit}" if self.limit else ""
        return f"{self.name}: {self.figure}{limit}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Question:
    """What the gates look at."""

    workspace: Workspace
    ledger: Ledger
    entries: Sequence[Recorded]
    name: str
    model: ResolvedModel
    to: Environment
    holder: ResolvedModel | None
    """Who has the environment now."""
    settings: "PromotionConfig"
    approvers: Path


def check_gates(question: Question) -> list[Gate]:
    """Every gate's verdict, whether it passes or not."""
    return [
        _origin(question),
        _ledger(question),
        _signature(question),
        *_lineage(question),
        *_evaluation(question),
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
    wrong = next((reason for part in parts if part.path and (reason := fault(part))), None)
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


def _evaluation(question: Question) -> Iterator[Gate]:
    own = _examined(question, question.model.artifact.digest, question.model.evidence)
    if own is None:
        advice = f"evaluate it: `r1 eval {question.model.reference}`"
        yield Gate("evaluation", False, "it was never evaluated", "an evaluation", advice)
        return
    yield Gate("evaluation", True, f"{sum(map(len, own.accuracy.values()))} problems")
    yield from _floors(question, own.accuracy)
    if question.holder is not None:
        yield from _comparison(question, own, question.holder)
    yield from _reward_hacking(question, own)


def _floors(question: Question, scores: Scores) -> Iterator[Gate]:
    for benchmark, floor in sorted(question.settings.floors.items()):
        of_problems = scores.get(benchmark, {})
        limit, advice = f"at least {floor:.3f}", "train longer, or lower promotion.floors in pipeline.yaml"
        if not of_problems:
            figure = f"it was not evaluated on {benchmark}"
            yield Gate("floor", False, figure, limit, f"evaluate it on {benchmark}, or remove that floor")
            continue
        mean = sum(of_problems.values()) / len(of_problems)
        figure = f"pass@1 on {benchmark} is {mean:.3f} (n = {len(of_problems)})"
        yield Gate("floor", mean >= floor, figure, limit, "" if mean >= floor else advice)


def _comparison(question: Question, own: Examined, holder: ResolvedModel) -> Iterator[Gate]:
    """Against the holder, paired by problem: how much worse could it be?"""
    theirs = _examined(question, holder.artifact.digest, holder.evidence)
    differences = _differences(own.accuracy, theirs.accuracy) if theirs else {}
    if not differences:
        why = f"shares no problems with {holder.title}" if theirs else f"{holder.title} was never evaluated"
        yield Gate("comparison", False, why, "a paired difference to the holder", f"run `r1 eval {question.to}`")
    limit = -question.settings.max_regression
    for benchmark, interval in differences.items():
        figure = f"{benchmark}: {_shown(interval)} against {holder.title}"
        passed = interval.low >= limit
        advice = "" if passed else "train longer, or raise promotion.max_regression if that loss is acceptable"
        yield Gate("comparison", passed, figure, f"lower end at least {limit:+.3f}", advice)


def _reward_hacking(question: Question, own: Examined) -> Iterator[Gate]:
    """Against the model it was trained from: the reward models like it better, but it answers worse.

    The alarm that rang while it was trained (`prefer.guard`) refuses it whatever the evaluation says.
    """
    maker = producer(question.entries, question.model.artifact.digest, question.model.run)
    metrics = maker.entry.facts.get("metrics", {}) if maker is not None else {}
    if metrics.get("reward_hacking"):
        yield _alarm(metrics)
    parent = maker.entry.input("model") if maker is not None else None
    theirs = _examined(question, parent.digest, None) if parent is not None else None
    if theirs is None:
        return
    liked = {b: i for b, i in _differences(own.preference, theirs.preference).items() if i.low > 0}
    worse = {b: i for b, i in _differences(own.accuracy, theirs.accuracy).items() if i.high < 0}
    if not liked:
        return
    figure = "; ".join(f"{b}: {_shown(i)}" for b, i in {**liked, **worse}.items()) + " against its parent"
    limit = "no loss of accuracy where the reward models' scores rise"
    advice = "shorten preference RL (prefer.preference_last_steps) or raise prefer.kl_coefficient" if worse else ""
    yield Gate("reward hacking", not worse, figure, limit, advice)


def _alarm(metrics: Mapping[str, float]) -> Gate:
    """The verdict where preference RL rang its alarm (`r1kit.guard.Guard.facts`)."""
    liked, right = (
        f"{metrics[f'first_guard_{name}']:.3f} to {metrics[f'last_guard_{name}']:.3f}"
        for name in ("preference", "accuracy")
    )
    figure = (
        f"the alarm of preference RL rang after step {metrics['reward_hacking_step']:.0f}: on held-out prompts the "
        f"reward models' scores went from {liked}, accuracy from {right}"
    )
    advice = "train again: raise prefer.kl_coefficient, lower prefer.learning_rate or prefer.preference_last_steps"
    return Gate("reward hacking", False, figure, "no alarm", advice)


def _differences(own: Scores, theirs: Scores) -> dict[str, "Interval"]:
    """Per benchmark the mean difference over the problems that both answered, with its 95 % interval."""
    from r1kit.statistics import bootstrap_mean

    found = {}
    for benchmark in sorted(own.keys() & theirs.keys()):
        shared = sorted(own[benchmark].keys() & theirs[benchmark].keys())
        if shared:
            differences = [own[benchmark][problem] - theirs[benchmark][problem] for problem in shared]
            found[benchmark] = bootstrap_mean(differences, "promotion", benchmark)
    return found


def _shown(interval: "Interval") -> str:
    return f"{interval.value:+.3f} (95 % interval {interval.low:+.3f} to {interval.high:+.3f})"


def _examined(question: Question, digest: str, evidence: Artifact | None) -> Examined | None:
    """The latest scores of these bytes: from the ledger, or from the evidence kept beside the copy."""
    found = evaluation_of(question.entries, digest)
    if found is not None and (found[1].path is None or fault(found[1]) is None):
        return read_evaluation(fetch(found[1], question.workspace))
    kept = fetch(evidence, question.workspace) / "evaluation.json" if evidence is not None else None
    return read_evaluation(kept) if kept is not None and kept.exists() else None


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
