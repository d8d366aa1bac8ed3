"""The user-oriented instructions of Self-Instruct, written by experts (Wang et al., arXiv 2212.10560)."""

from collections.abc import Mapping

from r1kit.data.records import BadField, Context, Record
from r1kit.data.source import Source, github
from r1kit.rows import SftRow


def _instruction(record: Record, context: Context) -> SftRow:
    first = record.items("instances")[0]
    if not isinstance(first, Mapping):
        raise BadField("instances", first, "instances holds no object")
    instance = Record(record.number, first)
    task = record.text("instruction").strip()
    given = instance.text("input", empty=True).strip()
    return SftRow(
        **context.common(record.text("id")),
        prompt=f"{task}\n\n{given}" if given else task,
        response=instance.text("output").strip(),
        kind="instruction",
    )


SELF_INSTRUCT = Source(
    name="self_instruct",
    licence="Apache-2.0",
    files=(
        github(
            "sft/self_instruct_user_oriented_252.jsonl",
            "yizhongw/self-instruct",
            "0b26ccaa415992100fa32df62d41b994cf928e23",
            "human_eval/user_oriented_instructions.jsonl",
            "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e",
        ),
    ),
    makers={"instructions": _instruction},
    note="written to examine models, used to train one here: no benchmark of r1kit",
)
