"""s1K-1.1: a thousand hard questions with chains of DeepSeek-R1 (Muennighoff et al., arXiv 2501.19393)."""

from r1kit.chat import response
from r1kit.data.records import BadField, Context, Record, parquet
from r1kit.data.source import Source, hub
from r1kit.rows import SftRow


def _chain(record: Record, context: Context) -> SftRow:
    grade = record.text("deepseek_grade")
    if grade.strip().lower() != "yes":
        raise BadField("deepseek_grade", grade, "the chain does not end on the right answer")
    return SftRow(
        **context.common(record.number),
        prompt=record.text("question").strip(),
        response=response(record.text("deepseek_thinking_trajectory").strip(), record.text("deepseek_attempt").strip()),
        kind="chain",
    )


S1K = Source(
    name="s1k",
    licence="Apache-2.0",
    files=(hub("sft/s1k_1.1.parquet", "simplescaling/s1K-1.1", "data/train-00000-of-00001.parquet"),),
    reader=parquet,
    makers={"chains": _chain},
    note="chains of DeepSeek-R1 whose answer the authors' grader calls right",
)
