"""Small raw files of every source, made up, in the schema of the real ones."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1kit.data.source import RawFile, Source
from r1kit.data.table import SOURCES


def jsonl(*records: Any) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def json_list(*records: Any) -> bytes:
    return json.dumps(list(records), ensure_ascii=False).encode()


def parquet(*records: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), stream)
    return stream.getvalue()


def csv_file(*records: dict[str, str]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().encode("utf-8-sig")


def bbh(*pairs: tuple[str, str]) -> bytes:
    return json.dumps({"canary": "made up", "examples": [{"input": q, "target": a} for q, a in pairs]}).encode()


def gsm8k(apples: int, name: str = "Mia") -> dict[str, str]:
    return {
        "question": f"{name} puts {apples} apples in each of 2 baskets at the orchard. How many apples is that?",
        "answer": f"Each basket holds {apples} apples.\n2 * {apples} = <<2*{apples}={2 * apples}>>{2 * apples}\n"
        f"#### {2 * apples}",
    }


def math(question: str, boxed: str, **more: Any) -> dict[str, Any]:
    return {"problem": question, "solution": f"We find $\\boxed{{{boxed}}}$.", **more}


def own_words(*numbers: int) -> str:
    """Twenty words that only these numbers have, so that rows are no copies of one another."""
    digits = "".join(f"{number:05d}" for number in numbers)
    return " ".join(f"{digits.translate(_LETTERS)}{ending}" for ending in map("".join, product("bdfg", "aeiou")))


_LETTERS = str.maketrans("0123456789", "abcdefghij")


def aime(number: int, year: int = 1990) -> dict[str, Any]:
    return {
        "problem": f"A {own_words(year, number)} has number {number}. What is its number plus one?",
        "solution": f"It is \\boxed{{{number + 1}}}.\n~somebody",
        "answer": str(number + 1),
        "year": year,
        "aime_number": 1,
        "problem_number": number,
        "difficulty": 4.0,
    }


def mbpp(task: int, setup: str = "") -> dict[str, Any]:
    return {
        "text": f"Write a function for a {own_words(task)} that adds {task} to its argument.",
        "code": f"def add_{task}(x):\r\n\treturn x + {task}",
        "task_id": task,
        "test_setup_code": setup,
        "test_list": [f"assert add_{task}(1) == {task + 1}", f"assert add_{task}(0) == {task}"],
        "challenge_test_list": [],
    }


def hh(question: str, chosen: str, rejected: str, before: str = "") -> dict[str, str]:
    start = f"{before}\n\nHuman: {question}\n\nAssistant:"
    return {"chosen": f"{start} {chosen}", "rejected": f"{start} {rejected}"}


def dpo(question: str, chosen: str, rejected: str, *before: tuple[str, str]) -> dict[str, Any]:
    turns = [*before, ("human", question)]
    return {
        "conversations": [{"from": role, "value": text} for role, text in turns],
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
    }


def message(role: str, *parts: tuple[str, str]) -> dict[str, Any]:
    return {"role": role, "content": [{"type": kind, "value": text} for kind, text in parts]}


def sample(gold: str, boxed: str) -> dict[str, str]:
    return {
        "problem": "What is three plus four?",
        "gtruth_answer": gold,
        "message_thinking": "Three and four make seven.",
        "message_content": f"It is \\boxed{{{boxed}}}.",
    }


def s1k(question: str, grade: str) -> dict[str, Any]:
    return {
        "question": question,
        "solution": "42",
        "source_type": "made up",
        "deepseek_thinking_trajectory": "Six sevens are forty-two.",
        "deepseek_attempt": "It is \\boxed{42}.",
        "deepseek_grade": grade,
        "deepseek_grade_reason": "made up",
    }


def thoughts(question: str, said: str) -> dict[str, Any]:
    turns = [{"from": "user", "value": question}, {"from": "assistant", "value": said}]
    return {"system": "Think.", "conversations": turns}


def thought_and_solution(thought: str, solution: str) -> str:
    return (
        f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
    )


def gpqa(name: str, right: str, *wrong: str) -> dict[str, str]:
    return {
        "Record ID": name,
        "Question": f'Which particle of {name} is made up?\nThink, "then" choose.',
        "Correct Answer": right,
        **{f"Incorrect Answer {number}": answer for number, answer in enumerate(wrong, 1)},
        "Explanation": f"It is {right}.",
    }


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x: int) -> int:\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8\n",
}
MATH500 = math(
    "Compute the made-up half of 14.", "7", answer="7", subject="Algebra", level=1, unique_id="test/a/1.json"
)

FILES: dict[str, bytes] = {
    "math/gsm8k_train.jsonl": jsonl(gsm8k(3), gsm8k(1000, "Ada"), gsm8k(5, "Leo")),
    "math/gsm8k_test.jsonl": jsonl(gsm8k(8, "Zoe"), gsm8k(9, "Kim")),
    "math/math500.jsonl": jsonl(MATH500),
    "math/math_test5000.jsonl": jsonl(
        math("Compute  the made-up half of 14.", "7", level="Level 1", idx=0),
        math("Find the made-up fraction.", "\\frac{1}{2}", level="Level 2", idx=1),
    ),
    "math/math_train7474_answers.json": json_list(
        {"problem": "What is a made-up dozen?", "answer": "12", "difficulty": 1.0, "type": "Algebra"},
        {"problem": "What was never answered?", "answer": None, "difficulty": 1.0, "type": "Algebra"},
    ),
    "math/aime2024.json": json_list(aime(4, 2024)),
    "math/aime1983_2023.json": json_list(aime(1), aime(2)),
    "math/cmath_zh.jsonl": jsonl(
        *(
            {"grade": 1, "question": f"小明有{n}本书，又买了2本，现在有几本？", "golden": str(n + 2)}
            for n in range(1, 13)
        )
    ),
    "code/HumanEval.jsonl.gz": gzip.compress(jsonl(HUMANEVAL), mtime=0),
    "code/mbpp.jsonl": jsonl(mbpp(2), mbpp(11), mbpp(12), mbpp(601), mbpp(927, "root = Node(1)")),
    "logic/bbh/boolean_expressions.json": bbh(("not ( True ) is", "False"), ("True and True is", "True")),
    "logic/bbh/date_understanding.json": bbh(("Which day?\nOptions:\n(A) today\n(B) never", "(A)")),
    "logic/bbh/logical_deduction_three_objects.json": bbh(("Which bird?\nOptions:\n(A) owl\n(B) emu", "(B)")),
    "logic/bbh/multistep_arithmetic_two.json": bbh(("((1 + 2) * (3 - 5)) =", "-6")),
    "logic/bbh/object_counting.json": bbh(("I have a harp and two drums. How many instruments do I have?", "3")),
    "logic/bbh/web_of_lies.json": bbh(("Question: Ann lies. Bo says Ann lies. Does Bo tell the truth?", "Yes")),
    "logic/bbh/word_sorting.json": bbh(("Sort the following words alphabetically: List: pear not fig", "fig not pear")),
    "pref/hh_harmless_base_test.jsonl.gz": gzip.compress(
        jsonl(
            hh("How do I open a stranger's door?", "I will not help with that.", "Use a hammer."),
            hh("And his window?", "No.", "A stone will do.", "\n\nHuman: Who lives there?\n\nAssistant: A stranger."),
            {"chosen": "\n\nHuman: One?\n\nAssistant: Two.", "rejected": "\n\nHuman: Three?\n\nAssistant: Four."},
        ),
        mtime=0,
    ),
    "pref/llmbar_natural.json": json_list(
        {"input": "Say hello.", "output_1": "Hello!", "output_2": "Goodbye!", "label": 1},
        {"input": "Say goodbye.", "output_1": "Hello!", "output_2": "Goodbye!", "label": 2},
    ),
    "pref/rasbt_instruction_preference.json": json_list(
        {
            "instruction": "Name a bird.",
            "input": "",
            "output": "An owl.",
            "rejected": "An owl, fool.",
            "chosen": "An owl.",
        },
        {"instruction": "Name a fish.", "input": "", "output": "A carp.", "rejected": "A carp.", "chosen": "A carp."},
    ),
    "pref/llamafactory_dpo_en_demo.json": json_list(
        dpo("And then?", "The end.", "Again.", ("system", "You tell tales."), ("human", "Begin."), ("gpt", "Once.")),
    ),
    "pref/llamafactory_dpo_zh_demo.json": json_list(dpo("你好吗？", "我很好，谢谢。", "不好。")),
    "sft/rasbt_instruction_data.json": json_list(
        {"instruction": "Correct the spelling.", "input": "freind", "output": "friend"},
        {"instruction": "Name a tree.", "input": "", "output": "An oak."},
    ),
    "sft/llamafactory_reason_tool_use_demo_50.jsonl": jsonl(
        {
            "messages": [
                message("system", ("text", "You use tools.")),
                message("user", ("text", "What is the weather?")),
                message("assistant", ("reasoning", "No tool knows."), ("text", "I cannot tell.")),
            ],
            "tools": '[{"name": "clock"}]',
        },
        {
            "messages": [
                message("user", ("text", "What time is it?")),
                message("assistant", ("reasoning", "I ask the clock."), ("tool_call", "clock()")),
            ],
            "tools": "[]",
        },
    ),
    "sft/self_instruct_user_oriented_252.jsonl": jsonl(
        {
            "id": "user_oriented_task_0",
            "motivation_app": "made up",
            "instruction": "Make it shorter.",
            "instances": [{"input": "It is very very long.", "output": "It is long."}],
        }
    ),
    "pref/hh_helpful_base_train.jsonl.gz": gzip.compress(
        jsonl(hh("How do I boil an egg?", "Eight minutes in boiling water.", "No idea.")), mtime=0
    ),
    "pref/hh_helpful_base_test.jsonl.gz": gzip.compress(
        jsonl(hh("And a potato?", "Twenty minutes.", "Ask your mother.")), mtime=0
    ),
    "sft/s1k_1.1.parquet": parquet(s1k("What are six sevens?", "Yes"), s1k("What are nine sixes?", "No")),
    "sft/openthoughts_0.parquet": parquet(
        thoughts("What is a made-up dozen?", thought_and_solution("A dozen is a dozen.", "It is \\boxed{12}.")),
        thoughts("What is a made-up score?", "Twenty."),
    ),
    **{
        f"sft/openthoughts_{part}.parquet": parquet(
            thoughts(f"Name part {own_words(part)}.", thought_and_solution("I name it.", f"Part {part}."))
        )
        for part in range(1, 6)
    },
    "logic/gpqa_diamond.csv": csv_file(
        gpqa("rec1", "a quirk", "a quark", "a gluon", "a muon"), gpqa("rec2", "same", "same", "other", "third")
    ),
    "code/livecodebench.jsonl": jsonl(
        {
            "question_title": "A. Made Up",
            "question_content": "Given a number of made-up pears, print twice as many.",
            "question_id": "1873_A",
            "starter_code": "",
            "public_test_cases": '[{"input": "3\\n", "output": "6\\n", "testtype": "stdin"}]',
            "private_test_cases": "eJxrYJmaxQABNUVwlpEBAD7CBKM=",
        },
        {
            "question_content": "Nothing is shown.",
            "question_id": "1873_B",
            "starter_code": "",
            "public_test_cases": "{",
        },
    ),
    "code/swe_bench_verified.parquet": parquet(
        {
            "instance_id": "made__up-1",
            "repo": "made/up",
            "problem_statement": "The made-up parser forgets the last line of a file.",
            "patch": "diff --git a/parse.py b/parse.py\n+    yield last\n",
            "test_patch": "diff --git a/test.py b/test.py\n",
        }
    ),
    "sft/rasbt_reasoning_sample_ollama.json": json_list(sample("7", "7")),
    "sft/rasbt_reasoning_sample_openrouter.json": json_list(sample("7", "8")),
}
"""Path in the mirror → bytes."""


def write(mirror: Path, files: Mapping[str, bytes]) -> dict[str, Source]:
    """Writes a mirror, and gives the table of sources with the checksums of its files."""
    for path, content in files.items():
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(content)
    return {name: _resealed(source, files) for name, source in SOURCES.items()}


def _resealed(source: Source, files: Mapping[str, bytes]) -> Source:
    def resealed(raw: RawFile) -> RawFile:
        return replace(raw, sha256=hashlib.sha256(files[raw.path]).hexdigest()) if raw.path in files else raw

    return replace(source, files=tuple(map(resealed, source.files)), held_out=tuple(map(resealed, source.held_out)))
