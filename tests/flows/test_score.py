"""`r1 score`: lines in, lines out, from a file or a pipe, without waiting for what it does not need."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from tasks.workspace import REPOSITORY

RIGHT = {"kind": "math", "answer": "18", "completion": "<answer> 18 </answer>", "id": "a"}
WRONG = RIGHT | {"completion": "<answer> 17 </answer>", "id": "b"}


def r1(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "score", *arguments]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, cwd=REPOSITORY, timeout=120, check=False
    )


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_file_and_a_pipe_give_the_same_lines(tmp_path: Path) -> None:
    text = lines(RIGHT, WRONG, RIGHT)
    plain, packed = tmp_path / "mine.jsonl", tmp_path / "mine.jsonl.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    done = [r1(str(plain), "--json"), r1(str(packed), "--json", "--workers", "2"), r1("-", "--json", given=text)]
    assert {run.returncode for run in done} == {0} and len({run.stdout for run in done}) == 1
    rows = [json.loads(row) for row in done[0].stdout.splitlines()]
    assert [(row["row"], row["id"], row["score"]) for row in rows] == [(1, "a", 1), (2, "b", 0), (3, "a", 1)]
    assert "math: 2 of 3 right" in done[0].stderr


def test_bad_lines_are_told_and_the_rest_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(lines(RIGHT, RIGHT | {"kind": "maths"}, WRONG))
    done = r1(str(path))
    assert done.returncode == 1
    assert [row.split("\t")[:4] for row in done.stdout.splitlines()] == [
        ["1", "a", "math", "1"],
        ["3", "b", "math", "0"],
    ]
    first = done.stderr.splitlines()[0]
    assert first.startswith(f'{path}, row 2, field kind: "maths" is unknown; choose one of math,')
    assert "1 line could not be scored" in done.stderr
    assert json.loads(r1(str(path), "--json").stdout.splitlines()[1]) == {"row": 2, "error": first}


def test_what_a_model_wrote_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    program = "raise ValueError('\\x1b[2J\\n\\ud800 x')"
    path.write_text(lines({"kind": "code", "tests": "assert f()", "completion": program, "id": "\ud800\t\x1b"}))
    done, as_json = r1(str(path)), r1(str(path), "--json")
    assert (done.returncode, as_json.returncode) == (0, 0), done.stderr
    assert len(done.stdout.splitlines()) == 1 and done.stdout.replace("\t", "").strip().isprintable()
    assert "ValueError" in json.loads(as_json.stdout)["reason"]


def test_no_file_is_one_sentence() -> None:
    done = r1("nothing.jsonl")
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.strip()
        == "error: nothing.jsonl: there is no such file; name one with JSON lines, or - for standard input"
    )


def test_it_starts_without_torch() -> None:
    script = "import sys\nimport flows.cli, r1kit.scoring\nprint('torch' in sys.modules, 'prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.split() == ["False", "False"]
