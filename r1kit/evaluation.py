"""Evaluation: pass@1 with its interval, cons@k, length, format, language and reflection rates."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1kit import chat, parallel, random
from r1kit.engine import Log
from r1kit.rewards import Verdict, language_share
from r1kit.rows import Language, Problem
from r1kit.sampler import Completion, SamplingConfig, sample
from r1kit.schema import Section
from r1kit.statistics import Interval, bootstrap_mean, clustered_share

ONE_LANGUAGE_SHARE = 0.98
"""A chain is in one language where at least this share of its words is in the prompt's."""
# The words that the R1 paper counts as reflective (arXiv 2501.12948v2, supplementary C.2), but for "but" and
# "however", which are as often plain conjunctions; and their Chinese counterparts.
_REFLECTION = re.compile(
    r"\b(?:wait|mistakes?|retry|errors?|verify|wrong|evaluate|(?:re)?check)\b|等等|等一下|检查|验证|错误|重新|不对",
    re.IGNORECASE,
)


class EvaluationConfig(Section):
    """How a model is examined. Temperature and top-p are the paper's (arXiv 2501.12948, section 3)."""

    samples_per_problem: int = Field(default=1, gt=0)
    """k: completions a problem; pass@1 is their mean."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, top_p=0.95, max_tokens=32768)
    """How answers are drawn."""
    max_problems: int | None = Field(default=None, gt=0)
    """First so many problems of each benchmark."""
    batch_size: int = Field(default=64, gt=0)
    """Completions sampled together."""
    transcripts: int = Field(default=3, ge=0)
    """Completions of each benchmark kept word for word."""


class Scores(Section):
    """What a model showed on some problems."""

    n: int
    """Problems."""
    k: int
    """Completions of each."""
    pass_at_1: Interval | None
    """Mean over completions; the interval is over problems. None for prompts that no rule can check."""
    cons_at_k: Interval | None
    """Share of problems whose most frequent answer is right; None at k = 1 or without comparable answers."""
    preference: Interval | None
    """Mean score by the reward models, for prompts that no rule can check."""
    response_tokens: float
    """Mean length of a completion."""
    truncated_share: float
    """Completions cut at the limit."""
    format_rate: float
    """One think block followed by one answer block, and nothing else."""
    thinking_rate: float
    """Completions with a chain that is not empty."""
    language_rate: float | None
    """Mean share of a chain's words in the prompt's language; None without any chain."""
    one_language_rate: float | None
    """Share of chains that keep to the prompt's language; None without any chain."""
    reflection_rate: float
    """Completions whose chain holds a reflective word (wait, check, verify, mistake …)."""
    tokens: int
    """All tokens of the completions."""


class ProblemScore(Section):
    """One problem's outcome, for pairing models."""

    id: str
    benchmark: str
    score: float
    """Mean over completions: share that is right, or mean preference."""
    consensus: bool | None = None
    """Whether the most frequent answer is right."""


class Transcript(Section):
    """One completion, word for word. It is a model's output: escape it wherever it is shown."""

    problem: str
    """Id of the problem."""
    benchmark: str
    prompt: str
    gold: str
    """The right answer, where there is one."""
    completion: str
    opens_think: bool
    """Whether the chat template had already opened the think block."""
    score: float
    reason: str
    """The verifier's words."""
    tokens: int
    finished: bool


class Evaluation(Section):
    """All that one examination of one model found."""

    model: str
    seed: int
    config: EvaluationConfig
    overall: Scores
    """Over all problems that a rule can check; over all, where no rule can check any."""
    benchmarks: dict[str, Scores]
    problems: tuple[ProblemScore, ...]
    transcripts: tuple[Transcript, ...]
    seconds: float
    """Wall clock of sampling and checking."""
    seconds_per_million_tokens: float
    """Cost of sampled tokens on this machine."""

    def metrics(self) -> dict[str, float]:
        """The figures by flat names: `pass_at_1`, `chain_sum/pass_at_1_low`, …; what is None is left out."""
        result = _flat(self.overall, "")
        for name, scores in self.benchmarks.items():
            result |= _flat(scores, f"{name}/")
        cost = {"seconds": self.seconds, "seconds_per_million_tokens": self.seconds_per_million_tokens}
        return result | cost


class Pool(Protocol):
    """What verifies completions (`r1kit.rewards.VerifierPool`)."""

    def verify(
        self, problems: Sequence[Problem], completions: Sequence[str], opens_think: bool = False
    ) -> Sequence[Verdict]:
        """One verdict a completion, whatever becomes of the checking."""
        ...


Preference = Callable[[Sequence[Problem], Sequence[str]], Sequence[float]]
"""Scores completions of prompts that no rule can check."""


@dataclass(frozen=True)
class _Result:
    """A problem with all that was sampled for it."""

    problem: Problem
    completions: Sequence[Completion]
    scores: Sequence[float]
    reasons: Sequence[str]
    opens_think: bool

    @property
    def verifiable(self) -> bool:
        return self.problem.verifier != "none"

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    pool: Pool,
    config: EvaluationConfig,
    *,
    seed: int,
    name: str = "",
    log: Log = lambda step, total, metrics: None,
    preference: Preference | None = None,
    system: str | None = None,
) -> Evaluation:
    """Examine a model on held-out problems; several processes share them.

    What is drawn for a problem depends on (seed, problem id, sample) alone, so two models face the same luck.

    Args:
        problems: rows whose `benchmark` names their set. Prompts without a verifier are scored by
            `preference`, and left out where that is not given.
        pool: verifies the rest.
        name: the model's, for people.
        log: called with (completions sampled, all completions, {}).

    Raises:
        ValueError: where no problem is left.
    """
    chosen = _choose(problems, config.max_problems, general=preference is not None)
    started = time.perf_counter()
    own = parallel.mine(chosen)
    groups = sample(
        model,
        tokenizer,
        [chat.prompt_ids(tokenizer, problem.prompt, system) for problem in own],
        config.samples_per_problem,
        config.sampling,
        seed=seed,
        prompt_keys=[random.derive_seed(problem.id) for problem in own],
        batch_size=config.batch_size,
        progress=lambda done, total: log(done, total, {}),
    )
    results = parallel.collect(_verify(own, groups, pool, preference, chat.opens_think(tokenizer)))
    seconds = time.perf_counter() - started
    verifiable = [result for result in results if result.verifiable]
    by_benchmark: dict[str, list[_Result]] = {}
    for result in results:
        by_benchmark.setdefault(_benchmark(result.problem), []).append(result)
    tokens = sum(len(completion.token_ids) for result in results for completion in result.completions)
    return Evaluation(
        model=name,
        seed=seed,
        config=config,
        overall=summarise(verifiable or results),
        benchmarks={title: summarise(rows) for title, rows in sorted(by_benchmark.items())},
        problems=tuple(_problem_score(result) for result in results),
        transcripts=tuple(
            _transcript(result) for rows in by_benchmark.values() for result in rows[: config.transcripts]
        ),
        seconds=seconds,
        seconds_per_million_tokens=1e6 * seconds / max(1, tokens),
    )


def _benchmark(problem: Problem) -> str:
    return problem.benchmark or problem.source


def _choose(problems: Sequence[Problem], limit: int | None, general: bool) -> list[Problem]:
    """First `limit` problems of each benchmark, in their order."""
    seen: Counter[str] = Counter()
    chosen: list[Problem] = []
    for problem in problems:
        seen[_benchmark(problem)] += 1
        if (limit is None or seen[_benchmark(problem)] <= limit) and (general or problem.verifier != "none"):
            chosen.append(problem)
    if not chosen:
        raise ValueError(
            f"none of {len(problems)} benchmark rows can be scored: give problems with a verifier, or reward models"
        )
    return chosen


def _verify(
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Completion]],
    pool: Pool,
    preference: Preference | None,
    opens_think: bool,
) -> list[_Result]:
    """Verdicts for all completions: rules where there is one, reward models elsewhere."""
    flat = [(problem, completion.text) for problem, group in zip(problems, groups, strict=True) for completion in group]
    ruled = [pair for pair in flat if pair[0].verifier != "none"]
    judged = [pair for pair in flat if pair[0].verifier == "none"]
    verdicts = iter(pool.verify([p for p, _ in ruled], [text for _, text in ruled], opens_think) if ruled else ())
    preferences = iter(
        preference([p for p, _ in judged], [text for _, text in judged]) if judged and preference else ()
    )
    results: list[_Result] = []
    for problem, group in zip(problems, groups, strict=True):
        if problem.verifier == "none":
            scores = [float(next(preferences)) for _ in group]
            reasons = ["judged by the reward model"] * len(group)
        else:
            found = [next(verdicts) for _ in group]
            scores = [float(verdict.score >= 1) for verdict in found]
            reasons = [verdict.reason for verdict in found]
        results.append(_Result(problem, group, scores, reasons, opens_think))
    return results


def consensus(answers: Sequence[str | None], scores: Sequence[float]) -> bool | None:
    """Whether the most frequent answer is right (cons@k, arXiv 2501.12948, section 3).

    Args:
        answers: each completion's final answer, None where it gave none. Of equally frequent answers the one
            given first counts.
        scores: 1 where that completion was verified right.

    Returns:
        None at k = 1; False where no completion gave an answer.
    """
    if len(answers) < 2:
        return None
    spelled = [None if answer is None else " ".join(answer.casefold().split()) for answer in answers]
    votes = Counter(answer for answer in spelled if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return scores[spelled.index(winner)] >= 1


def _consensus(result: _Result) -> bool | None:
    """cons@k of one problem; programs and free text cannot be put to a vote."""
    if result.problem.verifier in ("code", "debug", "none"):
        return None
    answers = [chat.final_answer(completion.text, result.opens_think) for completion in result.completions]
    return consensus(answers, result.scores)


def summarise(results: Sequence[_Result]) -> Scores:
    """The figures over some problems."""
    completions = [completion for result in results for completion in result.completions]
    parsed = [chat.parse(c.text, result.opens_think) for result in results for c in result.completions]
    languages: list[Language] = [result.problem.language for result in results for _ in result.completions]
    chains: list[tuple[str, Language]] = [
        (p.think, language) for p, language in zip(parsed, languages, strict=True) if p.think and p.think.strip()
    ]
    shares = [language_share(think, language) for think, language in chains]
    k = max(len(result.completions) for result in results)
    ruled = [result for result in results if result.verifiable]
    judged = [result for result in results if not result.verifiable]
    votes = [float(vote) for vote in map(_consensus, ruled) if vote is not None]
    tokens = sum(len(completion.token_ids) for completion in completions)
    return Scores(
        n=len(results),
        k=k,
        pass_at_1=clustered_share([result.mean for result in ruled], k) if ruled else None,
        cons_at_k=clustered_share(votes, 1) if votes else None,
        preference=bootstrap_mean([result.mean for result in judged]) if judged else None,
        response_tokens=tokens / len(completions),
        truncated_share=_share([not completion.finished for completion in completions]),
        format_rate=_share([p.well_formed for p in parsed]),
        thinking_rate=len(chains) / len(completions),
        language_rate=sum(shares) / len(shares) if shares else None,
        one_language_rate=_share([share >= ONE_LANGUAGE_SHARE for share in shares]) if shares else None,
        reflection_rate=sum(bool(_REFLECTION.search(think)) for think, _ in chains) / len(completions),
        tokens=tokens,
    )


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _problem_score(result: _Result) -> ProblemScore:
    return ProblemScore(
        id=result.problem.id,
        benchmark=_benchmark(result.problem),
        score=result.mean,
        consensus=_consensus(result) if result.verifiable else None,
    )


def _transcript(result: _Result) -> Transcript:
    completion = result.completions[0]
    return Transcript(
        problem=result.problem.id,
        benchmark=_benchmark(result.problem),
        prompt=result.problem.prompt,
        gold=result.problem.answer,
        completion=completion.text,
        opens_think=result.opens_think,
        score=result.scores[0],
        reason=result.reasons[0],
        tokens=len(completion.token_ids),
        finished=completion.finished,
    )


def _flat(scores: Scores, prefix: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, value in scores:
        if isinstance(value, Interval):
            result[f"{prefix}{name}"] = value.value
            result[f"{prefix}{name}_low"] = value.low
            result[f"{prefix}{name}_high"] = value.high
        elif value is not None:
            result[f"{prefix}{name}"] = float(value)
    return result


def paired_difference(first: Evaluation, second: Evaluation, benchmark: str | None = None) -> Interval:
    """How much better the first model is than the second, problem by problem.

    Bootstrap over the problems' differences of mean score: problems both find hard cancel out, so it sees
    smaller differences than two separate intervals do.

    Args:
        benchmark: only this one; None means all that rules check, or all where rules check none.

    Raises:
        ValueError: where the two were not examined on the same problems.
    """
    ours, theirs = _scores(first, benchmark), _scores(second, benchmark)
    if ours.keys() != theirs.keys() or not ours:
        where = f" of {benchmark}" if benchmark else ""
        raise ValueError(
            f"{first.model or 'the first model'} and {second.model or 'the second'} were not examined on the "
            f"same problems{where} ({len(ours)} and {len(theirs)}): evaluate both on the same benchmarks"
        )
    return bootstrap_mean([ours[name] - theirs[name] for name in sorted(ours)], "paired")


def _scores(evaluation: Evaluation, benchmark: str | None) -> Mapping[str, float]:
    ruled = {name for name, scores in evaluation.benchmarks.items() if scores.pass_at_1 is not None}
    wanted = {benchmark} if benchmark else (ruled or set(evaluation.benchmarks))
    return {problem.id: problem.score for problem in evaluation.problems if problem.benchmark in wanted}
