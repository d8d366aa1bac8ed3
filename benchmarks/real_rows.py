"""The real data sets as typed rows: from a mirror where there is one, else from their public addresses."""

import json
import os
from pathlib import Path

from benchmarks.environment import ROOT
from r1kit.chat import response
from r1kit.data.config import Kind, SourceEntry
from r1kit.data.fetch import raw_file
from r1kit.data.records import BadRow
from r1kit.data.source import RawFile, github
from r1kit.data.table import SOURCES
from r1kit.rows import Problem

LABELLED = github(
    "math/gsm8k_example_model_solutions.jsonl",
    "openai/grade-school-math",
    "3101c7d5072418e28b9008a6636bde82a006892c",
    "grade_school_math/data/example_model_solutions.jsonl",
    "4bc62db838f8418365d51c627bd66294cbdca9fb7f01519cb13f0dce8c51580b",
)
"""Solutions of four models to the test problems of GSM8K, each with a label: right or wrong (arXiv 2110.14168)."""
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def problems(name: str) -> tuple[list[Problem], list[BadRow]]:
    """All problems of a source, of training and of benchmarks, and the rows that its loader sets aside."""
    source = SOURCES[name]
    paths = raw_paths(name)
    kinds: list[Kind] = [kind for kind in source.kinds if kind in ("problems", "benchmarks")]
    good: list[Problem] = []
    bad: dict[tuple[str, int], BadRow] = {}
    for kind in kinds:
        for item in source.rows(kind, SourceEntry(source=name, limit=None), paths, 0):
            if isinstance(item, BadRow):
                bad[item.file, item.row] = item
            else:
                assert isinstance(item.row, Problem)
                good.append(item.row)
    return good, list(bad.values())


def labelled_solutions() -> tuple[list[Problem], list[str], list[bool]]:
    """Problems of GSM8K, completions of models, and whether people call them right."""
    rows: list[Problem] = []
    texts, labels = [], []
    for number, line in enumerate(_path(LABELLED).read_text(encoding="utf-8").splitlines(), 1):
        question = json.loads(line)
        gold = question["ground_truth"].rsplit("A:", 1)[1].strip()
        for model in MODELS:
            chain, colon, answer = question[model]["solution"].rpartition("A:")
            rows.append(
                Problem(
                    id=f"gsm8k_solutions/{number}-{model}",
                    source="gsm8k_solutions",
                    licence="MIT",
                    prompt=question["question"],
                    verifier="math",
                    answer=gold,
                )
            )
            texts.append(response(chain, answer) if colon else question[model]["solution"])
            labels.append(bool(question[model]["is_correct"]))
    return rows, texts, labels


def raw_paths(name: str) -> list[Path]:
    """The files of a source, fetched where need be."""
    return [_path(file) for file in SOURCES[name].raw_files]


def _path(file: RawFile) -> Path:
    beside = ROOT.parent / "shared" / "data"
    mirror = os.environ.get("R1_DATA_MIRROR") or (str(beside) if (beside / file.path).is_file() else "")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "r1kit"
    return raw_file(file, mirror, cache)
