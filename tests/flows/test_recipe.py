"""One command takes base to a registered model; a second does nothing anew; what changes decides what runs again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flows.folder import whole_code_digest
from r1kit.data.table import SOURCES
from tasks.pins import md5_of
from tasks.workspace import REPOSITORY
from tests.flows.conftest import WholeRun
from tests.flows.copies import MODELS, RECIPE, digests, stages, with_status

pytestmark = pytest.mark.timeout(600)

BEFORE_REASON = {"data", "validate", "base", "reward_models-helpful", "reward_models-harmless", "zero", "cold_start"}
BEFORE_REASON |= {"evaluate-base", "evaluate-zero", "evaluate-dev1"}


def test_every_stage_of_the_recipe_runs(whole: WholeRun) -> None:
    summary = whole.copy.summary(whole.run_id)
    assert summary["status"] == "finished" and summary["profile"] == "micro" and not summary["error"]
    assert with_status(summary, "ran") == RECIPE
    assert set(stages(summary)) == RECIPE
    assert summary["registered"] == {"name": "r1kit-micro-candidate", "version": "1", "new": True}
    assert {model["name"] for model in summary["models"]} == set(MODELS)
    for model in summary["models"]:
        scores = model["benchmarks"]["overall"]
        assert scores["n"] >= 24 and 0 <= scores["low"] <= scores["pass_at_1"] <= scores["high"] <= 1


def test_the_summary_keeps_to_its_schema(whole: WholeRun) -> None:
    schema = json.loads((REPOSITORY / "docs" / "summary.schema.json").read_text())
    jsonschema.validate(whole.copy.summary(whole.run_id), schema)


def test_it_was_the_copys_code_that_ran(whole: WholeRun) -> None:
    told = whole.copy.summary(whole.run_id)["code_digest"]
    assert told == whole.copy.python("from flows.folder import whole_code_digest as d; print(d())").strip()
    assert told != whole_code_digest(), "the code of this checkout is another's"


def test_it_ends_with_the_stages_and_the_report(whole: WholeRun) -> None:
    *table, last = whole.done.out.strip().splitlines()
    told = {line.split()[0]: line.split()[1] for line in table if len(line.split()) > 1}
    assert {name for name, status in told.items() if status == "ran"} == RECIPE
    report = Path(last.removeprefix("report "))
    assert report == whole.copy.workspace / "runs" / whole.run_id / "report.html"
    assert "<html" in report.read_text()[:500]


def test_off_a_terminal_it_tells_its_progress_in_plain_lines(whole: WholeRun) -> None:
    assert "\x1b" not in whole.done.err + whole.done.out
    lines = [line.split(maxsplit=1) for line in whole.done.err.splitlines()]
    assert {name for name, said in lines if said == "starts"} == RECIPE
    assert {name for name, said in lines if said.startswith("ran ")} == RECIPE
    assert any(name == "base" and "loss" in said for name, said in lines)
    # A line each five seconds: a stage over in that time has no second one, which would carry the estimate.
    slowest = max(stage["seconds"] for stage in stages(whole.copy.summary(whole.run_id)).values())
    assert any("left" in said for _, said in lines) or slowest < 15, "no estimate"


def test_nothing_is_written_elsewhere(whole: WholeRun) -> None:
    new = whole.files_after - whole.files_before
    places = {name.split("/")[1] if name.startswith("copy/") else name for name in new}
    assert places == {".r1", "data", "dvc.lock", ".dvc"}
    assert not whole.files_before - whole.files_after


def test_every_data_file_is_pinned(whole: WholeRun) -> None:
    root = whole.copy.root
    locked = yaml.safe_load((root / "dvc.lock").read_text())["stages"]["data@micro"]
    pinned = {out["path"]: out["md5"] for out in locked["outs"]}
    files = {path.relative_to(root).as_posix(): md5_of(path) for path in (root / "data" / "micro").iterdir()}
    assert pinned == files and len(files) == 8
    quiet = {**whole.copy.environment, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".r1/cache/dvc")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json", "data@micro"], cwd=root, env=quiet, capture_output=True,
        text=True, check=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout) == {}


def test_a_second_run_does_nothing_anew(whole: WholeRun) -> None:
    copy, first = whole.copy, whole.copy.summary(whole.run_id)
    before = copy.entries()
    second = copy.run()
    assert with_status(second, "cached") == RECIPE
    assert {name: stage["outputs"] for name, stage in stages(second).items()} == {
        name: stage["outputs"] for name, stage in stages(first).items()
    }
    assert second["registered"] == {**first["registered"], "new": False}
    assert second["models"] == first["models"]
    new = copy.entries()[len(before) :]
    assert {entry["status"] for entry in new if entry["kind"] != "run"} == {"reused"}
    closing = new.pop()
    assert (closing["kind"], closing["status"]) == ("run", "done"), "the last entry seals the run's folder"
    assert {edge["role"] for edge in closing["outputs"]} == {"summary", "configuration", "curves", "notes"}
    names = {"-".join(filter(None, (entry["job"], entry["instance"]))) for entry in new}
    assert names == RECIPE, "every stage leaves its edge"


def test_a_setting_reruns_its_stage_and_what_depends_on_it(whole: WholeRun) -> None:
    before = whole.copy.summary(whole.run_id)
    after = whole.copy.run("--set", "reason.learning_rate=0.0002")
    assert with_status(after, "cached") == BEFORE_REASON
    assert with_status(after, "ran") == RECIPE - BEFORE_REASON
    assert after["registered"]["new"], "another model is another candidate"
    changed = {name for name, digest in digests(before).items() if digests(after)[name] != digest}
    assert {"reason/model", "prefer/model", "distill-twin/model"} <= changed


def test_a_line_of_code_reruns_the_stages_that_use_it(whole: WholeRun) -> None:
    """The line changes nothing that they make, so what follows is as it was, and is reused."""
    before = whole.copy.summary(whole.run_id)
    with whole.copy.changed("r1kit/grpo.py", lambda text: text + "\n# One more line.\n"):
        after = whole.copy.run()
    assert with_status(after, "ran") == {"zero", "reason", "prefer", "register"}, "other code is other evidence"
    assert digests(after) == digests(before)


def test_altered_bytes_are_noticed_said_and_made_anew(whole: WholeRun) -> None:
    copy, before = whole.copy, whole.copy.summary(whole.run_id)
    model = Path(stages(before)["reason"]["outputs"]["model"]["uri"].removeprefix("file://")) / "model.safetensors"
    data = copy.root / "data" / "micro" / "chains.parquet"
    for file in (model, data):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    done = copy.r1("run", "--profile", "micro", "--json")
    assert done.code == 0, done.err
    for stage, file in (("reason", model.parent), ("data", data)):
        assert any(line.startswith(stage) and f"{file} was altered" in line for line in done.err.splitlines())
        assert f"{file} was altered" in stages(done.json)[stage]["note"]
    assert with_status(done.json, "ran") == {"data", "reason"}
    assert digests(done.json) == digests(before)


def test_until_stops_there(whole: WholeRun) -> None:
    part = whole.copy.run("--until", "zero")
    assert with_status(part, "cached") == {"data", "validate", "base", "evaluate-base", "zero", "evaluate-zero"}
    assert with_status(part, "ran") == set() and part["registered"] is None
    assert {stages(part)[name]["note"] for name in ("cold_start", "prefer", "register")} == {"after --until zero"}


def test_from_takes_earlier_stages_as_they_are(whole: WholeRun, second_candidate: dict[str, Any]) -> None:
    before, after = digests(whole.copy.summary(whole.run_id)), digests(second_candidate)
    assert {name for name, stage in stages(second_candidate).items() if stage["note"] == "from an earlier run"} == {
        "data", "validate", "base", "zero", "cold_start", "reason", "reject",
    }  # fmt: skip
    assert with_status(second_candidate, "ran") == {"prefer", "evaluate-r1", "register"}
    assert {name for name, digest in before.items() if after[name] != digest} == {"prefer/model"}


def test_bytes_that_are_not_pinned_are_refused(whole: WholeRun) -> None:
    lock = whole.copy.root / "dvc.lock"
    pinned = {out["path"]: out["md5"] for out in yaml.safe_load(lock.read_text())["stages"]["data@micro"]["outs"]}
    md5 = pinned["data/micro/problems.parquet"]
    other = "f" * 32
    with whole.copy.changed("dvc.lock", lambda text: text.replace(md5, other)):
        done = whole.copy.r1("run", "--profile", "micro", "--from", "reason")
    error = done.err.strip().splitlines()[-1]
    assert done.code == 1 and done.out == ""
    assert error.startswith("error: ") and "problems.parquet" in error
    assert f"has md5 {md5[:12]}…, but dvc.lock pins {other[:12]}…" in error and "restore dvc.lock" in error
    assert set(stages(whole.copy.summary())) == {"data"}, "nothing was taken from before, nothing was trained"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda model: [path.unlink() for path in model.glob("*token*")], "tokenizer"),
        (lambda model: swallow_chains(model / "chat_template.jinja"), "swallows <think>"),
    ],
    ids=["without tokenizer", "template swallows chains"],
)
def test_a_model_that_cannot_learn_the_format_is_refused(
    whole: WholeRun, tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    base = stages(whole.copy.summary(whole.run_id))["base"]["outputs"]["model"]["uri"].removeprefix("file://")
    model = Path(shutil.copytree(base, tmp_path / "model"))
    spoil(model)
    done = whole.copy.r1("run", "--profile", "micro", "--set", f"model.source={model}")
    error = done.err.strip().splitlines()[-1]
    assert done.code == 1 and done.out == "" and "Traceback" not in done.err
    assert error.startswith("error: base: ") and words in error and str(model) in error
    assert set(stages(whole.copy.summary())) == {"data", "validate", "base"}, "nothing was trained"


def swallow_chains(template: Path) -> None:
    """Have a chat template leave the chain out of the assistant's turn, as templates of reasoning models do."""
    text = template.read_text()
    kept = text.replace("message['content']", "message['content'].split('</think>')[-1]")
    assert kept != text
    template.write_text(kept)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is not in the mirror"), (b"[]", "checksum")], ids=["missing", "altered"]
)
def test_a_raw_file_that_is_not_the_one_stops_the_run(
    whole: WholeRun, tmp_path: Path, content: bytes | None, words: str
) -> None:
    data = {path: path.read_bytes() for path in (whole.copy.root / "data" / "micro").iterdir()}
    raw = tmp_path / SOURCES["gsm8k_train"].raw_files[0].path
    raw.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        raw.write_bytes(content)
    source = ("--set", "data.problems=[{source: gsm8k_train}]", "--mirror", str(tmp_path))
    done = whole.copy.r1("run", "--profile", "micro", *source)
    error = done.err.strip().splitlines()[-1]
    assert done.code == 1 and done.out == "" and "Traceback" not in done.err
    assert error.startswith("error: data: ") and words in error and str(tmp_path) in error
    summary = whole.copy.summary()
    assert summary["status"] == "failed" and with_status(summary, "failed") == set(stages(summary)) == {"data"}
    assert data == {path: path.read_bytes() for path in (whole.copy.root / "data" / "micro").iterdir()}


def test_data_that_do_not_pass_stop_the_run_and_are_shown(whole: WholeRun) -> None:
    done = whole.copy.r1("run", "--profile", "micro", "--set", "validate.max_row_tokens=10")
    error = done.err.strip().splitlines()[-1]
    assert done.code == 1 and done.out == "" and "Traceback" not in done.err
    assert error.startswith("error: validate: ") and "no row has too many tokens" in error and "at most 10" in error
    assert set(stages(whole.copy.summary())) == {"data", "validate"}, "nothing was trained"
    page = (whole.copy.workspace / "runs" / "latest" / "data-problems.html").read_text()
    assert "Some rules do not hold" in page and "no row has too many tokens" in page


def test_a_row_is_followed_from_its_source_to_the_models(whole: WholeRun) -> None:
    told = whole.copy.entries()
    curated = next(e for e in told if e["job"] == "reject" and e["run"] == whole.run_id)
    uri = next(edge["artifact"]["uri"] for edge in curated["outputs"] if edge["role"] == "decisions")
    decisions = Path(uri.removeprefix("file://")).read_text().splitlines()
    kept = next(line for line in map(json.loads, decisions) if line["kept"])
    done = whole.copy.r1("trace", kept["row"], "--run", whole.run_id, "--json")
    assert done.code == 0, done.err
    trace = json.loads(done.out)
    assert trace["sample"]["checkpoint"] == kept["checkpoint"] and trace["sample"]["model"] == "dev2"
    assert [parent["row"] for parent in trace["parents"]] == [kept["problem"]]
    assert {learner["model"] for learner in trace["learners"]} >= {"dev3", "r1", "distill-twin"}
    back = json.loads(whole.copy.r1("trace", kept["problem"], "--run", whole.run_id, "--json").out)
    assert kept["row"] in back["children"] and back["origin"]["source"] == "tinyworld"
    shown = whole.copy.r1("trace", kept["row"])
    assert shown.code == 0 and kept["problem"] in shown.out and "dev3" in shown.out


def test_a_stage_in_two_processes_is_the_same_stage(whole: WholeRun) -> None:
    """How many processes is not part of the question, but it stands with the answer."""
    options = ("--from", "refine", "--until", "refine", "--set", "refine.max_steps=3")
    together = whole.copy.run(*options, "--set", "runtime.processes=2", "--set", "runtime.zero_stage=3")
    assert with_status(together, "ran") == {"refine", "evaluate-dev3"}
    facts = next(e["facts"] for e in reversed(whole.copy.entries()) if e["job"] == "refine" and e["status"] == "ran")
    assert (facts["runtime"]["processes"], facts["runtime"]["zero_stage"]) == (2, 3)
    alone = whole.copy.run(*options)
    assert with_status(alone, "cached") >= {"refine", "evaluate-dev3"} and not with_status(alone, "ran")
    assert digests(alone) == digests(together)
