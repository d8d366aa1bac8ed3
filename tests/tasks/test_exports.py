"""Exports are what their own tools accept, the same every time, deaf to hostile data, and honest about lost bytes."""

import base64
import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attr
import jsonschema
import pytest
from cryptography.exceptions import InvalidSignature

from r1kit.promotion import PromotionConfig
from tasks.approvals import approve
from tasks.artifacts import digest_bytes, local_path
from tasks.exports import FORMATS, card, check_format, write_exports
from tasks.exports.annex import SECTIONS
from tasks.exports.making import Making, describe_making
from tasks.exports.packages import locks_of, read_lock
from tasks.ledger import open_ledger
from tasks.promotion import promote
from tasks.register import register
from tasks.workspace import REPOSITORY, Workspace
from tests.tasks.browser import CHROMIUM, drawn
from tests.tasks.exported import RAW_SHA256, events, opened, rich
from tests.tasks.made_up_run import HOSTILE
from tests.tasks.recipe import approver
from tests.tasks.test_report import Tags

SETTINGS = PromotionConfig(approvals={"staging": 1})


@pytest.fixture(scope="module")
def making(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Making]:
    """A registered, approved and promoted model, described."""
    place = tmp_path_factory.mktemp("exports")
    workspace = Workspace(place / "r1")
    workspace.root.mkdir()
    shutil.copy(empty_database, workspace.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("R1_HOME", str(workspace.root))
        patch.setenv("R1_SUBMITTER", "submitter@example.org")
        rich(workspace)
        register(workspace, run="run-1")
        key = approver(place)
        shutil.copy(place / "approvers", workspace.root / "approvers")
        approve(workspace, "r1", "staging", approver="alice@example.org", key=key)
        promote(workspace, "r1", "staging", settings=SETTINGS)
        yield describe_making(workspace, "staging")


@pytest.fixture(scope="module")
def exports(making: Making) -> dict[str, str]:
    """Format → what it is."""
    return {name: each.render(making) for name, each in FORMATS.items()}


def test_the_same_ledger_gives_the_same_bytes(making: Making, exports: dict[str, str]) -> None:
    assert making.problems == () and making.gaps == ()
    again = describe_making(making.workspace, "staging")
    assert {name: each.render(again) for name, each in FORMATS.items()} == exports


# OpenLineage


def schema_of(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema that OpenLineage's own client classes state: their fields, which are needed, and of what type."""
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}
        fields = [field for field in attr.fields(attr.resolve_types(kind)) if not field.name.startswith("_deleted")]
        needed = [f.name for f in fields if f.default is attr.NOTHING or f.name in STATED]
        shape = {field.name: FORMATS_OF.get(field.name) or typed(field.type, definitions) for field in fields}
        facet = name.endswith("Facet")
        definitions[name] |= {
            "type": "object", "properties": shape, "required": needed, "additionalProperties": facet,
        }  # fmt: skip
    return {"$ref": f"#/$defs/{name}"}


STATED = ("producer", "schemaURL", "_producer", "_schemaURL")
"""Fields that the client fills in by itself and the standard wants."""
URI = {"type": "string", "format": "uri", "minLength": 3}
FORMATS_OF: dict[str, Any] = {
    **dict.fromkeys(STATED, URI),
    "eventTime": {"type": "string", "format": "date-time"},
    "runId": {"type": "string", "format": "uuid"},
}


def typed(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    from typing import get_args, get_origin

    parts = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is list:
        return {"type": "array", "items": typed(parts[0], definitions)}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": typed(parts[1], definitions)}
    if parts:
        return typed(parts[0], definitions)
    if attr.has(kind):
        return schema_of(kind, definitions)
    if issubclass(kind, str):
        return {"type": "string"}
    return {"enum": [member.value for member in kind]}


def openlineage_schema() -> dict[str, Any]:
    from openlineage.client.event_v2 import RunEvent

    definitions: dict[str, Any] = {}
    return {**schema_of(RunEvent, definitions), "$defs": definitions}


def test_openlineage_events_are_what_its_client_describes(exports: dict[str, str]) -> None:
    schema = openlineage_schema()
    assert schema["$defs"]["RunEvent"]["required"] == ["eventTime", "producer", "schemaURL", "run", "job"]
    checked = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for event in events(exports["openlineage"]):
        assert [error.message for error in checked.iter_errors(event)] == []
    for spoilt in ({"eventTime": "yesterday"}, {"run": {"runId": "7"}}, {"eventType": "DONE"}, {"extra": 1}):
        assert list(checked.iter_errors({**events(exports["openlineage"])[0], **spoilt})), spoilt


def test_openlineage_events_are_read_by_its_client(exports: dict[str, str]) -> None:
    from openlineage.client import event_v2 as v2
    from openlineage.client.generated.parent_run import Job, ParentRunFacet, Run
    from openlineage.client.serde import Serde

    for event in events(exports["openlineage"]):
        facets = event["run"].get("facets", {})
        assert all(name.startswith("r1kit_") or name == "parent" for name in facets)
        if parent := facets.get("parent"):
            ParentRunFacet(run=Run(**parent["run"]), job=Job(**parent["job"]))
        read = v2.RunEvent(
            eventTime=event["eventTime"],
            producer=event["producer"],
            eventType=v2.RunState[event["eventType"]],
            run=v2.Run(event["run"]["runId"], facets),
            job=v2.Job(**event["job"]),
            inputs=[v2.InputDataset(**data) for data in event["inputs"]],
            outputs=[v2.OutputDataset(**data) for data in event["outputs"]],
        )
        again = json.loads(Serde.to_json(read))
        assert again["run"] == {"runId": event["run"]["runId"], "facets": facets}
        assert [data["name"] for data in again["inputs"]] == [data["name"] for data in event["inputs"]]
        assert again["schemaURL"] == event["schemaURL"]


def test_openlineage_lines_are_the_ledgers_entries(making: Making, exports: dict[str, str]) -> None:
    digests = {recorded.digest for recorded in open_ledger(making.workspace).entries()}
    lines = exports["openlineage"].splitlines()
    kept = [line for line in lines if digest_bytes(line.encode()) in digests]
    assert len(kept) == len(making.events) == len(digests)
    kinds: dict[str, list[str]] = {}
    for event in events(exports["openlineage"]):
        kinds.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert all(kind[0] == "START" for kind in kinds.values())
    assert sum(kind[1:] == ["COMPLETE"] for kind in kinds.values()) == len(kinds) - 1  # an intended promotion


# SLSA


def test_slsa_is_in_toto_and_signed(making: Making, exports: dict[str, str]) -> None:
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    stated = opened(exports["slsa"], making.workspace)
    parsed = json_format.ParseDict(stated, statement_pb2.Statement())  # pyright: ignore[reportAttributeAccessIssue]
    Statement.copy_from_pb(parsed).validate()
    provenance = json_format.ParseDict(stated["predicate"], provenance_pb2.Provenance())  # pyright: ignore[reportAttributeAccessIssue]
    definition, details = provenance.build_definition, provenance.run_details
    assert definition.build_type and definition.external_parameters["run"] == "run-1"
    assert details.builder.id.startswith("urn:r1kit:workspace:")
    assert details.metadata.started_on.ToDatetime() < details.metadata.finished_on.ToDatetime()
    found = {dependency.name: dict(dependency.digest) for dependency in definition.resolved_dependencies}
    assert found["gsm8k/train.jsonl"] == {"sha256": RAW_SHA256}
    lock = hashlib.sha256((REPOSITORY / "requirements.lock").read_bytes()).hexdigest()
    assert found["requirements.lock"] == {"sha256": lock}
    rows = hashlib.sha256((making.workspace.root / "made/run-1/problems.parquet").read_bytes()).hexdigest()
    assert found["data/problems"]["sha256"] == rows


def test_slsa_subjects_are_the_models_files(making: Making, exports: dict[str, str]) -> None:
    subjects = {s["name"]: s["digest"] for s in opened(exports["slsa"], making.workspace)["subject"]}
    place = local_path(making.report.uri)
    assert place is not None and subjects.keys() == {making.title, *(f.name for f in place.iterdir())}
    for file in place.iterdir():
        assert subjects[file.name] == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    command = "find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum | cut -f1 -d' '"
    listed = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, check=True)
    assert subjects[making.title]["dirHash"] == listed.stdout.strip()
    assert "sha256:" + subjects[making.title]["r1kitManifest"] == making.report.digest


def test_an_altered_statement_is_noticed(making: Making, exports: dict[str, str]) -> None:
    envelope = json.loads(exports["slsa"])
    payload = base64.b64decode(envelope["payload"]).replace(b"run-1", b"run-2")
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(InvalidSignature):
        opened(json.dumps(envelope), making.workspace)


# CycloneDX


def test_cyclonedx_is_valid_and_complete(making: Making, exports: dict[str, str]) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    strict = JsonStrictValidator(SchemaVersion.V1_6)
    assert strict.validate_str(exports["cyclonedx"]) is None
    assert strict.validate_str(exports["cyclonedx"].replace('"timestamp"', '"moment"', 1)) is not None
    bom = json.loads(exports["cyclonedx"])
    references = [part["bom-ref"] for part in bom["components"]]
    assert len(references) == len(set(references))
    packages = [part for part in bom["components"] if part.get("purl")]
    wanted = [line for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if "==" in line]
    assert len(packages) == len(wanted)
    assert sum("licenses" in part for part in packages) > 0.9 * len(packages)
    pydantic = next(part for part in packages if part["name"] == "pydantic")
    assert pydantic["purl"] == f"pkg:pypi/pydantic@{pydantic['version']}"
    assert pydantic["licenses"] == [{"license": {"id": "MIT"}}]
    data = next(part for part in bom["components"] if part["bom-ref"].startswith("data/problems"))
    assert data["licenses"][0] == {"license": {"id": "MIT"}} and HOSTILE in data["licenses"][1]["license"]["name"]
    model = bom["metadata"]["component"]
    shown = model["modelCard"]
    assert shown["modelParameters"]["approach"] == {"type": "reinforcement-learning"}
    assert shown["modelParameters"]["datasets"] == [{"ref": data["bom-ref"]}]
    metrics = {(m["type"], m["slice"]): m for m in shown["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["pass@1", "arithmetic"]["value"] == "0.86"
    assert metrics["preference", "general"]["confidenceInterval"] == {"lowerBound": "0.6", "upperBound": "0.8"}
    assert [ancestor["name"] for ancestor in model["pedigree"]["ancestors"]] == ["base", "zero", "refine → dev3"]
    assert "annotations" not in bom


def test_a_lock_is_read_with_its_hashes() -> None:
    text = (
        f"# a comment\nTorch==2.13.0 --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n-e .\n"
        "some[extra]==1.0 ; python_version > '3'  # why\nloose>=2\n"
    )
    found = {package.name: package for package in read_lock(text)}
    assert found.keys() == {"torch", "some"}
    assert found["torch"].hashes == ("a" * 64, "b" * 64) and found["some"].version == "1.0"
    assert found["some"].licence == ""


def test_a_lock_is_found_at_the_commit_that_had_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.exports.packages.REPOSITORY", tmp_path)
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==1.0\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "A lock"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    old = {"lock_digest": digest_bytes(lock.read_bytes()), "commit": head.stdout.strip() + "+changes"}
    lock.write_text("torch==2.0\n")
    (found,) = locks_of([old])
    assert found.packages is not None and found.packages[0].version == "1.0"
    for lost in ({**old, "commit": "--output=/tmp/x"}, {**old, "commit": "f" * 40}, {**old, "commit": ""}):
        assert locks_of([lost])[0].packages is None


# The model card


def test_the_card_is_read_by_the_hubs_own_library(exports: dict[str, str], making: Making) -> None:
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import EvalResult

    read = ModelCard(exports["card"])
    data: Any = read.data
    assert data.license == "other" and data.pipeline_tag == "text-generation" and data.datasets[0] == "gsm8k_train"
    results = data.eval_results
    assert all(isinstance(result, EvalResult) for result in results) and len(results) == 2
    assert results[0].metric_value == 0.86 and results[0].dataset_name == "arithmetic"
    assert data.model_name == making.title
    read.data.to_dict()
    for title in ("Model details", "Uses", "Training data", "Training procedure", "Evaluation", "Verification"):
        assert f"## {title}" in read.text
    assert making.report.digest in read.text and "alice@example" in read.text


def test_the_card_shows_hostile_text_and_does_not_obey_it(exports: dict[str, str]) -> None:
    from markdown_it import MarkdownIt

    body = exports["card"].split("---\n", 2)[2]
    assert "\u202e" not in exports["card"] and "<script" not in body
    tags = Tags()
    tags.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
    assert not tags.names & {"script", "img"} and tags.handlers == [] and tags.addresses == []
    assert {"table", "h1", "h2"} <= tags.names
    assert card.escape("a|b\n*c* <b>\x07") == r"a\|b \*c\* &lt;b&gt;⟨U+0007⟩"
    assert card.escape("- a_b _c_ [d](e) # f") == r"\- a_b \_c\_ \[d\](e) # f"


def test_a_pretrained_base_is_named(making: Making) -> None:
    assert "base_model" not in FORMATS["card"].render(making)
    first = next(step for step in making.steps if step.record.stage == "base")
    given = {"model": {"source": "Qwen/Qwen2.5-1.5B", "revision": "a" * 40}}
    step = dataclasses.replace(first, record=first.record.model_copy(update={"config": given}))
    steps = tuple(step if each is first else each for each in making.steps)
    changed = dataclasses.replace(making, steps=steps)
    assert "base_model: Qwen/Qwen2.5-1.5B" in FORMATS["card"].render(changed)
    dependencies = opened(FORMATS["slsa"].render(changed), making.workspace)["predicate"]["buildDefinition"]
    base = {"name": "base model", "uri": "pkg:huggingface/Qwen/Qwen2.5-1.5B", "digest": {"gitCommit": "a" * 40}}
    assert base in dependencies["resolvedDependencies"]


# PROV


def test_prov_is_read_and_written_back(making: Making, exports: dict[str, str]) -> None:
    from prov.model import (
        ProvActivity,
        ProvAgent,
        ProvDerivation,
        ProvDocument,
        ProvElement,
        ProvEntity,
        ProvGeneration,
        ProvRelation,
    )

    read: Any = ProvDocument.deserialize(content=exports["prov"], format="json")
    assert ProvDocument.deserialize(content=read.serialize(format="json"), format="json") == read
    assert len(list(read.get_records(ProvEntity))) == len(making.things)
    people = {next(iter(agent.get_attribute("prov:label"))) for agent in read.get_records(ProvAgent)}
    assert people >= {making.producer, "submitter@example.org", "alice@example.org"}
    named = {str(record.identifier) for record in read.get_records(ProvElement)}
    for relation in read.get_records(ProvRelation):
        ends = [str(value) for name, value in relation.formal_attributes if name.localpart not in ("time", "activity")]
        assert all(end in named for end in ends if end != "None"), relation
    made = [str(record.formal_attributes[0][1]) for record in read.get_records(ProvGeneration)]
    assert len(made) == len(set(made)) and f"artifact:{making.model.hexadecimal}" in made
    assert list(read.get_records(ProvDerivation))
    assert len(list(read.get_records(ProvActivity))) == len(making.events)


# The dossier


class Marks(HTMLParser):
    """Classes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.classes += (dict(attrs).get("class") or "").split()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_dossier_has_all_nine_sections(exports: dict[str, str], making: Making) -> None:
    tags, marks = Tags(), Marks()
    tags.feed(exports["dossier"])
    marks.feed(exports["dossier"])
    assert {f"section-{number}" for number in range(1, 10)} <= tags.ids
    points = [point for section in SECTIONS for point in section.points]
    assert [p.number for p in points if p.number[0] in "12"] == [f"1({c})" for c in "abcdefgh"] + [
        f"2({c})" for c in "abcdefgh"
    ]
    assert len(tags.addresses) == len(points) and {a.removeprefix("#") for a in tags.addresses} <= tags.ids
    assert marks.classes.count("todo") == sum(bool(point.missing) for point in points)
    assert "lineage" in marks.classes and "dots" in marks.classes and "svg" in tags.names
    for told in (making.report.digest, "gsm8k_train", RAW_SHA256, "86.0 %", "alice@example.org", "signature verified",
                 "prefer → r1", "prefer.steps", "LlamaForCausalLM", "torch"):  # fmt: skip
        assert told in marks.text, told


def test_the_dossier_asks_nothing_and_runs_nothing(exports: dict[str, str]) -> None:
    tags, text = Tags(), exports["dossier"]
    tags.feed(text)
    assert not tags.names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert all(address.startswith("#") for address in tags.addresses) and tags.handlers == []
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    assert HOSTILE not in text and "&lt;script&gt;document.title=" in text
    assert "\u202e" not in text and "\x07" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed to open the dossier with")
def test_a_browser_draws_the_dossier_on_a_phone(exports: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "dossier.html"
    page.write_text(exports["dossier"])
    document = drawn(page, tmp_path)
    assert "<title>Technical documentation" in document and "<title>owned" not in document


# Writing


def test_all_are_written_with_their_digests(making: Making, exports: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "exports"
    written = write_exports(making, "all", out)
    assert [each.format for each in written] == list(FORMATS)
    for each in written:
        assert each.digest == digest_bytes(each.path.read_bytes()) and each.path.read_text() == exports[each.format]
    assert {path.name for path in out.iterdir()} == {each.path.name for each in written}
    (one,) = write_exports(making, "prov", out)
    assert one.path == out / "prov.json"
    (own,) = write_exports(making, "prov", tmp_path / "deep" / "own.json")
    assert own.digest == one.digest and own.path.is_file()


def test_what_cannot_be_is_refused_in_a_sentence(making: Making, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no export format 'pdf'; there are openlineage, slsa, .*dossier, and all$"):
        check_format("pdf")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file; name another place"):
        write_exports(making, "all", tmp_path / "file")
    with pytest.raises(ValueError, match="is a file; name another place"):
        write_exports(making, "prov", tmp_path / "file" / "prov.json")
    assert (tmp_path / "file").read_text() == "mine"


def test_no_new_key_is_made_to_sign_with(making: Making, tmp_path: Path) -> None:
    key = making.workspace.keys_dir / "signing.pem"
    kept = key.read_bytes()
    key.unlink()
    try:
        with pytest.raises(
            ValueError, match=r"signing\.pem is not here, so the provenance of r1kit-staging/1 cannot be"
        ):
            write_exports(making, "slsa", tmp_path / "slsa.json")
        written = {each.format: each for each in write_exports(making, "all", tmp_path)}
        assert not key.exists() and "is not here" in written["slsa"].refused and not written["slsa"].path.exists()
        assert all(each.path.is_file() for name, each in written.items() if name != "slsa")
    finally:
        key.write_bytes(kept)
