"""The facts that were checked on the real files hold for what is made of them."""

from pathlib import Path

import pytest

from r1kit.config import load
from r1kit.data.config import DataConfig
from r1kit.data.foreign import held, sort_out
from r1kit.data.normalise import normalise
from r1kit.data.overlap import OverlapIndex
from r1kit.data.prepare import ROW_TYPES, prepare
from r1kit.data.records import BadRow
from r1kit.data.source import Source
from r1kit.data.table import SOURCES
from r1kit.rewards import VerifierPool
from r1kit.rows import PreferencePair, Problem, SftRow
from tests.r1kit.data.conftest import REPOSITORY, Prepared

SMALL = load(REPOSITORY / "pipeline.yaml", "small").data
READ = {  # source: rows of its one file
    "gsm8k_train": 7473, "gsm8k_test": 1319, "math500": 500, "math_train": 7474, "aime2024": 30, "aime_1983_2023": 975,
    "cmath": 1098, "humaneval": 164, "mbpp": 974, "hh_harmless": 2312, "llmbar_natural": 100, "rasbt_preference": 1100,
    "llamafactory_dpo_en": 300, "llamafactory_dpo_zh": 300, "rasbt_instructions": 1100, "llamafactory_tool_use": 50,
    "self_instruct": 252, "rasbt_reasoning": 5,
} | {name: 250 for name in SOURCES if name.startswith("bbh_")}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(real_files: Path, pool: VerifierPool, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    output = tmp_path_factory.mktemp("small")
    config: DataConfig = SMALL.model_copy(update={"mirror": str(real_files)})
    manifest = prepare(
        config, output, cache_dir=output / "cache", pool=pool, say=lambda message: None, log=lambda *facts: None
    )
    return Prepared(output, manifest)


def prompts(source: Source, real_files: Path) -> set[str]:
    """Questions of a source's file, without white space."""
    field = "question" if "gsm8k" in source.name else "problem"
    records = source.reader(real_files / source.files[0].path, "")
    return {"".join(record.text(field).split()) for record in records if not isinstance(record, BadRow)}


@pytest.mark.parametrize("name", READ)
def test_files_have_the_rows_of_their_origin(real_files: Path, name: str) -> None:
    source = SOURCES[name]
    assert sum(1 for _ in source.reader(real_files / source.files[0].path, name)) == READ[name]


def test_overlaps_between_the_sources(real_files: Path) -> None:
    found = {
        name: prompts(SOURCES[name], real_files)
        for name in ("gsm8k_train", "gsm8k_test", "math500", "math_test", "math_train", "aime2024", "aime_1983_2023")
    }
    assert found["math500"] <= found["math_test"]
    assert not found["gsm8k_train"] & found["gsm8k_test"]
    assert not found["aime2024"] & found["aime_1983_2023"]
    assert not found["math_train"] & found["math500"]
    assert len(found["math_train"] & found["math_test"]) == 2


def test_math500_is_found_whole_in_math_test(real_files: Path) -> None:
    index = OverlapIndex(held(real_files / "math/math500.jsonl", ("problem",)))
    rows = list(sort_out(real_files / "math/math_test5000.jsonl", index, ("problem",)))
    hidden = {text.text for text in held(real_files / "math/math500.jsonl", ("problem",))}
    assert len(rows) == 5000 and len(hidden) == 500
    assert hidden <= {row.values["problem"] for row in rows if row.overlap and row.overlap.method == "exact"}


def test_every_source_whose_bytes_are_pinned_is_in_the_profile() -> None:
    asked = {entry.source for kind in ROW_TYPES for entry in SMALL.entries(kind)}
    pinned = {name for name, source in SOURCES.items() if source.files and all(file.sha256 for file in source.files)}
    assert pinned <= asked


def test_4500_solved_problems_remain_of_math(prepared: Prepared) -> None:
    assert prepared.source("problems", "math_test")["rows_read"] == 4500


def test_all_gold_answers_verify_but_those_known_to_be_wrong(prepared: Prepared) -> None:
    assert not prepared.set_aside(rule="unverifiable")
    faults = {(s["kind"], s["source"]): s["quarantined"] for s in prepared.manifest["sources"] if s["quarantined"]}
    assert faults == {
        ("problems", "math_train"): 4,  # two answers are null, two are empty
        ("problems", "mbpp"): 1,  # 927
        ("problems", "mbpp_debug"): 1,  # 927 again
        ("benchmarks", "mbpp"): 2,  # 123 and 367
        ("chains", "llamafactory_tool_use"): 1,  # its chain speaks of the tags
        ("preferences", "hh_harmless"): 9,  # five prompts differ, four responses are empty
        ("preferences", "rasbt_preference"): 6,  # the same twice
    }
    assert all(s["quarantined"] <= 0.1 * s["rows_read"] for s in prepared.manifest["sources"])


def test_benchmarks_are_whole(prepared: Prepared) -> None:
    kept = {
        s["benchmark"] or s["source"]: s["rows_kept"] for s in prepared.manifest["sources"] if s["kind"] == "benchmarks"
    }
    assert kept == {"gsm8k": 1319, "math500": 500, "aime2024": 30, "cmath": 552, "humaneval": 164, "mbpp": 498} | {
        name: 250 for name in SOURCES if name.startswith("bbh_")
    }


def test_no_benchmark_question_is_trained_on(prepared: Prepared) -> None:
    held_out = {normalise(row.prompt) for row in prepared.rows("benchmarks", Problem)}
    for kind in ("problems", "chains", "instructions", "preferences"):
        rows = prepared.rows(kind, ROW_TYPES[kind])
        assert rows and not held_out & {normalise(row.prompt) for row in rows}  # pyright: ignore[reportAttributeAccessIssue]


def test_about_a_thousand_chains_and_both_routes_and_sides(prepared: Prepared) -> None:
    read = [row for row in prepared.rows("chains", SftRow) if SOURCES[row.source].files]
    assert 900 <= len(read) <= 1100
    pairs = prepared.rows("preferences", PreferencePair)
    assert {(pair.route, pair.split) for pair in pairs} == {
        (route, split) for route in ("helpful", "harmless") for split in ("train", "heldout")
    }
    heldout = {pair.prompt for pair in pairs if pair.split == "heldout"}
    assert not heldout & {pair.prompt for pair in pairs if pair.split == "train"}
