"""What evidence says for the technical documentation, as tables and pictures. The page escapes all text."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tasks.exports.making import Making, Step, standing
from tasks.exports.scores import RATES
from tasks.report.charts import Dot, dot_plot
from tasks.report.pictures import lineage
from tasks.report.words import duration, number, percent, size, visible
from tasks.stage import STAGES, stage_name
from tasks.summary import Output, StageSummary


@dataclass(frozen=True)
class Table:
    """Columns and rows; a table of names and values has no column titles."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    """Whether it is long, and shown on request."""


@dataclass(frozen=True)
class Picture:
    """A drawing."""

    title: str
    drawing: Markup


Block = Table | Picture

_OPTIMISES = {
    "base": "the likelihood of the next token of the pretraining rows",
    "cold_start": "the likelihood of curated chains of thought",
    "refine": "the likelihood of the curated set and general instructions",
    "distill": "the likelihood of the teacher's curated answers",
    "zero": "a rule-based reward, by group-relative policy optimisation (GRPO)",
    "reason": "a rule-based reward with one for staying in one language, by GRPO",
    "rl_student": "a rule-based reward, by GRPO",
    "prefer": "rule-based rewards, and reward models in the last steps, by GRPO",
    "reward_models": "agreement with pairs of preferred and rejected answers",
}
_MAIN_PACKAGES = ("torch", "transformers", "deepspeed", "tokenizers", "safetensors", "mlflow", "dvc", "prefect",
                  "great-expectations", "math-verify", "reasoning-gym")  # fmt: skip
_SHAPE = ("architectures", "model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
          "num_key_value_heads", "vocab_size", "max_position_embeddings", "dtype", "torch_dtype")  # fmt: skip


def nothing(_making: Making) -> Iterator[Block]:
    """Of what no evidence can tell."""
    yield from ()


def identity(making: Making) -> Iterator[Block]:
    """Which model this is."""
    report = making.report
    yield _values("The model", {
        "name and version": making.title,
        "called in its recipe": report.model,
        "digest": report.digest,
        "bytes": f"{size(report.size_bytes)} at {report.uri}",
        "made by run": report.run,
        "submitted by": ", ".join(report.submitters) or "nobody",
        "holds": ", ".join(report.holds) or "no environment",
    })  # fmt: skip
    yield from versions(making)


def versions(making: Making) -> Iterator[Block]:
    """All versions of the same name that the ledger knows."""
    rows = []
    for recorded in making.family:
        model = recorded.entry.output("model")
        if model is not None:
            facts = recorded.entry.facts
            same = "this model" if model.digest == making.model.artifact.digest else "another model"
            rows.append((f"{facts['name']}/{facts['version']}", _day(recorded.time), model.digest[:19] + "…", same))
    if rows:
        yield _table("Versions in the ledger", ("version", "since", "digest", ""), rows)


def software(making: Making) -> Iterator[Block]:
    """What it ran on, step by step, and the packages that matter most."""
    names = list(dict.fromkeys(name for step in making.steps for name in step.record.environment))
    alike: dict[tuple[str, ...], list[str]] = {}
    for step in making.steps:
        around = tuple(_shortened(str(step.record.environment.get(name, "–"))) for name in names)
        alike.setdefault(around, []).append(step.record.title)
    every = len(alike) == 1
    rows = [("all steps" if every else ", ".join(titles), *around) for around, titles in alike.items()]
    if names:
        yield _table("Surroundings of the steps", ("steps", *(n.replace("_", " ") for n in names)), rows)
    for lock in making.locks:
        title = f"Packages of the lock {lock.digest[:19]}…"
        if lock.packages is None:
            yield _table(title, ("",), [("The lock with this digest is not found here.",)])
        else:
            main = [p for p in lock.packages if p.name in _MAIN_PACKAGES]
            rows = [(p.name, p.version, p.licence or "–") for p in main]
            rows.append((f"and {len(lock.packages) - len(main)} more", "", "in the bill of materials (CycloneDX)"))
            yield _table(title, ("package", "version", "licence"), rows)


def files(making: Making) -> Iterator[Block]:
    """The files that the model is."""
    rows = [(f["path"] or making.report.model, size(f["size"]), f["sha256"]) for f in making.model.files]
    if rows:
        yield _table("Files of the model, hashed again for this page", ("file", "size", "sha256"), rows)


def machines(making: Making) -> Iterator[Block]:
    """What the steps ran on, and for how long."""
    rows = [(s.record.title, duration(s.record.seconds), _machine(s), _runtime(s)) for s in making.steps]
    if rows:
        total = sum(step.record.seconds for step in making.steps)
        rows.append(("all steps", duration(total), "", ""))
        yield _table("Resources of making", ("step", "wall clock", "machine", "run as"), rows)


def development(making: Making) -> Iterator[Block]:
    """The steps, drawn and listed; what came from third parties."""
    yield from drawing(making)
    rows = [
        (
            s.record.title, _day(s.record.time), ", ".join(s.record.inputs) or "–", ", ".join(s.record.outputs),
            str(s.record.seed), s.record.code_digest[:19], "yes" if s.record.exact else "no: resumed elsewhere",
        )
        for s in making.steps
    ]  # fmt: skip
    if rows:
        columns = ("step", "ended", "from", "made", "seed", "code", "claims the same bits again")
        yield _table("Steps, base first", columns, rows)
    third = {"pretrained base": making.pretrained} if making.pretrained else {}
    third |= {
        f"base {name}": str(making.base[name]) for name in ("revision", "sha256") if third and making.base.get(name)
    }
    yield _values("From third parties", third or {"pretrained base": "none, the base was made from scratch"})


def drawing(making: Making) -> Iterator[Block]:
    """The lineage as a picture."""
    faults = {digest: visible(thing.fault, 300) for digest, thing in making.things.items() if thing.fault}
    drawn = lineage([_summary(step) for step in making.steps if step.record.stage in STAGES], faults)
    if drawn is not None:
        yield Picture(
            "Lineage: a full dot where an artifact was made, a ring where it was used, ✕ where it is lost", drawn
        )


def design(making: Making) -> Iterator[Block]:
    """What each training optimises, and all its settings."""
    rows = [
        (s.record.title, _OPTIMISES.get(s.record.stage, "–"), s.record.config_digest[:19] + "…")
        for s in making.steps
        if s.record.stage in _OPTIMISES
    ]
    if rows:
        yield _table("What each training optimises", ("step", "for", "settings"), rows)
    for step in making.steps:
        settings = tuple(_flat(step.record.config))
        if settings:
            yield _table(f"Settings of {step.record.title}", ("setting", "value"), settings, folded=True)


def architecture(making: Making) -> Iterator[Block]:
    """The model's shape, and the resources spent."""
    shape = {name: visible(str(making.architecture[name]), 200) for name in _SHAPE if name in making.architecture}
    if shape:
        yield _values("Shape of the model (config.json)", shape)
    yield from machines(making)


def data(making: Making) -> Iterator[Block]:
    """Data sets: where each came from, what was selected, what was set aside, and by which rules it was examined."""
    for record in making.report.data:
        yield _values(f"Data set {record.kind}", {
            "digest": record.digest,
            "lies at": record.uri,
            "its bytes now": making.things[record.digest].state,
            "let through by the gate": _day(record.validated) if record.validated else "never",
            "rows": number(record.verdict["rows"]) if isinstance(record.verdict.get("rows"), int) else "not known",
        })  # fmt: skip
        sources = [_source(source) for source in record.sources]
        if sources:
            columns = ("source", "licence", "rows kept", "of", "set aside", "seed", "note")
            yield _table(f"Sources of {record.kind}", columns, sources)
        raw = [
            (str(file.get("path", "")), str(file.get("url", "")), str(file.get("sha256", "")))
            for source in record.sources
            for file in source.get("files") or ()
        ]
        if raw:
            yield _table(f"Original files of {record.kind}", ("file", "address", "sha256"), raw)
        yield from _checks(record.kind, record.verdict)


def _checks(kind: str, verdict: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        (
            str(check.get("rule", "")), str(check.get("limit", "")), number(check.get("checked") or 0),
            number(check.get("failed") or 0), "holds" if check.get("success") else "broken",
        )
        for check in verdict.get("checks") or ()
    ]  # fmt: skip
    if rows:
        yield _table(f"Rules on {kind}", ("rule", "limit", "looked at", "at fault", ""), rows, folded=len(rows) > 8)


def _source(source: Mapping[str, Any]) -> tuple[str, ...]:
    aside = [f"{source[n]:,} {n}" for n in ("quarantined", "duplicates", "contaminated", "unlicensed")
             if isinstance(source.get(n), int) and source[n]]  # fmt: skip
    kept, read = (f"{source[n]:,}" if isinstance(source.get(n), int) else "–" for n in ("rows_kept", "rows_read"))
    seed, note = source.get("seed"), str(source.get("note") or "")
    named = str(source.get("source") or "–")
    return (
        named,
        str(source.get("licence") or "–"),
        kept,
        read,
        ", ".join(aside),
        "" if seed is None else str(seed),
        note,
    )


def figures(making: Making) -> Iterator[Block]:
    """How the model fared, drawn and as a table."""
    rows, dots = [], []
    for score in making.scores:
        share, shown = score.pass_at_1, ("no rule", "")
        if share is not None:
            shown = (percent(share.value), f"{percent(share.low)} – {percent(share.high)}")
            if share.low is not None and share.high is not None:
                note = f"{visible(score.benchmark, 200)}: {shown[0]}, 95 % interval {shown[1]}"
                dots.append(Dot(visible(score.benchmark, 16), share.value, share.low, share.high, note))
        rates = [percent(score.rates.get(name)) for name in RATES[1:]]
        rows.append((score.benchmark, *shown, f"{score.n} × {score.k}", *rates))
    if dots:
        yield Picture("pass@1 with 95 % intervals", dot_plot(dots, "pass@1 of the model on every benchmark"))
    if rows:
        columns = (
            "benchmark",
            "pass@1",
            "95 %",
            "problems × samples",
            "in full format",
            "cut",
            "one language",
            "reflects",
        )
        yield _table("The model's evaluation", columns, rows)


def testing(making: Making) -> Iterator[Block]:
    """Tests, the conditions they ran under, and who signed."""
    yield from figures(making)
    if making.evaluated is not None:
        yield _values("Its record", {
            "digest": making.evaluated.digest,
            "bytes now": making.things[making.evaluated.digest].state,
            "seed": str(making.evaluation.get("seed", "–")),
            **dict(_flat(making.evaluation.get("config") or {})),
        })  # fmt: skip
    gates = [(place.what, gate) for place in making.report.places for gate in place.gates]
    if gates:
        yield _table("Gates of its promotions", ("promotion", "what the gate found"), gates)
    rows = [(a.approver, a.environment, _day(a.time), a.key, standing(a)) for a in making.report.approvals]
    if rows:
        yield _table("Approvals, each signed with a key of the person", ("who", "for", "when", "key", "now"), rows)


def security(making: Making) -> Iterator[Block]:
    """What was verified for this page."""
    report = making.report
    wrong = sum(1 for thing in making.things.values() if thing.fault)
    yield _values("Integrity, verified for this page", {
        "signature of the model": report.signature,
        "artifacts of the lineage": f"{len(making.things)} known, {wrong} missing or altered",
        "ledger": f"{report.ledger_entries} entries, each naming the one before; head {report.ledger_head}",
        "problems": str(len(making.problems)),
    })  # fmt: skip


def changes(making: Making) -> Iterator[Block]:
    """What happened to the model after its making."""
    rows = [(_day(p.time), p.what, p.who, str(p.sequence)) for p in making.report.places]
    if rows:
        yield _table("Events", ("when", "what", "by", "ledger entry"), rows)
    yield from versions(making)


def formats(making: Making) -> Iterator[Block]:
    """Published specifications that this evidence keeps to; none of them is a harmonised standard."""
    signed = {"OpenSSF model signing (Sigstore bundle)": "the model's signature"} if making.report.name else {}
    yield _values("Technical specifications that the evidence keeps to", {
        "OpenLineage 2-0-2": "entries of the ledger",
        **signed,
        "OpenSSH signatures (Ed25519)": "approvals",
        "in-toto Statement v1, SLSA provenance v1, DSSE": "provenance, exported",
        "CycloneDX 1.6": "bill of materials, exported",
        "W3C PROV": "provenance, exported",
    })  # fmt: skip


def _summary(step: Step) -> StageSummary:
    """A step as the pictures take it."""
    record = step.record
    return StageSummary(
        name=visible(stage_name(record.stage, record.instance), 80),
        stage=record.stage,
        variant=visible(record.instance, 60),
        status="ran",
        inputs=record.inputs,
        outputs={visible(edge.role, 60): Output(**edge.artifact.model_dump()) for edge in step.outputs},
    )


def _machine(step: Step) -> str:
    """`Linux x86_64, EPYC 7B13, 2 cores, 7.8 GiB`."""
    known = step.record.environment
    words = [known.get("platform"), known.get("processor"), known.get("accelerators")]
    words += [f"{known[name]} {unit}" for name, unit in (("cores", "cores"), ("memory_gib", "GiB")) if known.get(name)]
    return ", ".join(filter(None, words)) or "–"


def _runtime(step: Step) -> str:
    told = [f"{name.replace('_', ' ')} {step.runtime[name]}" for name in ("processes", "zero_stage", "threads")
            if step.runtime.get(name) is not None]  # fmt: skip
    return ", ".join(told) or "–"


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """`zero.steps`, `3`."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, str(values)


def _values(title: str, values: Mapping[str, str]) -> Table:
    return _table(title, (), list(values.items()))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, folded: bool = False) -> Table:
    shown = tuple(tuple(visible(str(cell), 1000) for cell in row) for row in rows)
    return Table(visible(title, 200), tuple(visible(c, 80) for c in columns), shown, folded)


def _shortened(words: str) -> str:
    """A digest or a commit by its beginning; other words as they are."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b", r"\1…", words)


def _day(time: str) -> str:
    return time[:16].replace("T", " ")
