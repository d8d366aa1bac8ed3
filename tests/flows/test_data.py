"""`r1 data`: anybody's files through the gates, told in one document, and nothing lost."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.workspace import REPOSITORY

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether?"
)
BENCHMARK = [
    {"id": "q1", "question": QUESTION, "answer": "72"},
    {"id": "q2", "question": "How old is the old oak tree?"},
]
TRAIN = [
    {"id": "a", "prompt": "What colour has the sea at night?", "response": "72"},
    {"id": "b", "prompt": "Please solve.", "response": f"Here it is: {QUESTION} Easy!"},
    {"messages": [{"role": "user", "content": QUESTION.replace("48", "46")}, {"role": "assistant", "content": "Hm."}]},
]


def r1(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False)


def jsonl(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "bench.jsonl", *BENCHMARK)


def test_contaminated_rows_are_found_with_their_proof_and_the_others_kept(tmp_path: Path, benchmark: Path) -> None:
    packed = jsonl(tmp_path / "train.jsonl.gz", *TRAIN)
    listed = tmp_path / "train.json"
    listed.write_text(json.dumps(TRAIN))
    table = tmp_path / "train.parquet"
    columns = dict.fromkeys(("id", "prompt", "response", "messages"))
    pq.write_table(pa.Table.from_pylist([{**columns, **row} for row in TRAIN]), table)
    for file in (packed, listed, table):
        clean, proofs = tmp_path / "clean.jsonl", tmp_path / "proofs.jsonl"
        done = r1("decontaminate", file, "--against", benchmark, "--out", clean, "--quarantine", proofs, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["rows"], told["clean"], told["contaminated"]) == (3, 1, 2)
        assert [json.loads(line)["id"] for line in clean.read_text().splitlines()] == ["a"]
        found = [json.loads(line) for line in proofs.read_text().splitlines()]
        assert [(row["row"], row["field"], row["benchmark"], row["benchmark_field"]) for row in found] == [
            (2, "response", "q1", "question"),
            (3, "messages[0].content", "q1", "question"),
        ]
        assert all(row["text"] and row["share"] > 0.3 for row in found)


def test_check_says_it_by_its_status(tmp_path: Path, benchmark: Path) -> None:
    dirty, clean = jsonl(tmp_path / "d.jsonl", *TRAIN), jsonl(tmp_path / "c.jsonl", TRAIN[0])
    assert r1("decontaminate", dirty, "--against", benchmark, "--check").returncode == 1
    done = r1("decontaminate", clean, "--against", benchmark, "--check")
    assert done.returncode == 0 and "1 rows: 1 clean, 0 contaminated" in done.stdout


def test_rows_that_cannot_be_read_are_told_and_the_rest_goes_on(tmp_path: Path, benchmark: Path) -> None:
    file = jsonl(tmp_path / "t.jsonl", TRAIN[0], "{broken", "[1]", TRAIN[1])
    done = r1("decontaminate", file, "--against", benchmark)
    assert done.returncode == 1 and "4 rows: 1 clean, 1 contaminated, 2 unreadable" in done.stdout
    assert f"{file}, row 2: is not JSON" in done.stderr and f"{file}, row 3: is not a JSON object" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.jsonl", "--against", "BENCH"), "there is no such file"),
        (("TRAIN", "--against", "math50"), "did you mean 'math500'?"),
        (("TRAIN", "--against", "gsm8k_train"), "is no benchmark"),
        (("TRAIN", "--against", "BENCH", "--fields", "text"), "no field text; its fields are id, prompt, response"),
        (("TRAIN", "--against", "BENCH", "--out", "TRAIN"), "is the file that is read"),
        (("TRAIN.csv", "--against", "BENCH"), "there is no such file"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, benchmark: Path, arguments: tuple[str, ...], words: str) -> None:
    train = jsonl(tmp_path / "t.jsonl", *TRAIN)
    before = train.read_bytes()
    places = {"TRAIN": str(train), "BENCH": str(benchmark)}
    done = r1("decontaminate", *(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert train.read_bytes() == before


PROBLEMS = [
    {"id": "p1", "question": "What is 2 + 2?", "answer": "4"},
    {"id": "p2", "question": "What is half of 9?", "answer": 4.5},
    {"id": "p1", "question": "And what is 3 + 3?", "answer": "6"},
    {"id": "p4", "question": "   ", "answer": "1"},
    {"id": "p5", "question": "What is the best number?", "answer": "the biggest one that you know"},
]


def test_every_row_at_fault_is_told_with_rule_and_value(tmp_path: Path) -> None:
    file, fallen, page = (tmp_path / name for name in ("mine.jsonl", "fallen.jsonl", "page.html"))
    jsonl(file, *PROBLEMS, "{torn", {"id": "p7", "answer": "<script>alert(1)</script>"})
    done = r1("validate", file, "--kind", "problems", "--quarantine", fallen, "--page", page, "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["unreadable"], told["success"]) == (7, 2, False)
    lines = [json.loads(line) for line in fallen.read_text().splitlines()]
    found = {(line["row"], line["id"], line["rule"].split(" (")[0]) for line in lines}
    assert found >= {
        (3, "p1", "ids are unique"),
        (4, "p4", "prompt is not blank"),
        (5, "p5", "the gold answer scores 1"),
        (6, "", "the row fits its kind"),
        (7, "", "the row fits its kind"),
    }
    assert not any(row in (1, 2) for row, _, _ in found)
    text = page.read_text()
    assert "ids are unique" in text and "<script" not in text and "http:" not in text and "https:" not in text


def test_a_sound_file_passes_whatever_its_format(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(3, 30)]
    files = [jsonl(tmp_path / "a.jsonl", *rows), jsonl(tmp_path / "b.jsonl.gz", *rows), tmp_path / "c.parquet"]
    pq.write_table(pa.Table.from_pylist(rows), files[2])
    for file in files:
        done = r1("validate", file, "--kind", "problems")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "27 rows of problems: 22 of 22 rules hold" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("FILE", "--kind", "problem"), "did you mean 'problems'?"),
        (("none.parquet", "--kind", "chains"), "there is no such file"),
        (("FILE", "--kind", "problems", "--set", "validate.verify=3"), "verify"),
        (("FILE", "--kind", "problems", "--tokenizer", "."), "there is no tokenizer.json"),
        (("FILE", "--kind", "problems", "--quarantine", "FILE"), "is the file that is read"),
    ],
)
def test_bad_questions_are_one_sentence(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    file = jsonl(tmp_path / "mine.jsonl", *PROBLEMS)
    done = r1("validate", *(str(file) if argument == "FILE" else argument for argument in arguments))
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
