"""Comparisons of Anthropic's HH (Bai et al., arXiv 2204.05862)."""

import re

from r1kit.data.conversation import as_prompt
from r1kit.data.records import BadField, Context, Record
from r1kit.data.source import RawFile, Source, github
from r1kit.rows import PreferencePair

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _turns(record: Record, field: str) -> list[tuple[str, str]]:
    text = record.text(field)
    before, *parts = _TURN.split(text)
    turns = [(_ROLES[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True)]
    if before.strip() or len(turns) < 2 or [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise BadField(field, text, f"{field} does not end on a question and its response")
    if not turns[-1][1]:
        raise BadField(field, text, f"{field} ends on an empty response")
    return turns


def _pair(record: Record, context: Context) -> PreferencePair:
    chosen, rejected = _turns(record, "chosen"), _turns(record, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise BadField("rejected", record.get("rejected"), "chosen and rejected answer different conversations")
    if chosen == rejected:
        raise BadField("rejected", rejected[-1][1], "chosen and rejected are the same")
    prompt = as_prompt(chosen[:-1])
    return PreferencePair(
        **context.common(_name(record, context)),
        prompt=prompt,
        chosen=chosen[-1][1],
        rejected=rejected[-1][1],
        route="helpful" if context.source == "hh_helpful" else "harmless",
        split=context.split(prompt),
    )


def _name(record: Record, context: Context) -> str:
    return f"test-{record.number}" if context.file.endswith("helpful_base_test.jsonl.gz") else str(record.number)


def _file(name: str, origin: str, sha256: str = "") -> RawFile:
    commit = "354e5c3cb8960630860dd5774a6ac2a58313bf4d"
    return github(f"pref/hh_{name}.jsonl.gz", "anthropics/hh-rlhf", commit, origin, sha256)


HH_HARMLESS = Source(
    name="hh_harmless",
    licence="MIT",
    files=(
        _file(
            "harmless_base_test",
            "harmless-base/test.jsonl.gz",
            "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
        ),
    ),
    makers={"preferences": _pair},
    options={"heldout_share": (0.1, 0.0, 0.5)},
    note="the origin's test split, divided again by prompt",
)
HH_HELPFUL = Source(
    name="hh_helpful",
    licence="MIT",
    files=(
        _file("helpful_base_train", "helpful-base/train.jsonl.gz"),
        _file("helpful_base_test", "helpful-base/test.jsonl.gz"),
    ),
    makers={"preferences": _pair},
    options={"heldout_share": (0.1, 0.0, 0.5)},
    note="the origin's splits, put together and divided again by prompt",
)
