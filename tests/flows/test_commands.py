"""What a person types after a run: every command does its work, refuses in one sentence, and says how it is used."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard
from prov.model import ProvDocument

from tasks.artifacts import digest_bytes, local_path
from tests.flows.conftest import WholeRun
from tests.flows.copies import Copy, Done, stages
from tests.tasks.recipe import approver

pytestmark = pytest.mark.timeout(600)

COMMANDS = (
    "run", "status", "report", "chat", "eval", "audit", "export", "approve", "pending", "promote", "rollback", "gc",
    "score", "deploy", "doctor",
)  # fmt: skip
STRAWBERRY = 'How many times does the letter "r" appear in the text: "strawberry"?'
FIRST, SECOND = "r1kit-micro-candidate/1", "r1kit-micro-candidate/2"


def one_sentence(done: Done, code: int = 1) -> str:
    """The error of a refused command: one line on standard error, nothing on standard output."""
    told = refusal(done, code)
    assert "\n" not in told, told
    return told


def refusal(done: Done, code: int = 1) -> str:
    """The same where several things stand in the way: one line each, below the first."""
    assert done.code == code and done.out == ""
    first, *more = done.err.strip().splitlines()
    assert first.startswith("error: ") and all(line.startswith("  ") for line in more), done.err
    return done.err.strip().removeprefix("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(untouched: Copy, command: str) -> None:
    done = untouched.r1(command, "--help")
    assert done.code == 0 and done.err == ""
    assert "Example" in done.out and f"r1 {command} " in done.out.replace("\n", " ")
    assert "--json" in done.out


def test_help_names_every_command(untouched: Copy) -> None:
    done = untouched.r1("--help")
    assert done.code == 0 and all(f" {command} " in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", ["status", "report", "chat", "eval", "audit", "promote", "approve", "rollback"])
def test_before_any_run_commands_say_so(untouched: Copy, command: str) -> None:
    options = {
        "chat": ["r1", "?"], "promote": ["r1", "--to", "staging"], "rollback": ["staging"],
        "approve": ["r1", "--to", "staging", "--as", "a@b.c"],
    }  # fmt: skip
    one_sentence(untouched.r1(command, *options.get(command, [])))
    assert not untouched.workspace.exists() or not list(untouched.workspace.glob("runs/*"))


@pytest.mark.parametrize("command", [["nonsense"], ["run", "--nonsense"], ["promote"], ["status", "more"]])
def test_wrong_usage_is_an_error(untouched: Copy, command: list[str]) -> None:
    done = untouched.r1(*command)
    assert done.code == 2 and done.out == "" and done.err


def test_status_shows_the_latest_run(whole: WholeRun) -> None:
    told = whole.copy.r1("status", "--json")
    assert told.code == 0 and told.json == whole.copy.summary()
    shown = whole.copy.r1("status")
    assert shown.code == 0 and shown.err == ""
    assert all(stage in shown.out for stage in stages(told.json)) and told.json["run_id"] in shown.out


def test_report_is_written_again(whole: WholeRun) -> None:
    report = whole.copy.workspace / "runs" / whole.run_id / "report.html"
    report.unlink()
    done = whole.copy.r1("report", whole.run_id)
    assert done.code == 0 and Path(done.out.strip()) == report and report.is_file()
    assert whole.copy.r1("report", whole.run_id, "--json").json == {"run_id": whole.run_id, "report": str(report)}
    assert "holds no run" in one_sentence(whole.copy.r1("report", "none"))


def replies(out: str) -> list[dict[str, Any]]:
    """JSON documents one after another."""
    decoder, found = json.JSONDecoder(), []
    while out.strip():
        document, end = decoder.raw_decode(out.lstrip())
        found.append(document)
        out = out.lstrip()[end:]
    return found


def test_chat_tells_thinking_from_answer(whole: WholeRun) -> None:
    words = ("strawberry", "banana split", "kiwi pie", "red plum", "sour cherry", "green pear")
    asked = "".join(f"{STRAWBERRY.replace('strawberry', word)}\n" for word in words)
    done = whole.copy.r1("chat", "dev1", "--temperature", "1", "--json", typed=asked)
    assert done.code == 0 and done.err == ""
    told = replies(done.out)
    assert [reply["prompt"] for reply in told] == asked.splitlines()
    thought = [reply for reply in told if reply["thinking"]]
    assert thought, "not one of the answers has a chain"
    for reply in told:
        assert "<" not in reply["answer"] and "think" not in (reply["thinking"] or "") and reply["tokens"] > 0
    shown = whole.copy.r1("chat", "dev1", thought[0]["prompt"], "--temperature", "1")
    assert shown.code == 0 and shown.err == ""
    panel, _, answer = shown.out.rpartition("╯")
    assert " thinking " in panel and thought[0]["thinking"].split()[0] in panel
    assert answer.split() == (thought[0]["answer"] or "–").split() + (
        [] if thought[0]["finished"] else ["(cut", "at", "the", "limit)"]
    )


def test_chat_refuses_what_it_cannot_answer(whole: WholeRun) -> None:
    assert "shorten it" in one_sentence(whole.copy.r1("chat", "r1", "a " * 400))
    assert "dev9" in one_sentence(whole.copy.r1("chat", "dev9", "?"))


def test_eval_measures_and_notes_nothing(whole: WholeRun) -> None:
    before = whole.copy.entries()
    done = whole.copy.r1("eval", "base", "--set", "evaluate.max_problems=4", "--json")
    assert done.code == 0, done.err
    assert done.json["overall"]["n"] == 4 * len(done.json["benchmarks"])
    assert whole.copy.entries() == before
    shown = whole.copy.r1("eval", "base", "--set", "evaluate.max_problems=4")
    assert shown.code == 0 and "overall" in shown.out and "pass@1" in shown.out


def test_audit_goes_back_to_base(whole: WholeRun) -> None:
    summary = whole.copy.summary(whole.run_id)
    made = {role: output["digest"] for role, output in stages(summary)["data"]["outputs"].items()}
    done = whole.copy.r1("audit", FIRST, "--json")
    assert done.code == 0, done.err
    report = done.json
    assert report["problems"] == [] and report["signature"] == "verified"
    data = {record["kind"]: record for record in report["data"]}
    assert set(data) == {"pretrain", "problems", "chains", "instructions", "preferences", "benchmarks"}
    for kind, record in data.items():
        assert record["digest"] == made[kind] and record["validated"] and record["fault"] is None
        assert record["sources"][0]["source"] == "tinyworld" and record["verdict"]
    steps = [step["title"] for step in report["steps"]]
    assert report["steps"][0]["stage"] == "data" and "prefer" in steps[-1]
    assert {step["stage"] for step in report["steps"]} >= {
        "data", "base", "zero", "cold_start", "reason", "reject", "refine", "reward_models", "prefer",
    }  # fmt: skip
    for step in report["steps"]:
        name = "-".join(filter(None, (step["stage"], step["instance"])))
        assert step["code_digest"] == stages(summary)[name]["code_digest"] and step["faults"] == []
    shown = whole.copy.r1("audit", FIRST)
    assert shown.code == 0 and "sound" in shown.out and made["chains"][:19] in shown.out


def test_export_writes_what_other_tools_read(whole: WholeRun, tmp_path: Path) -> None:
    def export(form: str, out: Path, *options: str) -> Done:
        return whole.copy.r1("export", FIRST, "--format", form, "--out", str(out), *options)

    done = export("all", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.json["problems"] == [] and done.json["gaps"] == [] and done.json["refused"] == {}
    written = {each["format"]: each for each in done.json["written"]}
    assert set(written) == {"openlineage", "slsa", "cyclonedx", "card", "prov", "dossier"}
    for each in written.values():
        assert digest_bytes(Path(each["path"]).read_bytes()) == each["digest"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((tmp_path / "bom.cdx.json").read_text()) is None
    assert ModelCard.load(tmp_path / "README.md").data.to_dict()["datasets"] == ["tinyworld"]
    assert ProvDocument.deserialize(tmp_path / "prov.json", format="json")

    shown = export("prov", tmp_path / "again.json")
    assert shown.code == 0 and written["prov"]["digest"] in shown.out and shown.err == ""
    refused = one_sentence(export("pdf", tmp_path / "x.pdf"))
    assert "there are openlineage, slsa, cyclonedx, card, prov, dossier, and all" in refused
    assert not (tmp_path / "x.pdf").exists()

    place = local_path(whole.copy.r1("audit", FIRST, "--json").json["uri"])
    assert place is not None
    config = place / "config.json"
    content = config.read_bytes()
    config.write_bytes(content + b" ")
    try:
        wrong = export("dossier", tmp_path / "dossier.html")
    finally:
        config.write_bytes(content)
    assert wrong.code == 1 and f"{place} was altered" in wrong.err
    assert written["dossier"]["digest"] not in wrong.out
    assert f"{place} was altered" in (tmp_path / "dossier.html").read_text()


def test_audit_of_data_names_the_models_made_from_it(whole: WholeRun) -> None:
    chains = stages(whole.copy.summary(whole.run_id))["data"]["outputs"]["chains"]["digest"]
    done = whole.copy.r1("audit", "--touched-by", chains[:20], "--json")
    assert done.code == 0
    told = " ".join(model["model"] for model in done.json["models"])
    assert "dev1" in told and FIRST in told and "zero" not in told and "base" not in told
    paths = {model["model"]: model["path"] for model in done.json["models"]}
    assert paths[FIRST][0].startswith("chains sha256:") and "prefer" in " ".join(paths[FIRST])


def test_audit_finds_rows_code_and_judges(whole: WholeRun) -> None:
    code = "import pyarrow.parquet as pq; print(pq.read_table('data/micro/chains.parquet').column('id')[0])"
    row = whole.copy.python(code).strip()
    zero = stages(whole.copy.summary(whole.run_id))["zero"]["code_digest"]
    for what, reached, spared in ((row, "dev1", "base "), ("helpful", "r1 of", "dev3"), (zero, "zero of", "base ")):
        done = whole.copy.r1("audit", "--touched-by", what, "--json")
        told = " ".join(model["model"] for model in done.json["models"])
        assert reached in told and spared not in told, f"{what} was told to touch {told}"
    assert "the ledger knows no" in one_sentence(whole.copy.r1("audit", "--touched-by", "no such thing"))


def test_audit_of_everything_is_silent_on_an_untouched_history(whole: WholeRun) -> None:
    done = whole.copy.r1("audit", "--all", "--json")
    assert done.code == 0, done.out
    assert done.json["problems"] == [] and done.json["pins"] == 8 and done.json["artifacts"] > 30
    shown = whole.copy.r1("audit", "--all")
    assert shown.code == 0 and "nothing was altered" in shown.out


def test_audit_answers_one_question_at_a_time(whole: WholeRun) -> None:
    trained = whole.copy.r1("audit", FIRST, "--only", "trained", "--json").json
    base = next(step for step in trained["steps"] if step["stage"] == "base")
    assert base["threads"] == 1 and base["environment"]["cores"] and base["environment"]["processor"]
    assert base["rows"][0]["rows"] == 1200 and base["rows"][0]["made_by"] == "data"
    assert trained["signature"] == "not checked" and trained["approvals"] == []
    validated = whole.copy.r1("audit", FIRST, "--only", "validated", "--json").json
    assert all(record["rules"] and not record["verdict_fault"] for record in validated["data"])
    can = whole.copy.r1("audit", FIRST, "--only", "rebuildable", "--json").json["rebuildable"]
    assert can and all(step["missing"] == [] for step in can)
    assert "there is no such question" in one_sentence(whole.copy.r1("audit", FIRST, "--only", "trainde"))
    assert "one of them at a time" in one_sentence(whole.copy.r1("audit", "--all", "--rebuild"))


def test_a_rebuilt_model_has_the_same_bits(whole: WholeRun) -> None:
    before = whole.copy.entries()
    wanted = [word for stage in ("data", "base", "reject") for word in ("--stage", stage)]
    done = whole.copy.r1("audit", FIRST, "--rebuild", *wanted, "--json")
    assert done.code == 0, done.out
    rebuilt = {step["title"]: step for step in done.json["steps"]}
    assert set(rebuilt) == {"data", "base", "reject"} and len(rebuilt["data"]["outputs"]) == 8
    for step in rebuilt.values():
        assert step["identical"] and step["differs"] == [] and step["error"] == ""
    assert whole.copy.entries() == before and not list((whole.copy.workspace / "work").glob("rebuild-*"))
    with whole.copy.changed("r1kit/sft.py", lambda text: text + "\n# One more line.\n"):
        moved = whole.copy.r1("audit", FIRST, "--rebuild", "--stage", "base", "--json")
    (step,) = moved.json["steps"]
    assert step["identical"] and "the code moved" in step["differs"][0]


def test_audit_says_what_is_wrong_and_fails(whole: WholeRun) -> None:
    uri = stages(whole.copy.summary(whole.run_id))["cold_start"]["outputs"]["model"]["uri"]
    file = Path(uri.removeprefix("file://")) / "config.json"
    content = file.read_bytes()
    file.write_bytes(content + b" ")
    try:
        done = whole.copy.r1("audit", FIRST, "--json")
    finally:
        file.write_bytes(content)
    assert done.code == 1
    assert any(str(file.parent) in problem and "altered" in problem for problem in done.json["problems"])


def test_only_others_approve_and_promotion_needs_it(
    whole: WholeRun, second_candidate: dict[str, Any], tmp_path: Path
) -> None:
    assert second_candidate["registered"]["new"], "the second candidate is a model of its own"
    copy = whole.copy
    second = "{name}/{version}".format(**second_candidate["registered"])
    key = approver(tmp_path)
    own = approver(tmp_path, "submitter@example.org")
    shutil.copy(tmp_path / "approvers", copy.workspace / "approvers")

    def approve(model: str, to: str, who: str = "alice@example.org", signed_with: Path = key) -> Done:
        return copy.r1("approve", model, "--to", to, "--as", who, "--key", str(signed_with), "--json")

    assert "approvals: 0 valid approvals" in refusal(copy.r1("promote", FIRST, "--to", "staging"))
    checked = copy.r1("promote", FIRST, "--to", "staging", "--check", "--json")
    assert checked.code == 1 and [gate["name"] for gate in checked.json if not gate["passed"]] == ["approvals"]
    assert "submitted" in one_sentence(approve(FIRST, "staging", "submitter@example.org", own))
    assert "key" in one_sentence(approve(FIRST, "staging", "alice@example.org", own))
    assert "not an environment" in one_sentence(approve(FIRST, "nowhere"))
    assert approve(FIRST, "staging").json["approver"] == "alice@example.org"
    promoted = copy.r1("promote", FIRST, "--to", "staging", "--json")
    assert promoted.code == 0 and promoted.json["name"] == "r1kit-micro-staging", promoted.err
    assert approve("staging", "production").code == 0
    shown = copy.r1("promote", "staging", "--to", "production")
    assert shown.code == 0 and "production holds r1kit-micro-production/1 (r1)" in shown.out
    assert "only" in one_sentence(copy.r1("rollback", "production"))

    assert approve(second, "staging").code == 0
    assert copy.r1("promote", second, "--to", "staging", "--set", "promotion.max_regression=1").code == 0
    held = copy.r1("audit", "staging", "--json")
    assert held.code == 0 and held.json["version"] == "2" and held.json["holds"] == ["staging"]
    assert [a["approver"] for a in held.json["approvals"] if not a["fault"]] == ["alice@example.org"]
    back = copy.r1("rollback", "staging", "--reason", "it rambles", "--json")
    assert back.code == 0 and back.json["version"] == "1"
    assert copy.r1("chat", "staging", STRAWBERRY, "--json").json["model"] == "r1kit-micro-staging/1 (r1)"


def test_doctor_looks_at_the_machine(whole: WholeRun) -> None:
    told = whole.copy.r1("doctor", "--json")
    found = {finding["what"]: finding for finding in told.json}
    assert {"python", "packages", "git", "workspace", "ledger"} <= set(found)
    assert found["ledger"]["state"] == "good" and str(whole.copy.workspace) in found["workspace"]["detail"]
    assert told.code == int(any(finding["state"] == "bad" for finding in told.json))
    entry = min((whole.copy.workspace / "ledger").glob("*.json"))
    content = entry.read_bytes()
    entry.write_bytes(content + b" ")
    try:
        shown = whole.copy.r1("doctor")
    finally:
        entry.write_bytes(content)
    assert shown.code == 1 and "ledger" in shown.out
