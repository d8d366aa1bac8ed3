"""The gate in front of training: a Great Expectations verdict on exactly the bytes that the stages will read."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.data.normalise import normalise
from r1kit.rewards import VerifierPool, check_gold
from r1kit.rows import Problem
from tasks.data_rules import FORMAT_ADVICE, GOLD_RULE, ROW_CLASSES, Surroundings
from tasks.expectations import ID, ROW, Outcome, between, examine
from tasks.machine import verifier_pool
from tasks.notes import write_atomically
from tasks.slices import SLICE_ROWS, Examination, GoldSample
from tasks.stage import StageContext, StageOutput
from tasks.tallies import SourceTally, tallies

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "r1kit validation 1"
MANIFEST_FORMAT = "r1kit data 1"
VERIFIED_KINDS = ("problems", "benchmarks")
NUM_QUARANTINE_LINES = 10
"""Of the quarantine file, so many lines stand in the verdict too."""


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {
        "validate": config.validate_,
        "allowed_licences": config.data.allowed_licences,
        "sources": {kind: _entries(config, kind) for kind in ROW_CLASSES},
    }


def run(context: StageContext) -> StageOutput:
    """inputs: the six kinds of rows, manifest, quarantine. outputs: validation (the verdict as JSON).

    Raises:
        ValueError: the data are bad; validation.json in the workdir says all that is wrong.
        RuntimeError: a check itself is broken, so nothing is known of the data.
    """
    manifest = _manifest(context.inputs)
    quarantine = _quarantine(context.inputs["quarantine"])
    benchmarks = _benchmark_prompts(context.inputs["benchmarks"])
    outcomes: dict[str, list[Outcome]] = {}
    examinations: dict[str, Examination] = {}
    sample = GoldSample(context.config.validate_.verify_rows)
    for kind in ROW_CLASSES:
        around = surroundings(context.config, kind, benchmarks, tallies(manifest, quarantine, kind))
        examinations[kind] = Examination(around)
        for number, table in enumerate(slices(context.inputs[kind], kind)):
            context.say(f"examining {kind}: {number * SLICE_ROWS + table.num_rows:,} rows")
            if kind in VERIFIED_KINDS and {"id", "source", "verifier"} <= set(table.column_names):
                sample.add(kind, table, number * SLICE_ROWS + 1)
            examinations[kind].add(table)
        outcomes[kind] = examinations[kind].finish()
    verified = verify_gold(sample, outcomes, context)
    files = [_file(context.digests[kind], examinations[kind], outcomes[kind]) for kind in ROW_CLASSES]
    verdict = {
        "format": FORMAT,
        "success": all(file["success"] for file in files),
        "files": files,
        "quarantine": {
            "counts": dict(sorted(Counter(str(line.get("rule")) for line in quarantine).items())),
            "first": quarantine[:NUM_QUARANTINE_LINES],
        },
        "verified": verified,
    }
    path = context.workdir / "validation.json"
    write_atomically(path, json.dumps(verdict, indent=1, ensure_ascii=False) + "\n")
    _refuse(outcomes, path)
    return StageOutput({"validation": ("validation", path)}, _metrics(verdict))


def surroundings(
    config: Any, kind: str, benchmarks: Mapping[str, str], sources: Mapping[str, SourceTally]
) -> Surroundings:
    """What the rules on one kind of rows need to know of the configuration, the benchmarks, and the manifest."""
    entries = _entries(config, kind)
    return Surroundings(
        kind=kind,
        config=config.validate_,
        wanted=bool(entries),
        allowed_licences=config.data.allowed_licences,
        benchmarks=benchmarks,
        sources=sources,
        entries=entries,
    )


def _entries(config: Any, kind: str) -> list[str]:
    """Names of the sources that the profile asks for."""
    return [entry.source for entry in getattr(config.data, kind)]


def _manifest(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """The data stage's manifest. Raises ValueError where it is none, or tells of other bytes."""
    path = inputs["manifest"]
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"the manifest {path} is not JSON ({error}); {FORMAT_ADVICE}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != MANIFEST_FORMAT:
        raise ValueError(f"the manifest {path} has format {found!r}, not {MANIFEST_FORMAT!r}; run the data stage again")
    for kind in ROW_CLASSES:
        with inputs[kind].open("rb") as stream:
            own = hashlib.file_digest(stream, "sha256").hexdigest()
        stated = manifest["kinds"].get(kind, {}).get("sha256")
        if stated != own:
            raise ValueError(
                f"the manifest {path} tells of {kind} with sha256 {stated}, but {inputs[kind]} has {own}; "
                f"{FORMAT_ADVICE}"
            )
    return manifest


def _quarantine(path: Path) -> list[dict[str, Any]]:
    """The rows set aside, one a line. Raises ValueError where a line is not JSON."""
    lines = []
    with path.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, 1):
            try:
                lines.append(dict(json.loads(text)))
            except (ValueError, TypeError):
                raise ValueError(
                    f"{path}, line {number} is not a JSON object: {text[:80]!r}; {FORMAT_ADVICE}"
                ) from None
    return lines


def slices(path: Path, kind: str) -> Iterator["pa.Table"]:
    """A Parquet file, so many rows at a time; an empty one gives one empty table. Raises ValueError for other files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if not file.metadata.num_rows:
            yield file.read()
        for batch in file.iter_batches(SLICE_ROWS):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"the {kind} file {path} is not Parquet ({error}); {FORMAT_ADVICE}") from None


def _benchmark_prompts(path: Path) -> dict[str, str]:
    """Normalised prompt → id of a benchmark row; empty where the file has not these columns, which is found later."""
    found: dict[str, str] = {}
    for table in slices(path, "benchmarks"):
        if {"id", "prompt"} <= set(table.column_names):
            rows = zip(table.column("prompt").to_pylist(), table.column("id").to_pylist(), strict=True)
            found |= {normalise(str(prompt)): str(id_) for prompt, id_ in rows if prompt and str(prompt).strip()}
    return found


def verify_gold(sample: GoldSample, outcomes: Mapping[str, list[Outcome]], context: StageContext) -> dict[str, Any]:
    """Have the verifiers judge a sample of gold answers; adds an outcome to each kind that was sampled."""
    sound = [kind for kind in VERIFIED_KINDS if all(outcome.success for outcome in outcomes[kind])]
    rows = list(sample.chosen(sound))
    context.say(f"verifying the gold answers of {len(rows)} rows")
    with verifier_pool(context.config.runtime) as pool:
        judged = gold_outcomes(rows, pool)
    for kind, outcome in judged.items():
        outcomes[kind].append(outcome)
    failed = sum(outcome.failed for outcome in judged.values())
    kinds = {kind: outcome.checked for kind, outcome in judged.items()}
    return {"rows": len(rows), "passed": len(rows) - failed, "kinds": kinds}


def gold_outcomes(rows: Sequence[tuple[str, int, Mapping[str, Any]]], pool: VerifierPool) -> dict[str, Outcome]:
    """Kind → what became of the rule that a gold answer scores 1, on rows given as kind, number and values."""
    problems = [Problem.model_validate(values) for _, _, values in rows]
    verdicts = list(check_gold(pool, problems))
    doubtful = [place for place, verdict in enumerate(verdicts) if verdict.score != 1]
    again = check_gold(pool, [problems[place] for place in doubtful])  # a busy machine may have been too slow
    for place, verdict in zip(doubtful, again, strict=True):
        verdicts[place] = verdict
    places: dict[str, list[int]] = {}
    for place, (kind, _, _) in enumerate(rows):
        places.setdefault(kind, []).append(place)
    return {
        kind: _gold_outcome([rows[p][1] for p in own], [problems[p] for p in own], [verdicts[p] for p in own])
        for kind, own in places.items()
    }


def _gold_outcome(numbers: Sequence[int], problems: Sequence[Problem], verdicts: Sequence[Any]) -> Outcome:
    import pandas as pd

    said = [
        f"{problem.answer} scored {verdict.score:g}: {verdict.reason}"
        for problem, verdict in zip(problems, verdicts, strict=True)
    ]
    scores = [verdict.score for verdict in verdicts]
    frame = pd.DataFrame({ROW: numbers, ID: [problem.id for problem in problems], "score": scores, "said": said})
    advice = "remove the problem from its source, or mend its gold answer"
    (outcome,) = examine(frame, [between(GOLD_RULE, "score", 1, 1, limit="exactly 1", advice=advice, shows="said")])
    return outcome


def _file(digest: str, examination: Examination, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the verdict says of one file."""
    sources = examination.around.sources.values()
    quarantined = sum(tally.quarantined for tally in sources)
    read = sum(max(tally.read, tally.quarantined) for tally in sources)
    return {
        "kind": examination.around.kind,
        "digest": digest,
        "rows": examination.seen.rows,
        "success": all(outcome.success for outcome in outcomes),
        "checks": [outcome.to_json() for outcome in outcomes],
        "failed_checks": sum(not outcome.success for outcome in outcomes),
        "quarantined": quarantined,
        "quarantine_share": quarantined / max(1, read),
        "contaminated": sum(tally.contaminated for tally in sources),
        "duplicates": sum(tally.duplicates for tally in sources),
        "distributions": examination.seen.distributions(),
    }


def _refuse(outcomes: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Raise for the first check that is broken, else for the first that failed; one sentence."""
    all_outcomes = [(kind, outcome) for kind, own in outcomes.items() for outcome in own]
    for kind, outcome in all_outcomes:
        if outcome.error:
            raise RuntimeError(
                f"the validation itself is broken, so nothing is known of the data: the check {outcome.rule.name!r} of "
                f"{kind} ended with {outcome.error} (all outcomes: {path})"
            )
    failed = [(kind, outcome) for kind, outcome in all_outcomes if not outcome.success]
    if failed:
        others = len(failed) - 1
        more = f" {others} more {'check' if others == 1 else 'checks'} failed;" if others else ""
        raise ValueError(f"{_fault(*failed[0])};{more} everything found stands in {path}")


def _fault(kind: str, outcome: Outcome) -> str:
    """One failed check in words."""
    rule, example = outcome.rule, outcome.examples[0]
    value = json.dumps(example["value"], ensure_ascii=False)
    if example["row"] is None:
        found = f"found {value}"
    else:
        found = f"{outcome.failed} of {outcome.checked} fail, first {example['id']!r} (row {example['row']}): {value}"
    limit = f" (limit: {rule.limit})" if rule.limit else ""
    return f"the data set {kind} breaks the rule {rule.name!r}{limit}: {found}; {rule.advice}"


def _metrics(verdict: Mapping[str, Any]) -> dict[str, float]:
    files = verdict["files"]
    totals = {name: sum(file[name] for file in files) for name in ("quarantined", "contaminated", "duplicates")}
    return {
        **{f"rows_{file['kind']}": file["rows"] for file in files},
        "checks": sum(len(file["checks"]) for file in files),
        "failed_checks": sum(file["failed_checks"] for file in files),
        **totals,
        "verified_rows": verdict["verified"]["rows"],
    }
