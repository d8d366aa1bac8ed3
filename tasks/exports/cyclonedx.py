"""A CycloneDX 1.6 bill of materials: the model with its card, its data, its ancestors, its packages."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packageurl import PackageURL

from tasks.audit.records import DataRecord
from tasks.exports.making import APPROACHES, Making, Step, Thing, dumps, standing
from tasks.exports.packages import Package

TO_BE_WRITTEN = "To be written by a person: no evidence states it."
_IDS = uuid.UUID("0d6e2c9c-5f2b-4f6e-9b4f-1b2e0a4b9b1a")
_LIMITS: tuple[tuple[str, str], ...] = (
    ("truncated_share", "{:.1%} of its answers were cut at the limit of tokens"),
    ("format_rate", "{:.1%} of its answers keep to the full format"),
    ("one_language_rate", "{:.1%} of its chains keep to the language of the question"),
)


def render(making: Making) -> str:
    """The bill of materials as JSON."""
    packages = {(p.name, p.version): p for lock in making.locks for p in lock.packages or ()}
    parts = [*_data_components(making), *_raw_files(making), *(_package(p) for p in packages.values())]
    parts = list({part["bom-ref"]: part for part in parts}.values())
    tool = {"type": "application", "bom-ref": "tool", "name": "r1kit", "description": making.producer}
    identity = "\n".join(event.recorded.digest for event in making.events) + "\n".join(making.problems)
    bom: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_IDS, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": making.time,
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [tool]},
            "component": _model(making),
        },
        "components": parts,
        "dependencies": [{"ref": "model", "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    notes = [f"problem: {problem}" for problem in making.problems] + [f"gap: {gap}" for gap in making.gaps]
    if notes:
        annotator = {"component": {"type": "application", "name": "r1kit"}}
        bom["annotations"] = [
            {"subjects": ["model"], "annotator": annotator, "timestamp": making.time, "text": note} for note in notes
        ]
    return dumps(bom)


def licences(stated: str) -> list[dict[str, Any]]:
    """A licence as CycloneDX has it: an SPDX identifier, an SPDX expression, or the words as they stand."""
    from cyclonedx.spdx import fixup_id, is_expression

    words = stated.strip()
    if not words:
        return []
    if identifier := fixup_id(words):
        return [{"license": {"id": identifier}}]
    return [{"expression": words}] if is_expression(words) else [{"license": {"name": words}}]


def _model(making: Making) -> dict[str, Any]:
    report = making.report
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": report.name or report.model,
        "version": report.version or making.model.hexadecimal[:12],
        "description": f"{report.model} of run {report.run}, {report.size_bytes} bytes at {report.uri}",
        "components": [
            {
                "type": "file",
                "bom-ref": f"model/{file['path']}",
                "name": file["path"] or report.model,
                "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
            }
            for file in making.model.files
        ],
        **_pedigree(making),
        "modelCard": _card(making),
        "properties": _properties(
            {
                "r1kit:digest": report.digest,
                "r1kit:signature": report.signature,
                "r1kit:holds": ", ".join(report.holds),
                "r1kit:submitters": ", ".join(report.submitters),
                "r1kit:approvals": "; ".join(
                    f"{a.approver} for {a.environment}, {standing(a)}" for a in report.approvals
                ),
                "r1kit:ledger_head": report.ledger_head,
                "r1kit:fault": making.model.fault or "",
            }
        ),
    }


def _pedigree(making: Making) -> dict[str, Any]:
    """The models it came from, base first; a pretrained base from elsewhere before all."""
    revision = str(making.base.get("revision") or "")
    elsewhere = {"name": making.pretrained, **({"version": revision} if revision else {})}
    ancestors = [elsewhere] if making.pretrained else []
    ancestors += [
        _ancestor(step, making.things[edge.artifact.digest])
        for step in making.trainings
        for edge in step.outputs
        if edge.role == "model" and edge.artifact.digest != making.model.artifact.digest
    ]
    shown = [{"type": "machine-learning-model", **ancestor} for ancestor in ancestors]
    return {"pedigree": {"ancestors": shown}} if shown else {}


def _ancestor(step: Step, thing: Thing) -> dict[str, Any]:
    facts = _properties({"r1kit:digest": thing.artifact.digest, "r1kit:fault": thing.fault or ""})
    return {"name": step.record.title, "version": thing.hexadecimal[:12], "properties": facts}


def _card(making: Making) -> dict[str, Any]:
    """The model card. What only people know is said to be missing rather than guessed."""
    last = making.trainings[-1].record.stage if making.trainings else ""
    names = [str(name) for name in making.architecture.get("architectures") or ()]
    return {
        "modelParameters": {
            "approach": {"type": APPROACHES.get(last, "supervised")},
            "task": "text-generation",
            "architectureFamily": "transformer",
            **({"modelArchitecture": ", ".join(names)} if names else {}),
            "datasets": [{"ref": _ref(record)} for record in making.report.data],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(making))},
        "considerations": {
            "users": [TO_BE_WRITTEN],
            "useCases": [TO_BE_WRITTEN],
            "technicalLimitations": [*_limitations(making), TO_BE_WRITTEN],
            "ethicalConsiderations": [{"name": TO_BE_WRITTEN}],
        },
        "properties": _properties(
            {f"r1kit:step:{number}": _line(step) for number, step in enumerate(making.steps, start=1)}
        ),
    }


def _metrics(making: Making) -> Iterator[dict[str, Any]]:
    for score in making.scores:
        figures = {"pass@1": score.pass_at_1, "cons@k": score.cons_at_k, "preference": score.preference}
        for title, figure in figures.items():
            if figure is not None:
                bounds = {"lowerBound": str(figure.low), "upperBound": str(figure.high)}
                have = None not in (figure.low, figure.high)
                yield {
                    "type": title, "value": str(figure.value), "slice": score.benchmark,
                    **({"confidenceInterval": bounds} if have else {}),
                }  # fmt: skip


def _limitations(making: Making) -> Iterator[str]:
    """What the evaluation shows of the model's limits."""
    for score in making.scores:
        for metric, words in _LIMITS:
            if metric in score.rates:
                yield f"On {score.benchmark}, {words.format(score.rates[metric])}."
    if not making.evaluation:
        yield "Its evaluation is not here, so nothing is known of how it fares."


def _line(step: Step) -> str:
    record = step.record
    return f"{record.title}: entry {record.sequence}, {record.time}, seed {record.seed}, code {record.code_digest}"


def _data_components(making: Making) -> Iterator[dict[str, Any]]:
    for record in making.report.data:
        thing = making.things[record.digest]
        stated = list(dict.fromkeys(str(source.get("licence") or "") for source in record.sources))
        yield {
            "type": "data",
            "bom-ref": _ref(record),
            "name": record.kind,
            "version": thing.hexadecimal[:12],
            **_hashes(thing),
            **_licences(stated),
            "data": [{"type": "dataset", "name": record.kind, "contents": {"url": record.uri}}],
            "properties": _properties(
                {
                    "r1kit:digest": record.digest,
                    "r1kit:rows": str(record.verdict.get("rows", "")),
                    "r1kit:validated": record.validated or "never",
                    "r1kit:fault": record.fault or "",
                }
            ),
        }


def _raw_files(making: Making) -> Iterator[dict[str, Any]]:
    """Files that the data sets were prepared from, as their origins have them."""
    for record in making.report.data:
        for source in record.sources:
            for file in source.get("files") or ():
                sha256, url = str(file.get("sha256", "")), str(file.get("url", ""))
                yield {
                    "type": "data",
                    "bom-ref": f"raw/{sha256}/{file.get('path', '')}",
                    "name": f"{source.get('source', '')}: {file.get('path', '')}",
                    "hashes": [{"alg": "SHA-256", "content": sha256}] if len(sha256) == 64 else [],
                    **_licences([str(source.get("licence") or "")]),
                    "data": [{"type": "dataset", "name": str(source.get("source", "")), "contents": {"url": url}}],
                }


def _package(package: Package) -> dict[str, Any]:
    purl = PackageURL("pypi", None, package.name, package.version).to_string()
    hashes = [{"alg": "SHA-256", "content": content} for content in package.hashes]
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        **({"hashes": hashes} if hashes else {}),
        **_licences([package.licence]),
    }


def _licences(stated: Sequence[str]) -> dict[str, Any]:
    """CycloneDX takes one expression or any number of single licences, so several that differ are named apart."""
    found = [licence for words in stated for licence in licences(words)]
    if len(found) > 1:
        found = [{"license": {"name": item["expression"]}} if "expression" in item else item for item in found]
    return {"licenses": found} if found else {}


def _hashes(thing: Thing) -> dict[str, Any]:
    """A single file's sha256, where its bytes are the recorded ones."""
    one = len(thing.files) == 1 and not thing.files[0]["path"]
    return {"hashes": [{"alg": "SHA-256", "content": thing.files[0]["sha256"]}]} if one else {}


def _ref(record: DataRecord) -> str:
    return f"data/{record.kind}/{record.digest.removeprefix('sha256:')[:12]}"


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Names and values; empty ones are left out."""
    return [{"name": name, "value": value} for name, value in values.items() if value]
