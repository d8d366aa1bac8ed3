"""The gate in front of training: a Great Expectations verdict on exactly the bytes that the stages will read."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.data.normalise import normalise
from r1kit.rewards import check_gold
from r1kit.rows import Problem
from tasks.data_rules import (
    FORMAT_ADVICE,
    GOLD_RULE,
    ROW_CLASSES,
    SourceTally,
    Surroundings,
    columns_examined,
    rows_examined,
    sources_examined,
    tallies,
)
from tasks.expectations import ID, ROW, Outcome, between, examine
from tasks.machine import verifier_pool
from tasks.notes import write_atomically
from tasks.stage import StageContext, StageOutput

if TYPE_CHECKING:
    import pandas as pd
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
    tables = {kind: _table(context.inputs[kind], kind) for kind in ROW_CLASSES}
    benchmarks = _benchmark_prompts(tables["benchmarks"])
    outcomes: dict[str, list[Outcome]] = {}
    sources: dict[str, Mapping[str, SourceTally]] = {}
    for kind, table in tables.items():
        context.say(f"examining {table.num_rows:,} rows of {kind}")
        sources[kind] = tallies(manifest, quarantine, kind)
        around = surroundings(context.config, kind, benchmarks, sources[kind])
        outcomes[kind] = examine_kind(table, around)
    verified = _verify(tables, outcomes, context)
    files = [_file(kind, context.digests[kind], tables[kind], outcomes[kind], sources[kind]) for kind in ROW_CLASSES]
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


def _table(path: Path, kind: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"the {kind} file {path} is not Parquet ({error}); {FORMAT_ADVICE}") from None


def _benchmark_prompts(table: "pa.Table") -> dict[str, str]:
    """Normalised prompt → id of a benchmark row; empty where the file has not these columns, which is found later."""
    if not {"id", "prompt"} <= set(table.column_names):
        return {}
    rows = zip(table.column("prompt").to_pylist(), table.column("id").to_pylist(), strict=True)
    return {normalise(str(prompt)): str(id_) for prompt, id_ in rows if prompt and str(prompt).strip()}


def examine_kind(table: "pa.Table", around: Surroundings) -> list[Outcome]:
    """What became of every rule on one kind of rows, gold answers apart.

    Columns come first: of a file with other columns nothing else can be asked.
    """
    columns, sources = columns_examined(table, ROW_CLASSES[around.kind]), sources_examined(around)
    outcomes = examine(columns.frame, columns.rules)
    outcomes += examine(sources.frame, sources.rules)
    if outcomes[0].success:
        rows = rows_examined(table, around)
        outcomes += examine(rows.frame, rows.rules)
    return outcomes


def _verify(
    tables: Mapping[str, "pa.Table"], outcomes: Mapping[str, list[Outcome]], context: StageContext
) -> dict[str, Any]:
    """Have the verifiers judge a sample of gold answers; adds an outcome to each kind that was sampled."""
    sound = [kind for kind in VERIFIED_KINDS if all(outcome.success for outcome in outcomes[kind])]
    sample = _sample({kind: tables[kind] for kind in sound}, context.config.validate_.verify_rows)
    problems = [
        Problem.model_validate(tables[kind].slice(place, 1).to_pylist()[0])
        for kind, places in sample.items()
        for place in places
    ]
    context.say(f"verifying the gold answers of {len(problems)} rows")
    with verifier_pool(context.config.runtime) as pool:
        verdicts = check_gold(pool, problems)
        doubtful = [place for place, verdict in enumerate(verdicts) if verdict.score != 1]
        again = check_gold(pool, [problems[place] for place in doubtful])  # a busy machine may have been too slow
    for place, verdict in zip(doubtful, again, strict=True):
        verdicts[place] = verdict
    start = 0
    for kind, places in sample.items():
        own = slice(start, start + len(places))
        outcomes[kind].extend(_gold_outcome(places, problems[own], verdicts[own]))
        start += len(places)
    passed = sum(verdict.score == 1 for verdict in verdicts)
    return {"rows": len(problems), "passed": passed, "kinds": {kind: len(places) for kind, places in sample.items()}}


def _gold_outcome(places: Sequence[int], problems: Sequence[Problem], verdicts: Sequence[Any]) -> list[Outcome]:
    frame = _frame(
        {
            ROW: [place + 1 for place in places],
            ID: [problem.id for problem in problems],
            "score": [verdict.score for verdict in verdicts],
            "said": [
                f"{problem.answer} scored {verdict.score:g}: {verdict.reason}"
                for problem, verdict in zip(problems, verdicts, strict=True)
            ],
        }
    )
    advice = "remove the problem from its source, or mend its gold answer"
    return examine(frame, [between(GOLD_RULE, "score", 1, 1, limit="exactly 1", advice=advice, shows="said")])


def _frame(columns: Mapping[str, Any]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(columns)


def _sample(tables: Mapping[str, "pa.Table"], limit: int) -> dict[str, list[int]]:
    """Kind → row places, up to `limit` together: the sources in turn, within each in the order of the ids' hashes."""
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for kind, table in tables.items():
        cells = zip(*(table.column(name).to_pylist() for name in ("id", "source", "verifier")), strict=True)
        for place, (id_, source, verifier) in enumerate(cells):
            if verifier != "none":
                order = hashlib.sha256(id_.encode()).hexdigest()
                groups.setdefault((kind, source), []).append((order, place))
    turns = [
        (turn, order, kind, place)
        for (kind, _), rows in groups.items()
        for turn, (order, place) in enumerate(sorted(rows))
    ]
    chosen: dict[str, list[int]] = {}
    for _, _, kind, place in sorted(turns)[:limit]:
        chosen.setdefault(kind, []).append(place)
    return {kind: sorted(chosen[kind]) for kind in tables if kind in chosen}


def _file(
    kind: str, digest: str, table: "pa.Table", outcomes: Sequence[Outcome], sources: Mapping[str, SourceTally]
) -> dict[str, Any]:
    """What the verdict says of one file."""
    quarantined = sum(tally.quarantined for tally in sources.values())
    read = sum(max(tally.read, tally.quarantined) for tally in sources.values())
    return {
        "kind": kind,
        "digest": digest,
        "rows": table.num_rows,
        "success": all(outcome.success for outcome in outcomes),
        "checks": [outcome.to_json() for outcome in outcomes],
        "failed_checks": sum(not outcome.success for outcome in outcomes),
        "quarantined": quarantined,
        "quarantine_share": quarantined / max(1, read),
        "contaminated": sum(tally.contaminated for tally in sources.values()),
        "duplicates": sum(tally.duplicates for tally in sources.values()),
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
