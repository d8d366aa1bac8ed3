"""Every source maps its records to the rows that its origin means."""

import json
import re

import pytest

from r1kit import chat
from r1kit.data.records import Placed
from r1kit.data.sift import Sieve, Sifted
from r1kit.data.table import SOURCES
from r1kit.rewards import VerifierPool
from r1kit.rows import PreferencePair, Problem, SftRow
from tests.r1kit.data import made_up
from tests.r1kit.data.conftest import Prepare


def one(prepare: Prepare, kind: str, source: str, **entry: object):
    return prepare({kind: [{"source": source, **entry}]})


PINNED_BY_THE_READER = {
    "hh_helpful", "s1k", "openthoughts", "gpqa_diamond", "livecodebench", "swe_bench_verified",
}  # fmt: skip
"""Their bytes were not at hand, so the table has no checksum: data.checksums must."""


def test_every_file_has_a_public_address_and_a_checksum() -> None:
    for source in SOURCES.values():
        assert source.kinds and source.licence
        for file in source.raw_files:
            if source.name in PINNED_BY_THE_READER:
                assert not file.sha256 and file.url.startswith("https://")
                continue
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert re.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/|package:", file.url)


def test_the_made_up_files_cover_every_source() -> None:
    assert {file.path for source in SOURCES.values() for file in source.raw_files} == made_up.FILES.keys()


def test_gsm8k(prepare: Prepare) -> None:
    prepared = prepare({kind: [{"source": "gsm8k_train"}] for kind in ("problems", "chains")})
    problems, chains = prepared.rows("problems", Problem), prepared.rows("chains", SftRow)
    assert [row.answer for row in problems] == ["6", "2000", "10"]
    assert problems[0].id == "gsm8k_train/1" and "<<" not in problems[0].solution
    assert chat.final_answer(chains[1].response) == "2000" and "<<" not in chains[1].response
    assert all(chat.parse(row.response).well_formed for row in chains)


def test_gsm8k_test_is_a_benchmark(prepare: Prepare) -> None:
    rows = one(prepare, "benchmarks", "gsm8k_test", benchmark="gsm8k").rows("benchmarks", Problem)
    assert [(row.benchmark, row.answer) for row in rows] == [("gsm8k", "16"), ("gsm8k", "18")]


@pytest.mark.parametrize("kind", ["problems", "chains"])
def test_math_test_never_gives_math500(prepare: Prepare, kind: str) -> None:
    prepared = one(prepare, kind, "math_test")  # and no benchmark in the profile
    rows = prepared.rows(kind, Problem if kind == "problems" else SftRow)
    assert [row.prompt for row in rows] == ["Find the made-up fraction."]
    assert prepared.source(kind, "math_test")["rows_read"] == 1


def test_math(prepare: Prepare) -> None:
    prepared = prepare(
        {"benchmarks": [{"source": "math500"}], "problems": [{"source": "math_train"}, {"source": "math_test"}]}
    )
    assert prepared.rows("benchmarks", Problem)[0].id == "math500/test/a/1.json"
    assert {row.answer for row in prepared.rows("problems", Problem)} == {"12", "\\frac{1}{2}"}
    assert [row["field"] for row in prepared.set_aside(source="math_train")] == ["answer"]


def test_aime(prepare: Prepare) -> None:
    prepared = prepare({"benchmarks": [{"source": "aime2024"}], "problems": [{"source": "aime_1983_2023"}]})
    assert prepared.rows("benchmarks", Problem)[0].id == "aime2024/2024-1-4"
    assert [row.answer for row in prepared.rows("problems", Problem)] == ["2", "3"]


def test_cmath_is_divided_by_prompt(prepare: Prepare) -> None:
    prepared = prepare({kind: [{"source": "cmath"}] for kind in ("problems", "benchmarks")})
    problems, held_out = prepared.rows("problems", Problem), prepared.rows("benchmarks", Problem)
    assert problems and held_out and len(problems) + len(held_out) == 12
    assert all(row.language == "zh" for row in [*problems, *held_out])
    assert {row.benchmark for row in held_out} == {"cmath"} and {row.benchmark for row in problems} == {""}


def test_humaneval(prepare: Prepare) -> None:
    row = one(prepare, "benchmarks", "humaneval").rows("benchmarks", Problem)[0]
    assert json.loads(row.meta) == {"entry_point": "double"} and row.verifier == "code"
    assert row.solution.endswith("return 2 * x\n") and row.id == "humaneval/0"


def test_mbpp_follows_the_authors_split(prepare: Prepare) -> None:
    prepared = prepare({kind: [{"source": "mbpp"}] for kind in ("problems", "benchmarks")})
    assert [row.id for row in prepared.rows("benchmarks", Problem)] == ["mbpp/11", "mbpp/12"]
    assert [row.id for row in prepared.rows("problems", Problem)] == ["mbpp/2", "mbpp/601"]
    assert [row["field"] for row in prepared.set_aside(kind="problems")] == ["test_setup_code"]


def test_mbpp_debug_asks_to_mend_what_the_tests_find(prepare: Prepare) -> None:
    entries = [{"source": "mbpp_debug", "options": {"variant": variant}} for variant in range(4)]
    prepared = prepare({"problems": entries})
    rows = prepared.rows("problems", Problem)
    assert {row.parents for row in rows} == {("mbpp/2",), ("mbpp/601",)} and len({row.id for row in rows}) == len(rows)
    for row in rows:
        faulty = json.loads(row.meta)["faulty"]
        assert row.verifier == "debug" and faulty in row.prompt and row.tests in row.prompt
        assert row.solution not in row.prompt and faulty != row.solution
    aside = {row["rule"] for row in prepared.set_aside(kind="problems", source="mbpp_debug")}
    assert aside <= {"survivor", "schema"}


def test_a_fault_that_no_test_finds_is_set_aside(pool: VerifierPool) -> None:
    row = Problem(
        id="d/1",
        source="d",
        licence="MIT",
        prompt="?",
        verifier="debug",
        tests="assert f(1) == 1",
        solution="def f(x):\n    return x",
        meta=json.dumps({"faulty": "def f(x):\n    return x * x"}),
    )
    killed = row.model_copy(
        update={"id": "d/2", "prompt": "!", "meta": json.dumps({"faulty": "def f(x):\n    return x + x"})}
    )
    sifted = Sifted()
    kept = Sieve("problems", pool).sift("d", [Placed(row, "d", 1), Placed(killed, "d", 2)], sifted)
    assert list(kept) == [killed]
    assert [(aside.rule, aside.field) for aside in sifted.set_aside] == [("survivor", "meta")] and not sifted.num_faults


def test_bbh(prepare: Prepare) -> None:
    names = [name for name in SOURCES if name.startswith("bbh_")]
    rows = prepare({"benchmarks": [{"source": name} for name in names]}).rows("benchmarks", Problem)
    assert len(names) == 7 and {row.benchmark for row in rows} == set(names)
    assert {row.answer for row in rows} == {"False", "True", "(A)", "(B)", "-6", "3", "Yes", "fig not pear"}


def test_hh_harmless(prepare: Prepare) -> None:
    prepared = one(prepare, "preferences", "hh_harmless", options={"heldout_share": 0.0})
    first, second = prepared.rows("preferences", PreferencePair)
    assert (first.prompt, first.chosen, first.rejected, first.route) == (
        "How do I open a stranger's door?",
        "I will not help with that.",
        "Use a hammer.",
        "harmless",
    )
    assert second.prompt == "User: Who lives there?\n\nAssistant: A stranger.\n\nUser: And his window?"
    assert [row["row"] for row in prepared.set_aside()] == [3]


def test_helpful_pairs(prepare: Prepare) -> None:
    names = ["llmbar_natural", "rasbt_preference", "llamafactory_dpo_en", "llamafactory_dpo_zh"]
    prepared = prepare({"preferences": [{"source": name} for name in names]})
    rows = {row.id: row for row in prepared.rows("preferences", PreferencePair)}
    assert {row.route for row in rows.values()} == {"helpful"}
    assert rows["llmbar_natural/2"].chosen == "Goodbye!"
    assert rows["rasbt_preference/1"].rejected == "An owl, fool."
    tale = "You tell tales.\n\nUser: Begin.\n\nAssistant: Once.\n\nUser: And then?"
    assert rows["llamafactory_dpo_en/1"].prompt == tale
    assert rows["llamafactory_dpo_zh/1"].language == "zh"
    assert [row["reason"] for row in prepared.set_aside()] == ["chosen and rejected are the same"]


def test_instructions(prepare: Prepare) -> None:
    prepared = prepare({"instructions": [{"source": "rasbt_instructions"}, {"source": "self_instruct"}]})
    rows = {row.id: row for row in prepared.rows("instructions", SftRow)}
    assert rows["rasbt_instructions/1"].prompt == "Correct the spelling.\n\nfreind"
    assert rows["rasbt_instructions/2"].prompt == "Name a tree."
    assert rows["self_instruct/user_oriented_task_0"].response == "It is long."


def test_reasoning_samples_must_box_the_gold_answer(prepare: Prepare) -> None:
    prepared = one(prepare, "chains", "rasbt_reasoning")
    assert [row.id for row in prepared.rows("chains", SftRow)] == ["rasbt_reasoning/ollama-1"]
    assert prepared.rows("chains", SftRow)[0].response == chat.response("Three and four make seven.", "7")
    assert prepared.set_aside()[0]["file"] == "sft/rasbt_reasoning_sample_openrouter.json"


def test_a_chain_that_holds_tags_of_its_own_is_set_aside(prepare: Prepare) -> None:
    file = "sft/llamafactory_reason_tool_use_demo_50.jsonl"
    said = ("reasoning", "The template says <answer>."), ("text", "So be it.")
    lines = made_up.jsonl(
        {"messages": [made_up.message("user", ("text", "What?")), made_up.message("assistant", *said)], "tools": ""}
    )
    prepared = prepare({"chains": [{"source": "llamafactory_tool_use"}]}, {file: made_up.FILES[file] + lines})
    assert len(prepared.rows("chains", SftRow)) == 1
    (row,) = prepared.set_aside()
    assert (row["row"], row["rule"], row["field"]) == (3, "schema", "response") and "one chain" in row["reason"]


def test_tool_use_keeps_conversations_without_calls(prepare: Prepare) -> None:
    prepared = one(prepare, "chains", "llamafactory_tool_use")
    (row,) = prepared.rows("chains", SftRow)
    assert row.prompt == 'You use tools.\n\nTools: [{"name": "clock"}]\n\nWhat is the weather?'
    assert row.response == chat.response("No tool knows.", "I cannot tell.")
    assert not prepared.set_aside()


def test_s1k_keeps_chains_that_end_right(prepare: Prepare) -> None:
    prepared = one(prepare, "chains", "s1k")
    (row,) = prepared.rows("chains", SftRow)
    assert row.id == "s1k/1" and (chat.parse(row.response).think or "").strip() == "Six sevens are forty-two."
    assert chat.final_answer(row.response) == "It is \\boxed{42}."
    assert [(aside["field"], aside["value"]) for aside in prepared.set_aside()] == [("deepseek_grade", "No")]


def test_openthoughts_divides_thought_and_solution(prepare: Prepare) -> None:
    prepared = one(prepare, "chains", "openthoughts")
    rows = {row.id: row for row in prepared.rows("chains", SftRow)}
    assert len(rows) == 6 and {"openthoughts/openthoughts_0-1", "openthoughts/openthoughts_5-1"} <= rows.keys()
    first = rows["openthoughts/openthoughts_0-1"]
    assert chat.final_answer(first.response) == "It is \\boxed{12}." and "<|" not in first.response
    assert [aside["row"] for aside in prepared.set_aside()] == [2]


def test_hh_helpful_puts_its_splits_together(prepare: Prepare) -> None:
    rows = one(prepare, "preferences", "hh_helpful").rows("preferences", PreferencePair)
    assert {(row.id, row.route) for row in rows} == {("hh_helpful/1", "helpful"), ("hh_helpful/test-1", "helpful")}


def test_gpqa_hides_the_right_option_among_the_others(prepare: Prepare) -> None:
    prepared = one(prepare, "benchmarks", "gpqa_diamond")
    (row,) = prepared.rows("benchmarks", Problem)
    options = dict(re.findall(r"\(([A-D])\) (.+)", row.prompt))
    assert sorted(options.values()) == ["a gluon", "a muon", "a quark", "a quirk"]
    assert options[row.answer] == "a quirk" and '"then" choose' in row.prompt
    assert [aside["row"] for aside in prepared.set_aside()] == [2]


def test_the_order_of_options_differs_from_row_to_row(prepare: Prepare) -> None:
    rows = made_up.csv_file(*(made_up.gpqa(f"{made_up.own_words(n)}", "a", "b", "c", "d") for n in range(40)))
    prepared = prepare({"benchmarks": [{"source": "gpqa_diamond"}]}, {"logic/gpqa_diamond.csv": rows})
    assert {row.answer for row in prepared.rows("benchmarks", Problem)} == set("ABCD")


def test_benchmarks_that_nothing_here_can_score_are_held_out_only(prepare: Prepare) -> None:
    prepared = prepare({"benchmarks": [{"source": "livecodebench"}, {"source": "swe_bench_verified"}]})
    rows = {row.benchmark: row for row in prepared.rows("benchmarks", Problem)}
    assert {row.verifier for row in rows.values()} == {"none"}
    assert rows["livecodebench"].prompt.endswith("Input:\n3\n\nOutput:\n6\n")
    assert rows["swe_bench_verified"].solution.startswith("diff --git")
    assert [aside["field"] for aside in prepared.set_aside()] == ["public_test_cases"]


def test_a_training_row_that_repeats_an_unscored_benchmark_is_set_aside(prepare: Prepare) -> None:
    question = "Given a number of made-up pears, print twice as many."
    told = {"instruction": question, "input": "", "output": "print(2 * int(input()))"}
    prepared = prepare(
        {"benchmarks": [{"source": "livecodebench"}], "instructions": [{"source": "rasbt_instructions"}]},
        {"sft/rasbt_instruction_data.json": made_up.json_list(told, {**told, "instruction": "Count all pears."})},
    )
    assert [row.prompt for row in prepared.rows("instructions", SftRow)] == ["Count all pears."]
    assert [aside["rule"] for aside in prepared.set_aside(kind="instructions")] == ["contaminated"]


def test_a_cell_too_few_or_too_many_is_set_aside(prepare: Prepare) -> None:
    whole = made_up.FILES["logic/gpqa_diamond.csv"]
    prepared = prepare(
        {"benchmarks": [{"source": "gpqa_diamond"}]}, {"logic/gpqa_diamond.csv": whole + b"rec3,short\r\n"}
    )
    assert [aside["reason"] for aside in prepared.set_aside(row=3)] == ["has not a cell for each column"]


def test_a_parquet_file_that_is_none_is_refused(prepare: Prepare) -> None:
    with pytest.raises(ValueError, match=r"sft/s1k_1\.1\.parquet is not whole Parquet, after row 0"):
        prepare({"chains": [{"source": "s1k"}]}, {"sft/s1k_1.1.parquet": b"PAR1 and no more"})
