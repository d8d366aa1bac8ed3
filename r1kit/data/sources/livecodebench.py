"""LiveCodeBench: programming contests after a model's training data ended (Jain et al., arXiv 2403.07974)."""

import json

from r1kit.data.records import HELD_OUT_ONLY, BadField, Context, Record
from r1kit.data.source import Source, hub
from r1kit.rows import Problem


def _benchmark(record: Record, context: Context) -> Problem:
    cases = record.text("public_test_cases")
    try:
        shown = json.loads(cases)
        examples = "\n\n".join(f"Input:\n{case['input']}\nOutput:\n{case['output']}" for case in shown)
    except (ValueError, TypeError, KeyError):
        raise BadField("public_test_cases", cases, "public_test_cases is no JSON list of inputs and outputs") from None
    parts = (record.text("question_content").strip(), record.text("starter_code", empty=True).strip(), examples)
    return Problem(
        **context.common(record.text("question_id").strip()),
        prompt="\n\n".join(part for part in parts if part),
        verifier="none",
        benchmark=context.held_out(),
        meta=HELD_OUT_ONLY,
    )


LIVECODEBENCH = Source(
    name="livecodebench",
    licence="CC-BY-4.0",
    files=(hub("code/livecodebench.jsonl", "livecodebench/code_generation_lite", "test.jsonl"),),
    makers={"benchmarks": _benchmark},
    note="for decontamination: it has no reference solutions to check its tests with, and its hidden ones are pickles, "
    "which r1kit never opens",
)
