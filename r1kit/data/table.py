"""Every source of data by its name, as `data.<kind>[].source` of pipeline.yaml has it."""

from r1kit.data.source import Source
from r1kit.data.sources.aime import AIME2024, AIME_PAST
from r1kit.data.sources.bbh import BBH
from r1kit.data.sources.cmath import CMATH
from r1kit.data.sources.competition_math import MATH500, MATH_TEST, MATH_TRAIN
from r1kit.data.sources.gpqa import GPQA_DIAMOND
from r1kit.data.sources.gsm8k import GSM8K_TEST, GSM8K_TRAIN
from r1kit.data.sources.gym import GYM
from r1kit.data.sources.hh import HH_HARMLESS, HH_HELPFUL
from r1kit.data.sources.humaneval import HUMANEVAL
from r1kit.data.sources.livecodebench import LIVECODEBENCH
from r1kit.data.sources.llamafactory import LLAMAFACTORY_DPO_EN, LLAMAFACTORY_DPO_ZH, LLAMAFACTORY_TOOL_USE
from r1kit.data.sources.llmbar import LLMBAR
from r1kit.data.sources.mbpp import MBPP
from r1kit.data.sources.mbpp_debug import MBPP_DEBUG
from r1kit.data.sources.openthoughts import OPENTHOUGHTS
from r1kit.data.sources.rasbt import RASBT_INSTRUCTIONS, RASBT_PREFERENCE, RASBT_REASONING
from r1kit.data.sources.s1k import S1K
from r1kit.data.sources.self_instruct import SELF_INSTRUCT
from r1kit.data.sources.swe_bench import SWE_BENCH_VERIFIED
from r1kit.data.sources.tinyworld import TINYWORLD

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        TINYWORLD,
        GSM8K_TRAIN,
        GSM8K_TEST,
        MATH_TRAIN,
        MATH_TEST,
        MATH500,
        AIME_PAST,
        AIME2024,
        CMATH,
        HUMANEVAL,
        MBPP,
        MBPP_DEBUG,
        *BBH,
        *GYM,
        HH_HARMLESS,
        HH_HELPFUL,
        LLMBAR,
        RASBT_INSTRUCTIONS,
        RASBT_PREFERENCE,
        RASBT_REASONING,
        LLAMAFACTORY_DPO_EN,
        LLAMAFACTORY_DPO_ZH,
        LLAMAFACTORY_TOOL_USE,
        SELF_INSTRUCT,
        S1K,
        OPENTHOUGHTS,
        GPQA_DIAMOND,
        LIVECODEBENCH,
        SWE_BENCH_VERIFIED,
    )
}
"""The table of sources. A new one is a file in r1kit/data/sources and a line here."""
