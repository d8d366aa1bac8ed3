"""summary.json is what its published schema says, and comes back as it was written."""

import json
from pathlib import Path

import jsonschema
import pytest

from tasks.summary import Summary, benchmarks_of, read_summary, summary_schema, write_summary
from tasks.workspace import REPOSITORY
from tests.tasks import made_up_run

SCHEMA = REPOSITORY / "docs" / "summary.schema.json"


def test_the_published_schema_is_the_one_in_force() -> None:
    assert SCHEMA.read_text() == summary_schema(), (
        "write it anew: .venv/bin/python -c 'from tasks.summary import *; print(summary_schema(), end=\"\")' "
        "> docs/summary.schema.json"
    )


def test_a_summary_fits_the_schema_and_comes_back(tmp_path: Path) -> None:
    summary = made_up_run.summary()
    write_summary(summary, tmp_path)
    assert read_summary(tmp_path) == summary
    document = json.loads((tmp_path / "summary.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    for field in ("run_id", "status", "seconds"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, field: None}, json.loads(SCHEMA.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "unknown": 1}, json.loads(SCHEMA.read_text()))


def test_numbers_that_are_none_are_written_as_null(tmp_path: Path) -> None:
    summary = made_up_run.summary()
    stage = summary.stages[0].model_copy(update={"metrics": {"loss": None}})
    write_summary(summary.model_copy(update={"stages": (stage,)}), tmp_path)
    found = read_summary(tmp_path).stage(stage.name)
    assert found is not None and found.metrics == {"loss": None}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run; start one with `r1 run`"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": "r1kit summary 1", "run')
    with pytest.raises(ValueError, match=r"summary\.json cannot be read"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": "r1kit summary 99"}')
    with pytest.raises(ValueError, match=r"summary\.json cannot be read"):
        read_summary(tmp_path)


def test_a_stage_that_is_not_there_is_none() -> None:
    assert made_up_run.summary().stage("moon") is None
    assert Summary.model_validate(made_up_run.summary().model_dump()).stage("zero") is not None


def test_benchmarks_are_summed_up_with_their_intervals() -> None:
    evaluation = made_up_run.evaluation("r1")
    found = benchmarks_of(evaluation)
    assert set(found) == {"overall", *evaluation["benchmarks"]}
    for name, scores in found.items():
        source = evaluation["overall"] if name == "overall" else evaluation["benchmarks"][name]
        assert (scores.pass_at_1, scores.n, scores.k) == (source["pass_at_1"]["value"], source["n"], source["k"])
        assert scores.low is not None and scores.high is not None and scores.pass_at_1 is not None
        assert scores.low <= scores.pass_at_1 <= scores.high
    evaluation["overall"]["pass_at_1"], evaluation["overall"]["preference"] = None, {"value": 0.4}
    general = benchmarks_of(evaluation)["overall"]
    assert (general.pass_at_1, general.low, general.preference) == (None, None, 0.4)
