"""Rejection sampling: many samples a prompt, kept only if correct, readable and in one language."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from r1kit import chat
from r1kit.rewards import Verdict, readable
from r1kit.rows import Problem, SftRow
from r1kit.sampler import Completion, SamplingConfig
from r1kit.schema import Section


class RejectionConfig(Section):
    """How the curated set is drawn from Dev2."""

    prompts: int = Field(default=100_000, gt=0)
    """Problems to sample for."""
    samples_per_prompt: int = Field(default=16, gt=0)
    """Completions a problem."""
    keep_per_prompt: int = Field(default=4, gt=0)
    """Most kept a problem."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=32768)
    """How they are drawn."""
    batch_size: int = Field(default=256, gt=0)
    """Completions sampled together."""


class Decision(Section):
    """What became of one sample: the audit trail of the curated set, one entry a completion."""

    row: str
    """`<prefix>/<problem>@<checkpoint>/<sample>`; the id of the curated row where it was kept."""
    problem: str
    checkpoint: str
    """Digest of the model that was sampled."""
    sample: int
    """Number of the sample within its problem."""
    verifier: str
    score: float
    kept: bool
    reason: str
    """Why it was dropped: `wrong`, `cut`, `format`, `unreadable: …`, `duplicate`, `contaminated: …` or
    `surplus`; the verifier's words where it was kept."""


@dataclass(frozen=True)
class Selection:
    """The curated rows and the trail of every sample."""

    rows: list[SftRow]
    decisions: list[Decision]
    resumed_elsewhere: int = 0
    """How often sampling went on in other surroundings: then it is not claimed to be that of one uninterrupted run."""

    def counts(self) -> dict[str, int]:
        """Samples by what became of them: `kept`, or the first word of the reason."""
        return dict(Counter("kept" if d.kept else d.reason.split(":")[0] for d in self.decisions).most_common())

    def metrics(self) -> dict[str, float]:
        """Shares of samples kept and right, of problems with a kept row, and the number of rows."""
        solved = {decision.problem for decision in self.decisions if decision.kept}
        problems = {decision.problem for decision in self.decisions}
        total = max(1, len(self.decisions))
        return {
            "rows": float(len(self.rows)),
            "samples": float(len(self.decisions)),
            "correct_share": sum(decision.score >= 1 for decision in self.decisions) / total,
            "kept_share": len(self.rows) / total,
            "problems": float(len(problems)),
            "problems_kept_share": len(solved) / max(1, len(problems)),
            "resumed_elsewhere": float(self.resumed_elsewhere),
        } | {f"dropped_{name}": float(count) for name, count in self.counts().items() if name != "kept"}


def write_decisions(path: Path, decisions: Sequence[Decision]) -> None:
    """One line of JSON a sample."""
    path.write_text("".join(decision.model_dump_json() + "\n" for decision in decisions))


def select(
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Completion]],
    verdicts: Sequence[Verdict],
    *,
    keep_per_prompt: int,
    checkpoint: str,
    prefix: str = "reject",
    opens_think: bool = False,
    contaminated: Callable[[str], str | None] = lambda text: None,
) -> Selection:
    """Keep the samples worth learning from (arXiv 2501.12948, section 2.3.3).

    A kept one is right, finished, well-formed, readable, in one language, unlike the others of its problem
    and free of benchmark text. Where more are left than `keep_per_prompt`, those drawn first stay: any other
    choice (the shortest, say) would shift the distribution.

    Args:
        groups: each problem's samples.
        verdicts: of all samples, problem after problem.
        checkpoint: digest of the model that was sampled; every kept row's id names it.
        prefix: first part of the rows' ids, and their source.
        contaminated: says what benchmark a text overlaps with, or None.
    """
    if len(verdicts) != sum(map(len, groups)) or len(problems) != len(groups):
        raise ValueError(f"{len(groups)} groups and {len(verdicts)} verdicts for {len(problems)} problems do not match")
    rows: list[SftRow] = []
    decisions: list[Decision] = []
    remaining = iter(verdicts)
    for problem, group in zip(problems, groups, strict=True):
        seen: set[str] = set()
        for number, completion in enumerate(group):
            verdict = next(remaining)
            name = f"{prefix}/{problem.id}@{_short(checkpoint)}/{number}"
            reason = _fault(problem, completion, verdict, opens_think)
            text = _canonical(completion.text, opens_think) if not reason else ""
            reason = reason or _set_fault(text, seen, keep_per_prompt, contaminated)
            if not reason:
                seen.add(_spaceless(text))
                rows.append(_row(problem, name, prefix, text))
            decisions.append(_decision(name, problem, checkpoint, number, verdict, reason))
    return Selection(rows, decisions)


def _fault(problem: Problem, completion: Completion, verdict: Verdict, opens_think: bool) -> str:
    """Why a sample is not worth learning from, looked at alone; empty if it is."""
    if not completion.finished:
        return "cut"
    if verdict.score < 1:
        return "wrong"
    if not chat.parse(completion.text, opens_think).well_formed:
        return "format"
    text = _canonical(completion.text, opens_think)
    unreadable = readable(text, problem.language)
    return f"unreadable: {unreadable}" if unreadable else ""


def _set_fault(text: str, seen: set[str], keep: int, contaminated: Callable[[str], str | None]) -> str:
    """Why a good sample is still left out, beside the others of its problem and the benchmarks."""
    if _spaceless(text) in seen:
        return "duplicate"
    if overlap := contaminated(text):
        return f"contaminated: {overlap}"
    return "surplus" if len(seen) >= keep else ""


def _spaceless(text: str) -> str:
    """What two samples that differ in white space alone share."""
    return " ".join(text.split())


def _canonical(text: str, opens_think: bool) -> str:
    """The one spelling of a well-formed response."""
    parsed = chat.parse(text, opens_think)
    return chat.response((parsed.think or "").strip(), (parsed.answer or "").strip())


def _row(problem: Problem, name: str, prefix: str, text: str) -> SftRow:
    return SftRow(
        id=name,
        source=prefix,
        licence=problem.licence,
        language=problem.language,
        parents=(problem.id,),
        prompt=problem.prompt,
        response=text,
        kind="chain",
    )


def _decision(name: str, problem: Problem, checkpoint: str, number: int, verdict: Verdict, reason: str) -> Decision:
    return Decision(
        row=name,
        problem=problem.id,
        checkpoint=checkpoint,
        sample=number,
        verifier=problem.verifier,
        score=verdict.score,
        kept=not reason,
        reason=reason or verdict.reason,
    )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
