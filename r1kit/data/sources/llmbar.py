"""LLMBar: pairs where one output follows the instruction and the other does not (Zeng et al., arXiv 2310.07641)."""

from r1kit.data.records import BadField, Context, Record, json_list
from r1kit.data.source import Source, github
from r1kit.rows import PreferencePair


def _pair(record: Record, context: Context) -> PreferencePair:
    label = record.get("label")
    if label not in (1, 2):
        raise BadField("label", label, "label is neither 1 nor 2")
    outputs = [record.text("output_1").strip(), record.text("output_2").strip()]
    prompt = record.text("input").strip()
    return PreferencePair(
        **context.common(record.number),
        prompt=prompt,
        chosen=outputs[label - 1],
        rejected=outputs[2 - label],
        route="helpful",
        split=context.split(prompt),
    )


LLMBAR = Source(
    name="llmbar_natural",
    licence="MIT",
    files=(
        github(
            "pref/llmbar_natural.json",
            "princeton-nlp/LLMBar",
            "900616bff90b6c6c8e1681f7d079250637c55992",
            "Dataset/LLMBar/Natural/dataset.json",
            "f7127b7aa78104cb8e03a2b1b3ac0077e95b125714dd441a8ee63666145a3375",
        ),
    ),
    reader=json_list,
    makers={"preferences": _pair},
    options={"heldout_share": (0.1, 0.0, 0.5)},
    note="made to examine judges, used to train one here",
)
