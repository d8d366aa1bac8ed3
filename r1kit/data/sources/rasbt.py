"""Sebastian Raschka's teaching data: instructions, polite and impolite pairs, reasoning samples of R1-like models."""

from r1kit.chat import last_boxed, response
from r1kit.data.records import BadField, Context, Record, json_list
from r1kit.data.source import RawFile, Source, github
from r1kit.rows import PreferencePair, SftRow


def _prompt(record: Record) -> str:
    return "\n\n".join(filter(None, (record.text("instruction").strip(), record.text("input", empty=True).strip())))


def _instruction(record: Record, context: Context) -> SftRow:
    return SftRow(
        **context.common(record.number),
        prompt=_prompt(record),
        response=record.text("output").strip(),
        kind="instruction",
    )


def _pair(record: Record, context: Context) -> PreferencePair:
    prompt = _prompt(record)
    chosen, rejected = record.text("chosen").strip(), record.text("rejected").strip()
    if chosen == rejected:
        raise BadField("rejected", rejected, "chosen and rejected are the same")
    # What is preferred is politeness: a trait of a good reply, so the helpfulness model learns it.
    return PreferencePair(
        **context.common(record.number),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        route="helpful",
        split=context.split(prompt),
    )


def _chain(record: Record, context: Context) -> SftRow:
    """The model's chain with the answer it boxed, which must be the gold one; its explanation repeats the chain."""
    content, gold = record.text("message_content"), record.text("gtruth_answer").strip()
    answer = (last_boxed(content) or "").strip()
    if answer != gold:
        raise BadField("message_content", answer, f"the sample does not box the gold answer {gold}")
    maker = context.file.rpartition("_")[2].removesuffix(".json")
    return SftRow(
        **context.common(f"{maker}-{record.number}"),
        prompt=record.text("problem").strip(),
        response=response(record.text("message_thinking"), answer),
        kind="chain",
    )


def _book(path: str, origin: str, sha256: str) -> RawFile:
    return github(path, "rasbt/LLMs-from-scratch", "28c65cdfbc3338e2e040016eea4b7fdf556e4d57", f"ch07/{origin}", sha256)


def _sample(name: str, sha256: str) -> RawFile:
    return github(
        f"sft/rasbt_reasoning_sample_{name}.json",
        "rasbt/reasoning-from-scratch",
        "f79c9cd0ae7d824aa4e9a9bc2ca4a85167f81958",
        f"ch08/02_generate_distillation_data/sample_{name}_outputs.json",
        sha256,
    )


RASBT_INSTRUCTIONS = Source(
    name="rasbt_instructions",
    licence="Apache-2.0",
    files=(
        _book(
            "sft/rasbt_instruction_data.json",
            "01_main-chapter-code/instruction-data.json",
            "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        ),
    ),
    reader=json_list,
    makers={"instructions": _instruction},
)
RASBT_PREFERENCE = Source(
    name="rasbt_preference",
    licence="Apache-2.0",
    files=(
        _book(
            "pref/rasbt_instruction_preference.json",
            "04_preference-tuning-with-dpo/instruction-data-with-preference.json",
            "305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
        ),
    ),
    reader=json_list,
    makers={"preferences": _pair},
    options={"heldout_share": (0.1, 0.0, 0.5)},
    note="polite against impolite replies to the prompts of rasbt_instructions",
)
RASBT_REASONING = Source(
    name="rasbt_reasoning",
    licence="Apache-2.0",
    files=(
        _sample("ollama", "0b1e9b160b28b6cfb7bf5b181e0fb433720c4e3b772861f591943e4ada940c91"),
        _sample("openrouter", "7e20bcc4df4e24ed9e7ffafe2530485342d5c59f5771944515e22ee7e3d66571"),
    ),
    reader=json_list,
    makers={"chains": _chain},
    note="samples of R1-like models on five problems of MATH's training split",
)
