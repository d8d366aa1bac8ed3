"""The demonstration sets of LLaMA-Factory: preference pairs in two languages, and reasoning about tools."""

from collections.abc import Mapping
from typing import Any

from r1kit.chat import response
from r1kit.data.conversation import as_prompt
from r1kit.data.records import BadField, Context, Record, json_list, jsonl
from r1kit.data.source import RawFile, Source, github
from r1kit.rows import Language, PreferencePair, SftRow

_ROLES = {"human": "user", "gpt": "assistant"}


def _text(field: str, message: Any) -> str:
    value = message.get("value") if isinstance(message, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        raise BadField(field, message, f"{field} holds no text")
    return value.strip()


def _dialogue(record: Record) -> str:
    turns, system = [], ""
    for message in record.items("conversations"):
        said = _text("conversations", message)
        if message.get("from") == "system" and not turns:
            system = said
        elif message.get("from") in _ROLES:
            turns.append((_ROLES[message["from"]], said))
        else:
            raise BadField("conversations", message, "conversations holds a turn of nobody known")
    if not turns or turns[-1][0] != "user":
        raise BadField("conversations", record.get("conversations"), "conversations does not end on a question")
    return as_prompt(turns, system)


def _pair(record: Record, context: Context) -> PreferencePair:
    prompt = _dialogue(record)
    chosen, rejected = _text("chosen", record.get("chosen")), _text("rejected", record.get("rejected"))
    if chosen == rejected:
        raise BadField("rejected", rejected, "chosen and rejected are the same")
    language: Language = "zh" if "_zh_" in context.file else "en"
    return PreferencePair(
        **context.common(record.number),
        language=language,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        route="helpful",
        split=context.split(prompt),
    )


def _chain(record: Record, context: Context) -> SftRow | None:
    """A question that the tools cannot help with, thought over and answered.

    Conversations in which a tool is called do not fit: the chat format has no turn for a tool.
    """
    parts: dict[str, list[tuple[str, str]]] = {}
    for message in record.items("messages"):
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list):
            raise BadField("messages", message, "messages holds a turn without content")
        said = parts.setdefault(str(message.get("role")), [])
        for part in content:
            text = _text("messages", part)
            said.append((str(part.get("type")), text))
    if "tool" in parts or [kind for kind, _ in parts.get("assistant", [])] != ["reasoning", "text"]:
        return None
    if len(parts.get("user", [])) != 1:
        raise BadField("messages", record.get("messages"), "messages has one response, but not one question")
    system = "\n\n".join(text for _, text in parts.get("system", []))
    tools = record.text("tools", empty=True).strip()
    (_, thought), (_, reply) = parts["assistant"]
    return SftRow(
        **context.common(record.number),
        prompt=as_prompt([("user", parts["user"][0][1])], f"{system}\n\nTools: {tools}" if tools else system),
        response=response(thought, reply),
        kind="chain",
    )


def _file(path: str, origin: str, sha256: str) -> RawFile:
    return github(path, "hiyouga/LLaMA-Factory", "ff6d4d12eeb035d6ce06805a5733dd7b29f2ac30", f"data/{origin}", sha256)


def _pairs(language: Language, sha256: str) -> Source:
    return Source(
        name=f"llamafactory_dpo_{language}",
        licence="Apache-2.0 (repo)",
        files=(_file(f"pref/llamafactory_dpo_{language}_demo.json", f"dpo_{language}_demo.json", sha256),),
        reader=json_list,
        makers={"preferences": _pair},
        options={"heldout_share": (0.1, 0.0, 0.5)},
    )


LLAMAFACTORY_DPO_EN = _pairs("en", "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3")
LLAMAFACTORY_DPO_ZH = _pairs("zh", "9ea7206bc1a45df8b7811d1fc02d5555c65379d05905f343da88f221ff145376")
LLAMAFACTORY_TOOL_USE = Source(
    name="llamafactory_tool_use",
    licence="Apache-2.0 (repo)",
    files=(
        _file(
            "sft/llamafactory_reason_tool_use_demo_50.jsonl",
            "reason_tool_use_demo_50.jsonl",
            "6e1f0d3cbb8b0a6c73362bd42c33fa45256e7c8cb8ae74608ec7f9c6774b7e4e",
        ),
    ),
    reader=jsonl,
    makers={"chains": _chain},
    note="the conversations without tool calls",
)
