"""OpenThoughts-114k: chains of DeepSeek-R1 on mathematics, code, science and puzzles (arXiv 2506.04178)."""

import re

from r1kit.chat import response
from r1kit.data.records import BadField, Context, Record, parquet
from r1kit.data.source import Source, hub
from r1kit.rows import SftRow

_PARTS = re.compile(
    r"\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>"
    r"\s*<\|begin_of_solution\|>(.*?)<\|end_of_solution\|>\s*",
    re.DOTALL,
)
_NUM_FILES = 6


def _chain(record: Record, context: Context) -> SftRow:
    turns = record.items("conversations")
    roles = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if roles != ["user", "assistant"]:
        raise BadField("conversations", roles, "conversations is not one question and one response")
    question, said = (str(turn.get("value") or "") for turn in turns)
    parts = _PARTS.fullmatch(said)
    if not question.strip() or not parts:
        raise BadField("conversations", said, "the response is not one thought and one solution in their marks")
    return SftRow(
        **context.common(f"{context.file.rsplit('/', 1)[-1].split('.')[0]}-{record.number}"),
        prompt=question.strip(),
        response=response(parts[1].strip(), parts[2].strip()),
        kind="chain",
    )


OPENTHOUGHTS = Source(
    name="openthoughts",
    licence="Apache-2.0",
    files=tuple(
        hub(
            f"sft/openthoughts_{part}.parquet",
            "open-thoughts/OpenThoughts-114k",
            f"data/train-{part:05d}-of-{_NUM_FILES:05d}.parquet",
        )
        for part in range(_NUM_FILES)
    ),
    reader=parquet,
    makers={"chains": _chain},
)
