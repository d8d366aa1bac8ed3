"""The gate in front of training: clean data pass, each fault is named, a broken check is not called bad data."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1kit import tinyworld
from r1kit.config import Config
from r1kit.data.normalise import normalise
from r1kit.rows import PreferencePair, Problem, Row, SftRow, write_rows
from tasks import data_rules, expectations, slices, validate
from tasks.expectations import Outcome, Rule, examine, free_of
from tasks.report.facts import Run
from tasks.report.page import _validation
from tasks.slices import Examination
from tasks.stage import StageContext, StageOutput, plan_stage
from tasks.tallies import SourceTally
from tests.tasks import made_up_run

Rows = dict[str, list[Any]]
CLASSES: dict[str, type[Row]] = {
    "pretrain": SftRow, "problems": Problem, "chains": SftRow,
    "instructions": SftRow, "preferences": PreferencePair, "benchmarks": Problem,
}  # fmt: skip
MOST_CHARACTERS = 2000


@pytest.fixture(scope="module")
def clean() -> Rows:
    """A small world without a fault."""
    rows: Rows = {
        "pretrain": list(tinyworld.pretrain(1, 12)),
        "problems": [*tinyworld.problems(2, 8), *tinyworld.general_problems(2, 4)],
        "chains": list(tinyworld.chains(3, 6)),
        "instructions": list(tinyworld.instructions(4, 6)),
        "preferences": list(tinyworld.preferences(5, 40)),
        "benchmarks": list(tinyworld.problems(999, 6, "tinyworld")),
    }
    return {kind: [row.model_copy(update={"source": "tinyworld"}) for row in own] for kind, own in rows.items()}


class Gate:
    """Lays data sets out as the data stage does, and has them examined."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tally: dict[str, dict[str, Any]] = {kind: {} for kind in CLASSES}
        self.manifest: dict[str, Any] = {}
        self.quarantine: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {"verify_rows": 0, "max_text_characters": MOST_CHARACTERS}
        self.unused: set[str] = set()
        self.procedural = True
        self.compare_slices = False

    @property
    def verdict(self) -> dict[str, Any]:
        return json.loads((self.root / "work" / "validation.json").read_text())

    def lay(self, rows: Rows) -> None:
        for kind, own in rows.items():
            write_rows(self.root / f"{kind}.parquet", own, CLASSES[kind])
        self.tell(rows)

    def tell(self, rows: Rows) -> None:
        """Write manifest and quarantine for the files that lie there."""
        sources = [
            {
                "kind": kind, "source": "tinyworld", "files": [], "licence": tinyworld.LICENCE,
                "rows_read": len(own), "rows_kept": len(own), "quarantined": 0, "duplicates": 0, "contaminated": 0,
                **self.tally[kind],
            }
            for kind, own in rows.items() if kind not in self.unused
        ]  # fmt: skip
        digests = {kind: hashlib.sha256((self.root / f"{kind}.parquet").read_bytes()).hexdigest() for kind in rows}
        kinds = {kind: {"rows": len(own), "sha256": digests[kind]} for kind, own in rows.items()}
        manifest = {"format": "r1kit data 1", "kinds": kinds, "sources": sources} | self.manifest
        (self.root / "manifest.json").write_text(json.dumps(manifest))
        (self.root / "quarantine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.quarantine))

    def config(self) -> Config:
        data: dict[str, Any] = {kind: [{"source": "tinyworld", "limit": 9}] for kind in CLASSES.keys() - self.unused}
        data["allowed_licences"] = [tinyworld.LICENCE]
        return Config.model_validate({"data": data, "validate": self.settings})

    def run(self) -> StageOutput:
        (self.root / "work").mkdir(exist_ok=True)
        inputs = {kind: self.root / f"{kind}.parquet" for kind in CLASSES}
        inputs |= {"manifest": self.root / "manifest.json", "quarantine": self.root / "quarantine.jsonl"}
        return validate.run(
            StageContext(
                name="validate", variant="", config=self.config(), seed=0, key="sha256:0", workdir=self.root / "work",
                cache_dir=self.root, inputs=inputs, digests={role: f"sha256:{role}" for role in inputs},
                log=lambda *_: None, say=lambda _: None,
            )
        )  # fmt: skip

    def judge(self, rows: Rows) -> StageOutput:
        self.lay(rows)
        return self.run()

    def examine(self, kind: str, rows: list[Any], benchmarks: Mapping[str, str] | None = None) -> dict[str, Outcome]:
        """Rule → what became of it, of one kind of rows alone."""
        path = self.root / f"{kind}.parquet"
        write_rows(path, rows, CLASSES[kind])
        tally = SourceTally(tinyworld.LICENCE, self.procedural, len(rows), len(rows), 0, 0, 0)
        around = validate.surroundings(self.config(), kind, benchmarks or {}, {"tinyworld": tally})
        outcomes = self.sliced(path, around, 1 << 20)
        if self.compare_slices:
            assert [o.to_json() for o in outcomes] == [o.to_json() for o in self.sliced(path, around, 7)]
        assert not any(outcome.error for outcome in outcomes)
        return {outcome.rule.name: outcome for outcome in outcomes}

    def sliced(self, path: Path, around: data_rules.Surroundings, rows: int) -> list[Outcome]:
        """The outcomes of a file that is examined so many rows at a time: they must not depend on it."""
        examination, table = Examination(around), pq.read_table(path)
        for start in range(0, max(1, table.num_rows), rows):
            examination.add(table.slice(start, rows))
        return examination.finish()

    def failed(self) -> dict[str, list[str]]:
        """Kind → rules that failed."""
        failed = {
            file["kind"]: [check["rule"] for check in file["checks"] if not check["success"]]
            for file in self.verdict["files"]
        }
        return {kind: rules for kind, rules in failed.items() if rules}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def planted(rows: list[Any], place: int, changes: Mapping[str, Any]) -> list[Any]:
    """The same rows, one of them changed without asking its type."""
    changed = list(rows)
    changed[place] = changed[place].model_copy(update=changes)
    return changed


def test_clean_data_pass(gate: Gate, clean: Rows) -> None:
    gate.settings["verify_rows"] = 8
    output = gate.judge(clean)
    verdict = gate.verdict
    assert verdict["format"] == "r1kit validation 1" and verdict["success"] is True
    assert output.outputs == {"validation": ("validation", gate.root / "work" / "validation.json")}
    assert [file["kind"] for file in verdict["files"]] == list(CLASSES)
    for file in verdict["files"]:
        assert file["digest"] == f"sha256:{file['kind']}" and file["rows"] == len(clean[file["kind"]])
        assert file["success"] and all(check["success"] and not check["failed"] for check in file["checks"])
    assert verdict["verified"] == {"rows": 8, "passed": 8, "kinds": {"problems": 4, "benchmarks": 4}}
    assert output.metrics["rows_problems"] == 12 and output.metrics["failed_checks"] == 0


def test_the_same_bytes_get_the_same_verdict(gate: Gate, clean: Rows) -> None:
    gate.settings["verify_rows"] = 5
    gate.judge(clean)
    first = (gate.root / "work" / "validation.json").read_bytes()
    gate.run()
    assert (gate.root / "work" / "validation.json").read_bytes() == first


FAULTS: list[tuple[str, Mapping[str, Any], str]] = [
    ("problems", {"id": "letter_counting/2-0"}, "ids are unique"),
    ("pretrain", {"source": None}, "no value is missing"),
    ("instructions", {"prompt": " \n"}, "prompt is not blank"),
    ("pretrain", {"response": ""}, "response is not blank"),
    ("preferences", {"chosen": "\t"}, "chosen is not blank"),
    ("chains", {"licence": ""}, "licence is not blank"),
    ("instructions", {"prompt": "x" * 50_001}, "prompt is not too long"),
    ("instructions", {"response": "x" * (MOST_CHARACTERS + 1)}, "no other text is too long"),
    ("problems", {"solution": "x" * (MOST_CHARACTERS + 1)}, "no other text is too long"),
    ("preferences", {"language": "de"}, "language is allowed"),
    ("problems", {"verifier": "oracle"}, "verifier is allowed"),
    ("problems", {"route": "harmful"}, "route is allowed"),
    ("preferences", {"split": "test"}, "split is allowed"),
    ("chains", {"kind": "instruction"}, "kind is allowed"),
    ("instructions", {"licence": "all rights reserved"}, "licence is allowed"),
    ("problems", {"answer": " "}, "the verifier has what it needs"),
    ("problems", {"meta": "{"}, "the verifier has what it needs"),
    ("problems", {"meta": "[]"}, "the verifier has what it needs"),
    ("problems", {"meta": '{"dataset": "chain_sum"}'}, "the verifier has what it needs"),
    ("problems", {"verifier": "code"}, "the verifier has what it needs"),
    ("problems", {"verifier": "code", "tests": "assert f()"}, "the verifier has what it needs"),
    ("problems", {"verifier": "debug", "tests": "assert f()", "solution": "x"}, "the verifier has what it needs"),
    ("benchmarks", {"verifier": "none"}, "the verifier has what it needs"),
    ("chains", {"response": "<think> 1 plus 1 </think> 2"}, "response is one chain and one answer"),
    ("pretrain", {"weight": 0.0}, "weight is a positive number"),
    ("chains", {"weight": float("nan")}, "weight is a positive number"),
    ("preferences", {"chosen": "go away", "rejected": "go away "}, "chosen differs from rejected"),
    ("benchmarks", {"benchmark": ""}, "benchmark is not blank"),
    ("problems", {"benchmark": "tinyworld"}, "no row belongs to a benchmark"),
    ("instructions", {"response": "word " * 390}, "no row has too many tokens"),
    ("chains", {"prompt": "这是什么？" * 40}, "rows are in their language"),
]


@pytest.mark.parametrize(("kind", "changes", "rule"), FAULTS)
def test_a_planted_row_is_named(gate: Gate, clean: Rows, kind: str, changes: Mapping[str, Any], rule: str) -> None:
    gate.settings |= {"max_row_tokens": 400, "max_other_language_share": 0}
    gate.compare_slices = rule in ("ids are unique", "weight is a positive number", "split is allowed")
    outcome = gate.examine(kind, planted(clean[kind], 2, changes))[rule]
    places = [example["row"] for example in outcome.examples]
    assert 3 in places and not outcome.success
    assert (outcome.failed, outcome.checked) == (len(places), len(clean[kind]))


@pytest.mark.parametrize("kind", ["pretrain", "problems", "chains", "instructions", "preferences"])
def test_a_benchmark_prompt_in_training_data_is_found(gate: Gate, clean: Rows, kind: str) -> None:
    benchmark = clean["benchmarks"][0]
    rows = planted(clean[kind], 0, {"prompt": f"  {benchmark.prompt.upper()}"})
    found = gate.examine(kind, rows, {normalise(benchmark.prompt): benchmark.id})
    faults = [outcome for outcome in found.values() if not outcome.success]
    assert [outcome.rule.name for outcome in faults] == ["no prompt is a benchmark's"]
    assert faults[0].examples == ({"row": 1, "id": clean[kind][0].id, "value": benchmark.id},)


def test_the_sentence_names_file_rule_number_row_value_limit_and_way_out(gate: Gate, clean: Rows) -> None:
    rows = planted(planted(clean["instructions"], 1, {"language": "de"}), 4, {"language": "fr"})
    with pytest.raises(ValueError) as caught:
        gate.judge({**clean, "instructions": rows})
    assert gate.failed() == {"instructions": ["language is allowed"]} and not gate.verdict["success"]
    assert str(caught.value) == (
        "the data set instructions breaks the rule 'language is allowed' (limit: one of en, zh): 2 of 6 fail, first "
        f"'{rows[1].id}' (row 2): \"de\"; mend or remove these rows in their source; everything found "
        f"stands in {gate.root / 'work' / 'validation.json'}"
    )


def test_a_missing_column_or_another_type_is_named(gate: Gate, clean: Rows) -> None:
    gate.lay(clean)
    path = gate.root / "chains.parquet"
    table = pq.read_table(path)
    texts = pa.array([str(weight) for weight in table.column("weight").to_pylist()])
    pq.write_table(table.drop_columns(["response", "weight"]).append_column("weight", texts), path)
    gate.tell(clean)
    with pytest.raises(ValueError, match="data set chains breaks the rule 'every column is there") as caught:
        gate.run()
    assert "2 of 9 fail" in str(caught.value)
    chains = next(file for file in gate.verdict["files"] if file["kind"] == "chains")
    assert {e["id"]: e["value"] for e in chains["checks"][0]["examples"]} == {"response": "missing", "weight": "string"}


def test_files_that_cannot_be_read_are_named(gate: Gate, clean: Rows) -> None:
    gate.lay(clean)
    (gate.root / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="has format None"):
        gate.run()
    (gate.root / "problems.parquet").write_text("torn")
    gate.tell(clean)
    with pytest.raises(ValueError, match=r"problems file .* is not Parquet"):
        gate.run()
    gate.lay(clean)
    (gate.root / "quarantine.jsonl").write_text('{"kind": "problems"}\n{"ki')
    with pytest.raises(ValueError, match="line 2 is not a JSON object"):
        gate.run()


def test_a_kind_that_the_profile_does_not_ask_for_may_be_empty(gate: Gate, clean: Rows) -> None:
    gate.unused = {"pretrain", "preferences"}
    gate.judge({**clean, "pretrain": [], "preferences": []})
    assert gate.verdict["success"]


def test_a_kind_that_the_profile_asks_for_has_rows(gate: Gate, clean: Rows) -> None:
    with pytest.raises(ValueError, match="chains"):
        gate.judge({**clean, "chains": []})
    assert gate.failed() == {"chains": ["every source gave rows", "there are enough rows"]}


def test_a_manifest_of_other_data_is_found(gate: Gate, clean: Rows) -> None:
    gate.tally["chains"] = {"source": "elsewhere"}
    with pytest.raises(ValueError, match=r"without tinyworld.*1 more check failed"):
        gate.judge(clean)
    assert gate.failed() == {
        "chains": ["the manifest knows every source of the profile", "the manifest tells of the source"]
    }
    write_rows(gate.root / "problems.parquet", clean["problems"][1:], Problem)
    with pytest.raises(ValueError, match="tells of problems with sha256"):
        gate.run()


def test_both_routes_and_both_splits_are_needed(gate: Gate, clean: Rows) -> None:
    rule = "both routes have pairs to train on and to hold out"
    assert gate.examine("preferences", clean["preferences"])[rule].success
    rows = [pair for pair in clean["preferences"] if (pair.route, pair.split) != ("harmless", "heldout")]
    assert gate.examine("preferences", rows)[rule].examples[0]["value"] == "without harmless heldout"
    gate.unused = {"preferences"}
    assert rule not in gate.examine("preferences", [])


def test_few_rows_may_be_nearly_another_but_for_templates(gate: Gate, clean: Rows) -> None:
    rule = "few rows are nearly another"
    text = " ".join(f"word{number}" for number in range(200))
    row = clean["instructions"][0]
    rows = [row.model_copy(update={"id": f"r/{n}", "prompt": f"{text} {'x' * n}"}) for n in range(3)]
    rows += [row.model_copy(update={"id": f"o/{n}", "prompt": f"{n} ".join(text.split()[n:])}) for n in range(7)]
    assert gate.examine("instructions", rows)[rule].success  # the source says that it follows templates
    gate.procedural = False
    gate.compare_slices = True
    found = gate.examine("instructions", rows)[rule]
    assert found.success and [example["id"] for example in found.examples] == ["r/1", "r/2"]
    gate.settings["max_near_duplicate_share"] = 0.1
    assert not gate.examine("instructions", rows)[rule].success


def test_length_alone_must_not_tell_the_preferred_response(gate: Gate, clean: Rows) -> None:
    rule = "length alone does not tell the preferred response"
    rows = [row.model_copy(update={"route": "helpful"}) for row in clean["preferences"]]
    assert gate.examine("preferences", rows)[rule].success
    longer = [row.model_copy(update={"chosen": f"{row.rejected} and so on"}) for row in rows]
    found = gate.examine("preferences", longer)[rule]
    assert not found.success and found.examples[0]["id"] == "helpful" and found.examples[0]["value"] == 1


def test_no_pair_stands_the_other_way_round_too(gate: Gate, clean: Rows) -> None:
    rule = "no pair stands the other way round too"
    rows = [pair.model_copy(update={"prompt": f"{pair.prompt} {n}"}) for n, pair in enumerate(clean["preferences"])]
    gate.procedural = False
    gate.compare_slices = True
    assert gate.examine("preferences", rows)[rule].success
    turned = {"prompt": rows[0].prompt, "chosen": rows[0].rejected, "rejected": rows[0].chosen.upper()}
    found = gate.examine("preferences", planted(rows, -1, turned))[rule]
    assert [example["value"] for example in found.examples] == [rows[0].id] and not found.success
    gate.procedural = True
    assert gate.examine("preferences", planted(rows, -1, turned))[rule].success


def test_no_prompt_is_on_both_sides_but_for_templates(gate: Gate, clean: Rows) -> None:
    rule = "no prompt is on both sides of the split"
    rows = [pair.model_copy(update={"prompt": f"{pair.prompt} {n}"}) for n, pair in enumerate(clean["preferences"])]
    assert (rows[0].split, rows[-1].split) == ("train", "heldout")
    gate.procedural = False
    assert gate.examine("preferences", rows)[rule].success
    rows = planted(rows, -1, {"prompt": rows[0].prompt})
    assert gate.examine("preferences", rows)[rule].examples[0]["value"] == rows[0].id
    gate.procedural = True
    assert gate.examine("preferences", rows)[rule].success


def lines(number: int, rule: str) -> list[dict[str, Any]]:
    return [
        {"kind": "problems", "source": "tinyworld", "file": "a.jsonl", "row": row, "field": "answer", "value": "?",
         "reason": "no number", "rule": rule}
        for row in range(number)
    ]  # fmt: skip


def test_quarantine_stops_past_the_share_and_not_before(gate: Gate, clean: Rows) -> None:
    gate.tally["problems"] = {"rows_read": 100, "quarantined": 5, "contaminated": 7, "duplicates": 9}
    gate.quarantine = lines(5, "unverifiable") + lines(7, "contaminated") + lines(9, "duplicate")
    output = gate.judge(clean)
    problems = gate.verdict["files"][1]
    assert (problems["quarantined"], problems["quarantine_share"]) == (5, 0.05)
    assert (problems["contaminated"], problems["duplicates"]) == (7, 9)
    assert gate.verdict["quarantine"]["counts"] == {"contaminated": 7, "duplicate": 9, "unverifiable": 5}
    assert len(gate.verdict["quarantine"]["first"]) == 10 and output.metrics["quarantined"] == 5

    gate.quarantine += lines(1, "json")  # one more than the manifest owns up to
    with pytest.raises(ValueError, match=r"max_quarantine_share") as caught:
        gate.judge(clean)
    assert "'tinyworld' (row 1): 0.06" in str(caught.value) and "at most 0.05" in str(caught.value)
    gate.settings["max_quarantine_share"] = 0.06
    gate.judge(clean)


def test_a_gold_answer_that_does_not_score_1_stops(gate: Gate, clean: Rows) -> None:
    gate.settings["verify_rows"] = 100
    with pytest.raises(ValueError, match=r"'the gold answer scores 1'.*elephant scored 0"):
        gate.judge({**clean, "benchmarks": planted(clean["benchmarks"], 3, {"answer": "elephant"})})
    verdict = gate.verdict
    assert verdict["verified"] == {"rows": 14, "passed": 13, "kinds": {"problems": 8, "benchmarks": 6}}
    assert verdict["files"][-1]["checks"][-1]["examples"][0]["row"] == 4


def test_a_check_that_crashes_is_not_bad_data(gate: Gate, clean: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary: Callable[..., Any] = data_rules.rows_examined

    def with_broken_rule(*given: Any) -> Any:
        examined = ordinary(*given)
        return replace(examined, rules=[*examined.rules, free_of("the moon is full", "moon")])

    monkeypatch.setattr(slices, "rows_examined", with_broken_rule)
    with pytest.raises(RuntimeError, match=r"validation itself is broken.*'the moon is full' of pretrain.*moon"):
        gate.judge({**clean, "pretrain": planted(clean["pretrain"], 0, {"language": "de"})})
    checks = gate.verdict["files"][0]["checks"]
    (broken,) = (check for check in checks if "error" in check)
    assert gate.verdict["success"] is False and "moon" in broken["error"]
    assert any(check["rule"] == "language is allowed" and check["failed"] == 1 for check in checks)


def frame(**columns: list[Any]) -> Any:
    import pandas as pd

    size = len(next(iter(columns.values())))
    return pd.DataFrame({"row": range(1, size + 1), "id": [f"r{n}" for n in range(size)], **columns})


def test_rows_that_great_expectations_skips_are_not_taken_for_sound() -> None:
    found = examine(frame(value=["a", None, "a"]), [expectations.among("known", "value", ["a"])])
    assert not found[0].success and found[0].error == "it looked at 2 of 3 rows"


def test_an_exception_of_great_expectations_is_a_broken_check(monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.datasource.fluent.interfaces import Batch

    def fall_over(*_: Any, **__: Any) -> Any:
        raise ValueError("out of order")

    monkeypatch.setattr(Batch, "validate", fall_over)
    found = examine(frame(value=["a"]), [expectations.among("known", "value", ["a"])])
    assert found[0].error == "ValueError: out of order" and not found[0].success


def test_outcomes_come_in_the_order_of_the_rules() -> None:
    rules: list[Rule] = [
        expectations.among("few", "value", ["a"]),
        expectations.among("more", "value", ["a", "b"]),
        expectations.contains("all", "value", ["a", "c"]),
    ]
    found = examine(frame(value=["a", "a", "b"]), rules)
    assert [outcome.rule.name for outcome in found] == ["few", "more", "all"]
    assert [outcome.failed for outcome in found] == [1, 0, 1]
    assert found[0].examples == ({"row": 3, "id": "r2", "value": "b"},)


def test_the_key_follows_what_the_verdict_depends_on(gate: Gate) -> None:
    def key() -> str:
        return plan_stage("validate", gate.config(), {}).key

    before = key()
    assert key() == before
    gate.settings["min_rows"] = 2
    assert key() != before


def test_the_report_shows_the_verdict(gate: Gate, clean: Rows, tmp_path: Path) -> None:
    gate.judge(clean)
    run = Run(made_up_run.write(tmp_path / "run"), [], {}, gate.verdict, {}, "")
    shown = _validation(run)
    assert shown is not None and shown["words"] == "The gate let these bytes through."
    assert [row["kind"] for row in shown["rows"]] == list(CLASSES)
    assert len(shown["checks"]) == sum(len(file["checks"]) for file in gate.verdict["files"])
