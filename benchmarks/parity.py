"""Compare r1kit's GRPO with TRL's, number by number: `make bench-parity`.

Random batches, for every choice that both have, go through r1kit's training step here and through TRL's GRPOTrainer
in an environment of its own. Prints a line a case, and last one JSON object with the largest differences.

    python -m benchmarks.parity           compare
    python -m benchmarks.parity --write   compare, and keep the cases and TRL's answers for the ordinary tests
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import ROOT, python_of
from r1kit import models as model_directories
from tests.r1kit.models import small_model
from tests.r1kit.parity import GOLDEN, make_cases, models, our_answer, summary, worst_difference

PINS = ROOT / "benchmarks" / "trl.txt"
TOLERANCE = 1e-5


def main() -> int:
    """Exit status 0 where every case agrees."""
    torch.set_num_threads(1)
    cases = make_cases()
    answers, versions = ask_trl(cases)
    worst = {case["name"]: worst_difference(our_answer(case), answers[case["name"]]) for case in cases}
    for case in cases:
        numbers = "  ".join(f"{part} {value:.1e}" for part, value in worst[case["name"]].items())
        print(f"{case['kind']:6}  {case['name']:36}  {numbers}")
    largest = {part: max(row[part] for row in worst.values()) for part in ("advantages", "loss", "gradient")}
    agree = all(value <= TOLERANCE for value in largest.values())
    if "--write" in sys.argv[1:]:
        write(cases, answers, versions)
    print(json.dumps({"benchmark": "parity", "rival": versions, "cases": len(cases), "tolerance": TOLERANCE,
                      "largest_difference": largest, "agree": agree}))  # fmt: skip
    return 0 if agree else 1


def ask_trl(cases: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """TRL's answers by case, and the versions that gave them."""
    python = python_of(PINS)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "cases.json").write_text(json.dumps(cases))
        for name, model in models().items():
            model_directories.save(model, small_model()[1], work / "models" / name)
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        script = ROOT / "benchmarks" / "parity_trl.py"
        subprocess.run([str(python), str(script), str(work)], check=True, env=environment, stdout=sys.stderr)
        ask = (
            "import importlib.metadata as m; print(*(f'{n}={m.version(n)}' for n in ('trl', 'transformers', 'torch')))"
        )
        told = subprocess.run([str(python), "-c", ask], check=True, capture_output=True, text=True, env=environment)
        return json.loads((work / "answers.json").read_text()), dict(x.split("=") for x in told.stdout.split())


def write(cases: list[dict[str, Any]], answers: dict[str, Any], versions: dict[str, str]) -> None:
    """Keep cases and answers, one case a line."""
    lines = [json.dumps({**case, "answer": summary(answers[case["name"]])}) for case in cases]
    text = ",\n".join(lines)
    GOLDEN.write_text(f'{{"rival": {json.dumps(versions)}, "cases": [\n{text}\n]}}\n')


if __name__ == "__main__":
    sys.exit(main())
