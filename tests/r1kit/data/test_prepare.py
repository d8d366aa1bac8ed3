"""Preparing: the same bytes for the same configuration, and a story for every row that is left out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from r1kit import tinyworld
from r1kit.data.config import KINDS
from r1kit.data.prepare import ROW_TYPES
from r1kit.rows import PreferencePair, Problem, SftRow
from tests.r1kit.data import made_up
from tests.r1kit.data.conftest import Prepare

TINY: dict[str, Any] = {
    kind: [{"source": "tinyworld", "limit": limit}]
    for kind, limit in zip(KINDS, (300, 40, 40, 60, 200, 30), strict=True)
}
MIXED = {
    "problems": [{"source": "gsm8k_train"}, {"source": "math_train"}, {"source": "math_test"}],
    "chains": [{"source": "gsm8k_train", "limit": 2}, {"source": "tinyworld", "limit": 6}],
    "benchmarks": [{"source": "gsm8k_test", "benchmark": "gsm8k"}],
}


def test_same_configuration_same_bytes(prepare: Prepare) -> None:
    one, two = prepare(MIXED, name="one"), prepare(MIXED, name="two")
    names = sorted(path.name for path in one.output.iterdir())
    assert names == sorted([*(f"{kind}.parquet" for kind in KINDS), "manifest.json", "quarantine.jsonl"])
    for name in names:
        assert (one.output / name).read_bytes() == (two.output / name).read_bytes()


def test_nothing_prepared_names_a_place_of_this_machine(prepare: Prepare, tmp_path: Path) -> None:
    prepared = prepare(MIXED)
    for path in prepared.output.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_manifest_says_what_was_written(prepare: Prepare) -> None:
    prepared = prepare(MIXED)
    manifest = json.loads((prepared.output / "manifest.json").read_text())
    assert manifest == prepared.manifest and manifest["format"] == "r1kit data 1"
    assert "mirror" not in manifest["config"] and manifest["config"]["seed"] == 20260101
    for kind, facts in manifest["kinds"].items():
        path = prepared.output / f"{kind}.parquet"
        assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert facts["rows"] == len(prepared.rows(kind, ROW_TYPES[kind]))
        assert facts["rows"] == sum(s["rows_kept"] for s in manifest["sources"] if s["kind"] == kind)
    for source in manifest["sources"]:
        outcomes = ("rows_kept", "quarantined", "duplicates", "contaminated", "unlicensed")
        assert source["rows_read"] == sum(source[name] for name in outcomes)
    file = prepared.source("problems", "gsm8k_train")["files"][0]
    content = made_up.FILES["math/gsm8k_train.jsonl"]
    assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_first_rows_are_a_fair_sample_of_the_sources(prepare: Prepare) -> None:
    rows = prepare({"chains": [{"source": "gsm8k_train", "limit": 2}, {"source": "tinyworld", "limit": 6}]}).rows(
        "chains", SftRow
    )
    assert [row.source for row in rows].count("gsm8k_train") == 2
    assert [row.source for row in rows[:4]].count("gsm8k_train") == 1


def test_tiny_world_gives_every_kind_from_seeds_of_their_own(prepare: Prepare) -> None:
    prepared = prepare(TINY)
    seeds = [source["seed"] for source in prepared.manifest["sources"]]
    assert len(set(seeds)) == len(KINDS)
    for kind in KINDS:
        rows = prepared.rows(kind, ROW_TYPES[kind])
        assert rows and {row.source for row in rows} == {"tinyworld"}
        assert len({row.id for row in rows}) == len(rows)
    assert {row.benchmark for row in prepared.rows("benchmarks", Problem)} == {task.name for task in tinyworld.TASKS}


def test_another_seed_gives_other_rows(prepare: Prepare) -> None:
    rows = [
        {row.prompt for row in prepare({**TINY, "seed": seed}, name=str(seed)).rows("problems", Problem)}
        for seed in (1, 2)
    ]
    assert len(rows[0] & rows[1]) <= 1


def test_no_prompt_of_a_pair_is_on_both_sides(prepare: Prepare) -> None:
    pairs = prepare(TINY).rows("preferences", PreferencePair)
    sides = [{pair.prompt for pair in pairs if pair.split == side} for side in ("train", "heldout")]
    assert all(sides) and not sides[0] & sides[1]


GOOD = made_up.gsm8k(3)
BAD_ROWS = {
    "json": (b"{oh\n", "json", "", "is not JSON"),
    "bytes": (b"\xff\xfe\n", "json", "", "is not JSON"),
    "deep": (b"[" * 100_000 + b"\n", "json", "", "is not JSON"),
    "list": (b"[1]\n", "schema", "", "is not a JSON object"),
    "lacking": (made_up.jsonl({"question": "Why?"}), "schema", "answer", "lacks the field answer"),
    "type": (made_up.jsonl({**GOOD, "answer": 6}), "schema", "answer", "answer is not text"),
    "blank": (made_up.jsonl({**GOOD, "question": " "}), "schema", "question", "question is empty"),
    "surrogate": (b'{"question": "\\ud800", "answer": "1 #### 1"}\n', "schema", "question", "surrogate"),
    "unmarked": (made_up.jsonl({**GOOD, "answer": "6"}), "schema", "answer", "no final value"),
    "prose": (
        made_up.jsonl({"question": "Why?", "answer": "Who knows.\n#### nobody can say that today"}),
        "unverifiable",
        "answer",
        "does not accept the gold answer",
    ),
    "twice": (made_up.jsonl({**GOOD, "question": GOOD["question"].upper()}), "duplicate", "prompt", "gsm8k_train/1"),
}


@pytest.mark.parametrize(("line", "rule", "field", "reason"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_set_aside_with_its_place_and_reason(
    prepare: Prepare, line: bytes, rule: str, field: str, reason: str
) -> None:
    file = "math/gsm8k_train.jsonl"
    prepared = prepare({"problems": [{"source": "gsm8k_train"}]}, {file: made_up.jsonl(GOOD) + line})
    (row,) = prepared.set_aside()
    assert (row["kind"], row["source"], row["file"], row["row"]) == ("problems", "gsm8k_train", file, 2)
    assert (row["rule"], row["field"]) == (rule, field) and reason in row["reason"]
    source = prepared.source("problems", "gsm8k_train")
    assert source["quarantined"] == (rule != "duplicate") and source["rows_kept"] == 1


def test_of_two_pairs_that_contradict_each_other_the_first_stays(prepare: Prepare) -> None:
    file = "pref/rasbt_instruction_preference.json"
    first = {"instruction": "Say hello.", "input": "", "output": "-", "chosen": "Good day!", "rejected": "What?"}
    others = [
        {**first, "chosen": " what?", "rejected": "good  day!"},
        {**first, "rejected": "Go away."},
        {**first, "instruction": "Greet me.", "chosen": "What?", "rejected": "Good day!"},
    ]
    prepared = prepare({"preferences": [{"source": "rasbt_preference"}]}, {file: made_up.json_list(first, *others)})
    (row,) = prepared.set_aside()
    assert (row["row"], row["rule"], row["field"]) == (2, "duplicate", "chosen")
    assert row["reason"] == "prefers the other one of the two responses that rasbt_preference/1 compares"
    assert prepared.source("preferences", "rasbt_preference")["rows_kept"] == 3


def test_a_bad_row_of_every_kind_is_set_aside(prepare: Prepare) -> None:
    sources = {
        "problems": ("math_train", "math/math_train7474_answers.json", made_up.json_list),
        "chains": ("math_test", "math/math_test5000.jsonl", made_up.jsonl),
        "instructions": ("rasbt_instructions", "sft/rasbt_instruction_data.json", made_up.json_list),
        "preferences": ("llmbar_natural", "pref/llmbar_natural.json", made_up.json_list),
        "benchmarks": ("math500", "math/math500.jsonl", made_up.jsonl),
    }
    good = {
        "problems": {"problem": "What is six?", "answer": "6"},
        "chains": made_up.math("Find the made-up fraction.", "1"),
        "instructions": {"instruction": "Name a tree.", "input": "", "output": "An oak."},
        "preferences": {"input": "Say hello.", "output_1": "Hello!", "output_2": "Goodbye!", "label": 1},
        "benchmarks": made_up.MATH500,
    }
    files = {file: write(good[kind], {}) for kind, (_, file, write) in sources.items()}
    prepared = prepare({kind: [{"source": name}] for kind, (name, _, _) in sources.items() if kind != "chains"}, files)
    for kind in ("problems", "instructions", "preferences", "benchmarks"):
        (row,) = prepared.set_aside(kind=kind)
        assert (row["file"], row["row"], row["rule"]) == (sources[kind][1], 2, "schema") and row["reason"]
    prepared = prepare(
        {"chains": [{"source": "math_test"}]}, files | {"math/math500.jsonl": made_up.jsonl(made_up.MATH500)}
    )
    assert [row["row"] for row in prepared.set_aside(kind="chains")] == [2]


def test_limit_counts_rows_that_pass(prepare: Prepare) -> None:
    content = b"{oh\n" + made_up.jsonl(*(made_up.gsm8k(n) for n in range(2, 9)))
    prepared = prepare({"problems": [{"source": "gsm8k_train", "limit": 3}]}, {"math/gsm8k_train.jsonl": content})
    source = prepared.source("problems", "gsm8k_train")
    assert (source["rows_kept"], source["rows_read"], source["quarantined"]) == (3, 4, 1)


def test_licences_are_enforced(prepare: Prepare) -> None:
    config = {"problems": [{"source": "gsm8k_train"}, {"source": "math_train"}], "allowed_licences": ["MIT"]}
    prepared = prepare(config)
    assert {row.source for row in prepared.rows("problems", Problem)} == {"gsm8k_train"}
    assert prepared.source("problems", "math_train")["unlicensed"] == 1
    assert prepared.set_aside(rule="licence")[0]["value"] == "MIT (repo)"


def test_planted_benchmark_text_is_found(prepare: Prepare) -> None:
    held_out = made_up.gsm8k(8, "Zoe")
    solution = "First she counts what the old farmer brought on Monday morning, then she adds the eleven eggs.\n#### 19"
    benchmark = made_up.jsonl(held_out, {"question": "How many eggs are there?", "answer": solution})
    innocent = {"question": "What is two and three?", "answer": "It is 5.\n#### 5"}
    planted_question = {"question": "Please help me. " + held_out["question"], "answer": "It is 16.\n#### 16"}
    planted_solution = {"question": "And the farmer?", "answer": "Well: " + solution}
    files = {
        "math/gsm8k_test.jsonl": benchmark,
        "math/gsm8k_train.jsonl": made_up.jsonl(innocent, planted_question, planted_solution),
        "sft/rasbt_instruction_data.json": made_up.json_list(
            {"instruction": "Name a tree.", "input": "", "output": "An oak."},
            {"instruction": "Tell me a story.", "input": "", "output": solution.partition("#")[0]},
        ),
        "pref/llmbar_natural.json": made_up.json_list(
            {"input": "Say hello.", "output_1": "Hello!", "output_2": "Goodbye!", "label": 1},
            {"input": "Well?", "output_1": "Hello!", "output_2": held_out["question"], "label": 1},
        ),
    }
    config = {
        "problems": [{"source": "gsm8k_train"}],
        "chains": [{"source": "gsm8k_train"}],
        "instructions": [{"source": "rasbt_instructions"}],
        "preferences": [{"source": "llmbar_natural"}],
        # Only the second row is evaluated, but all of the benchmark is held out.
        "benchmarks": [{"source": "gsm8k_test", "limit": 1}],
    }
    prepared = prepare(config, files)
    found = {(row["kind"], row["row"]): row for row in prepared.set_aside(rule="contaminated")}
    assert found.keys() == {
        ("problems", 2),
        ("problems", 3),
        ("chains", 2),
        ("chains", 3),
        ("instructions", 2),
        ("preferences", 2),
    }
    assert found["problems", 2]["field"] == "prompt" and "gsm8k_test/1" in found["problems", 2]["reason"]
    assert found["problems", 3]["field"] == "solution" and "gsm8k_test/2" in found["problems", 3]["reason"]
    assert found["preferences", 2]["field"] == "rejected"
    assert prepared.source("problems", "gsm8k_train")["contaminated"] == 2
    assert prepared.source("problems", "gsm8k_train")["quarantined"] == 0


def test_unused_kinds_are_empty_files(prepare: Prepare) -> None:
    prepared = prepare({"problems": [{"source": "gsm8k_train"}]})
    assert all(prepared.rows(kind, ROW_TYPES[kind]) == [] for kind in KINDS if kind != "problems")


ERRORS = {
    "name": ({"problems": [{"source": "gsm8k_trian"}]}, {}, "no source 'gsm8k_trian'; did you mean 'gsm8k_train'"),
    "kind": ({"chains": [{"source": "mbpp"}]}, {}, "mbpp has no chains; it can give problems, benchmarks"),
    "option": ({"problems": [{"source": "mbpp", "options": {"split": 1}}]}, {}, "mbpp has no option 'split'"),
    "value": (
        {"preferences": [{"source": "hh_harmless", "options": {"heldout_share": 2}}]},
        {},
        "heldout_share of hh_harmless is 2, but must be a number from 0.0 to 0.5",
    ),
    "limit": ({"problems": [{"source": "tinyworld"}]}, {}, "say how many with limit"),
    "empty": ({"problems": [{"source": "gsm8k_train"}]}, {"math/gsm8k_train.jsonl": b""}, "data.problems has no rows"),
    "bad": (
        {"problems": [{"source": "gsm8k_train"}]},
        {"math/gsm8k_train.jsonl": b"{oh\n"},
        "math/gsm8k_train.jsonl, row 1, the whole row: is not JSON",
    ),
    "not a list": ({"problems": [{"source": "math_train"}]}, {"math/math_train7474_answers.json": b"{}"}, "not a list"),
    "licence": (
        {"problems": [{"source": "gsm8k_train"}], "allowed_licences": ["CC0-1.0"]},
        {},
        "3 licence.*data.allowed_licences",
    ),
}


@pytest.mark.parametrize(("config", "files", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_cannot_be_prepared_is_said_in_one_sentence(
    prepare: Prepare, config: dict[str, Any], files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        prepare(config, files)
    assert "\n" not in str(caught.value)
