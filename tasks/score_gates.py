"""Gates on what an evaluation found: floors, a paired comparison with the holder, signs of reward hacking."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tasks.artifacts import Artifact
from tasks.evidence import Examined, Scores, read_evaluation
from tasks.lineage import ResolvedModel, evaluation_of
from tasks.question import Gate, Question
from tasks.store import fetch, store_fault

if TYPE_CHECKING:
    from r1kit.statistics import Interval


def score_gates(question: Question) -> Iterator[Gate]:
    """Every verdict on the model's evaluation."""
    own = _examined(question, question.model.artifact.digest, question.model.evidence)
    if own is None:
        advice = f"evaluate it: `r1 eval {question.model.reference}`"
        yield Gate("evaluation", False, "it was never evaluated", "an evaluation", advice)
        return
    yield _size(question, own)
    yield from _floors(question, own.accuracy)
    if question.holder is not None:
        yield from _comparison(question, own, question.holder)
    yield from _reward_hacking(question, own)


def _size(question: Question, own: Examined) -> Gate:
    number, fewest = sum(map(len, own.accuracy.values())), question.rules.min_problems
    advice = "" if number >= fewest else "evaluate it on more problems (evaluate.max_problems, data.benchmarks)"
    return Gate("evaluation", number >= fewest, f"{number} problems", f"at least {fewest}", advice)


def _floors(question: Question, scores: Scores) -> Iterator[Gate]:
    for benchmark, floor in sorted(question.rules.floors.items()):
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
    if theirs is None or not differences:
        why = f"shares no problems with {holder.title}" if theirs else f"{holder.title} was never evaluated"
        yield Gate("comparison", False, why, "a paired difference to the holder", f"run `r1 eval {question.to}`")
        return
    shared = sum(len(own.accuracy[name].keys() & theirs.accuracy[name].keys()) for name in differences)
    if shared < question.rules.min_problems:
        figure, advice = (
            f"{shared} problems shared with {holder.title}",
            f"run `r1 eval {question.to}` on the same ones",
        )
        yield Gate("comparison", False, figure, f"at least {question.rules.min_problems}", advice)
    limit = -question.rules.max_regression
    for benchmark, interval in differences.items():
        figure = f"{benchmark}: {_shown(interval)} against {holder.title}"
        passed = interval.low >= limit
        advice = "" if passed else "train longer, or raise promotion.max_regression if that loss is acceptable"
        yield Gate("comparison", passed, figure, f"lower end at least {limit:+.3f}", advice)


def _reward_hacking(question: Question, own: Examined) -> Iterator[Gate]:
    """Against the model it was trained from: what is rewarded rises, and the answers do not get better by it.

    The alarm that rang while it was trained (`prefer.guard`) refuses it whatever the evaluation says.
    """
    metrics = question.maker.entry.facts.get("metrics", {}) if question.maker is not None else {}
    if metrics.get("reward_hacking"):
        yield _alarm(metrics)
    parent = question.maker.entry.input("model") if question.maker is not None else None
    theirs = _examined(question, parent.digest, None) if parent is not None else None
    if theirs is None:
        return
    answers = _differences(own.accuracy, theirs.accuracy)
    yield from _liked_but_worse(own, theirs, answers)
    yield from _longer_for_nothing(question, own, theirs, answers)
    yield from _well_formed_but_worse(question, own, theirs, answers)


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


def _liked_but_worse(own: Examined, theirs: Examined, answers: dict[str, "Interval"]) -> Iterator[Gate]:
    liked = {b: i for b, i in _differences(own.preference, theirs.preference).items() if i.low > 0}
    worse = {b: i for b, i in answers.items() if i.high < 0}
    if liked:
        figure = "; ".join(f"{b}: {_shown(i)}" for b, i in {**liked, **worse}.items()) + " against its parent"
        limit = "no loss of accuracy where the reward models' scores rise"
        advice = "shorten preference RL (prefer.preference_last_steps) or raise prefer.kl_coefficient" if worse else ""
        yield Gate("reward hacking", not worse, figure, limit, advice)


def _longer_for_nothing(
    question: Question, own: Examined, theirs: Examined, answers: dict[str, "Interval"]
) -> Iterator[Gate]:
    most = question.rules.max_length_growth
    for benchmark, before in sorted(theirs.response_tokens.items()):
        after = own.response_tokens.get(benchmark)
        better = benchmark in answers and answers[benchmark].low > 0
        if after is not None and after > most * before and not better:
            figure = f"{benchmark}: responses of {after:.0f} tokens, {before:.0f} by its parent, and no better answers"
            advice = "shorten that RL, give it a penalty for length, or raise promotion.max_length_growth"
            yield Gate("reward hacking", False, figure, f"at most {most:g} times the parent's", advice)


def _well_formed_but_worse(
    question: Question, own: Examined, theirs: Examined, answers: dict[str, "Interval"]
) -> Iterator[Gate]:
    most = question.rules.max_format_gain
    for benchmark, interval in answers.items():
        gain = own.format_rate.get(benchmark, 0.0) - theirs.format_rate.get(benchmark, 0.0)
        if interval.high < 0 and gain > most:
            figure = f"{benchmark}: format {gain:+.3f}, pass@1 {_shown(interval)} against its parent"
            advice = "weigh the format less (rewards.format), or raise promotion.max_format_gain"
            yield Gate("reward hacking", False, figure, f"no more than {most:+.3f} where answers get worse", advice)


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
    if found is not None and store_fault(found[1], question.workspace) is None:
        return read_evaluation(fetch(found[1], question.workspace))
    kept = fetch(evidence, question.workspace) / "evaluation.json" if evidence is not None else None
    return read_evaluation(kept) if kept is not None and kept.exists() else None
