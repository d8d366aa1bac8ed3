"""The verdict of a run in a sentence, and what a careful reader should look at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.evidence import is_exact
from tasks.report.facts import STAGE_TITLES, Run, model_title, stage_title
from tasks.report.words import percent, points

_MOST_LENGTH_BIAS = 0.1
"""A reward model that scores longer responses higher so much oftener, or seldomer, than people do, is called out."""


@dataclass(frozen=True)
class Verdict:
    """The header's words."""

    good: bool
    headline: str
    detail: str


@dataclass(frozen=True)
class Finding:
    """Something to look at."""

    serious: bool
    where: str
    words: str


def verdict(run: Run) -> Verdict:
    """Did the run finish, and is its last model better than its first."""
    failed = [stage for stage in run.stages if stage.status == "failed"]
    if failed:
        return Verdict(False, f"The run stopped at {stage_title(failed[0])}", failed[0].error or "See its log.")
    if run.summary.status in ("failed", "interrupted"):
        return Verdict(False, f"The run was {run.summary.status}".replace("was failed", "failed"), run.summary.error)
    scored = {model: share for model, document in run.evaluations.items() if (share := accuracy(document)) is not None}
    final = next((model for model in ("r1", "dev3", "dev2", "dev1", "zero") if model in scored), None)
    if final is None or "base" not in scored:
        return Verdict(True, "The run finished", "No model was compared with its base.")
    gain = difference(run, final, "base")
    headline = (
        f"{model_title(final)} answers {percent(scored[final])} of the held‑out problems, "
        f"its base {percent(scored['base'])}"
    )
    if gain is None:
        return Verdict(True, headline, "The two were not examined on the same problems.")
    value, low, high = gain
    sure = low > 0 or high < 0
    detail = f"{points(value)}, 95 % interval {points(low)} to {points(high)}, problem by problem" + (
        "." if sure else ": no difference that this many problems could show."
    )
    return Verdict(low > 0, headline, detail)


def accuracy(document: Mapping[str, Any]) -> float | None:
    """Overall pass@1 of an evaluation."""
    figure = (document.get("overall") or {}).get("pass_at_1")
    return None if not figure else float(figure["value"])


def difference(run: Run, first: str, second: str) -> tuple[float, float, float] | None:
    """Paired difference of two models and its 95 % interval; None where they saw different problems."""
    from r1kit.statistics import bootstrap_mean

    ours, theirs = _scores(run.evaluations.get(first)), _scores(run.evaluations.get(second))
    if not ours or ours.keys() != theirs.keys():
        return None
    gain = bootstrap_mean([ours[name] - theirs[name] for name in sorted(ours)], "paired")
    return gain.value, gain.low, gain.high


def _scores(document: Mapping[str, Any] | None) -> dict[str, float]:
    if not document:
        return {}
    ruled = {name for name, scores in document["benchmarks"].items() if scores.get("pass_at_1")}
    return {row["id"]: float(row["score"]) for row in document["problems"] if row["benchmark"] in ruled}


def findings(run: Run) -> list[Finding]:
    """Signs of trouble, the serious ones first."""
    found = [
        *_failures(run), *_accuracy_signs(run), *_training_signs(run), *_reward_model_signs(run), *_hacking(run),
        *_inexact(run),
    ]  # fmt: skip
    return sorted(found, key=lambda finding: not finding.serious)


def _failures(run: Run) -> Iterator[Finding]:
    for stage in run.stages:
        if stage.status == "failed":
            yield Finding(True, stage_title(stage), stage.error or "failed")


def _inexact(run: Run) -> Iterator[Finding]:
    for stage in run.stages:
        if not is_exact(stage.metrics):
            words = "It went on in other surroundings (threads, versions, machine): not claimed to be bit-exact."
            yield Finding(False, stage_title(stage), words)


def _accuracy_signs(run: Run) -> Iterator[Finding]:
    for model, before, words in (
        ("zero", "base", "RL from base did not pay"),
        ("r1", "zero", "the recipe lost to RL alone"),
        ("r1", "dev3", "preference RL cost accuracy, a sign of reward hacking if its preference score rose"),
    ):
        gain = difference(run, model, before)
        if gain and gain[2] < 0:
            title = f"{model_title(model)} is below {model_title(before)}"
            yield Finding(True, title, f"{points(gain[0])} on the same problems: {words}.")
    for model, document in run.evaluations.items():
        cut = (document.get("overall") or {}).get("truncated_share") or 0.0
        if cut > 0.2:
            words = f"{percent(cut)} of its answers hit the token limit: raise evaluate.sampling.max_tokens."
            yield Finding(cut > 0.5, f"{model_title(model)} is cut short", words)


def _hacking(run: Run) -> Iterator[Finding]:
    for stage in run.stages:
        found = stage.metrics
        if found.get("reward_hacking"):
            liked, right = (
                f"from {percent(found[f'first_guard_{name}'])} to {percent(found[f'last_guard_{name}'])}"
                for name in ("preference", "accuracy")
            )
            words = (
                f"The alarm rang after step {found['reward_hacking_step']:.0f}: from where the reward models began to "
                f"count to the end, their score on held-out prompts went {liked}, verified accuracy {right}. "
                "No promotion lets this model through."
            )
            yield Finding(True, f"{stage_title(stage)} hacks its reward models", words)


def _training_signs(run: Run) -> Iterator[Finding]:
    limits = (
        (
            "truncated_share",
            0.5,
            "of the samples hit the token limit in the last steps: raise sampling.max_tokens.",
        ),
        (
            "zero_variance_share",
            0.9,
            "of the groups had no variance in the last steps: nothing was learned from them.",
        ),
    )
    for stage, curves in run.curves.items():
        last = {curve.metric: _last(curve.points) for curve in curves}
        for metric, limit, words in limits:
            if last.get(metric, 0.0) > limit:
                yield Finding(True, STAGE_TITLES.get(stage, stage), f"{percent(last[metric], 0)} {words}")
        if last.get("kl", 0.0) > 1.0:
            words = f"The policy is {last['kl']:.2f} nats a token off its reference: lower learning_rate."
            yield Finding(False, STAGE_TITLES.get(stage, stage), words)


def _last(points_: Any) -> float:
    tail = [value for _, value in points_[-max(1, len(points_) // 10) :]]
    return sum(tail) / len(tail)


def _reward_model_signs(run: Run) -> Iterator[Finding]:
    for kind, metrics in reward_model_figures(run).items():
        title = f"The {kind} reward model"
        length = max(metrics.get("length_agreement", 0.5), 1 - metrics.get("length_agreement", 0.5))
        if length >= metrics["agreement"] - 0.02 and length > 0.6:
            words = (
                f"agrees with {percent(metrics['agreement'])} of the held-out pairs, but the length of the "
                f"responses alone predicts {percent(length)}: it may have learned no more than length."
            )
            yield Finding(False, title, words)
        if abs(metrics.get("length_bias", 0.0)) > _MOST_LENGTH_BIAS:
            words = (
                f"scores the longer response higher in {percent(metrics['longer_scored_higher'])} of the held-out "
                f"pairs, where people prefer it in {percent(metrics['longer_preferred'])}: it is biased by length."
            )
            yield Finding(False, title, words)
        if metrics.get("heldout_unseen_share", 1.0) < 0.5:
            unseen = percent(metrics["heldout_unseen_share"], 0)
            words = f"was measured on pairs of which only {unseen} were not trained on."
            yield Finding(False, title, words)


def reward_model_figures(run: Run) -> dict[str, dict[str, float]]:
    """Kind → its held-out figures."""
    stages = (stage for stage in run.stages if stage.stage == "reward_models" and "agreement" in stage.metrics)
    return {stage.variant: {n: v for n, v in stage.metrics.items() if v is not None} for stage in stages}
