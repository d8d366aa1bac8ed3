"""What every kind of prepared rows must be: a table of scalars derived from the rows, and the rules on it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from r1kit import chat
from r1kit.data.normalise import normalise
from r1kit.rewards.language import language_share
from r1kit.rows import PreferencePair, Problem, Row, SftRow
from tasks.expectations import (
    ID,
    ROW,
    Rule,
    among,
    between,
    contains,
    free_of,
    not_blank,
    same,
)
from tasks.seen import Seen, TokenCounter, estimated_tokens
from tasks.tallies import SourceTally

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from r1kit.config import ValidateConfig

ROW_CLASSES: dict[str, type[Row]] = {
    "pretrain": SftRow,
    "problems": Problem,
    "chains": SftRow,
    "instructions": SftRow,
    "preferences": PreferencePair,
    "benchmarks": Problem,
}
"""Kind of prepared file → what its rows are."""
GOLD_RULE = "the gold answer scores 1"
FORMAT_ADVICE = "run the data stage again, and keep other programs from writing its files"

_SFT_KINDS = {"pretrain": "pretrain", "chains": "chain", "instructions": "instruction"}
_ALWAYS_FILLED = ("id", "source", "licence", "prompt", "response", "chosen", "rejected")


@dataclass(frozen=True)
class Examined:
    """A table and the rules on it."""

    frame: "pd.DataFrame"
    rules: Sequence[Rule]


@dataclass(frozen=True)
class Surroundings:
    """What the rules on one kind of rows need to know besides the rows."""

    kind: str
    config: "ValidateConfig"
    wanted: bool
    """Whether the profile asks for such rows."""
    allowed_licences: Sequence[str]
    """Empty means any."""
    benchmarks: Mapping[str, str]
    """Normalised prompt → id of a benchmark row."""
    sources: Mapping[str, SourceTally]
    """What the manifest says of each source of this kind."""
    entries: Sequence[str]
    """Sources that the configuration names for this kind."""
    count_tokens: TokenCounter = estimated_tokens


def columns_examined(table: "pa.Table", row_class: type[Row]) -> Examined:
    """The file's columns against the fields of the row class: one row a column."""
    import pandas as pd

    expected = {name: _arrow_type(field.annotation) for name, field in row_class.model_fields.items()}
    found = {column.name: _type_name(column.type) for column in table.schema}
    names = list(dict.fromkeys([*expected, *found]))
    frame = pd.DataFrame(
        {
            ROW: range(1, len(names) + 1),
            ID: names,
            "found": [found.get(name, "missing") for name in names],
            "expected": [expected.get(name, "not there") for name in names],
        }
    )
    limit = ", ".join(f"{name}: {type_}" for name, type_ in expected.items())
    rule = same("every column is there, with its type", "found", "expected", limit=limit, advice=FORMAT_ADVICE)
    return Examined(frame, [rule])


def sources_examined(around: Surroundings) -> Examined:
    """What the manifest and the quarantine say of each source: one row a source."""
    import pandas as pd

    names = list(around.sources)
    frame = pd.DataFrame(
        {
            ROW: range(1, len(names) + 1),
            ID: pd.Series(names, dtype="str"),
            "rows_kept": [around.sources[name].kept for name in names],
            "quarantine_share": [around.sources[name].quarantine_share for name in names],
        }
    )
    share = around.config.max_quarantine_share
    advice = "see quarantine.jsonl for the reasons; mend the source, or raise validate.max_quarantine_share"
    rules = [
        between("every source's quarantined share is small", "quarantine_share", 0, share, limit=f"at most {share:g}",
                advice=advice),
        between("every source gave rows", "rows_kept", 1, None, limit="at least 1",
                advice="see manifest.json for what became of its rows, or take the source out of the profile"),
    ]  # fmt: skip
    if around.entries:
        name = "the manifest knows every source of the profile"
        rules.append(contains(name, ID, sorted(set(around.entries)), advice="run the data stage again"))
    return Examined(frame, rules)


def rows_examined(table: "pa.Table", around: Surroundings, seen: Seen) -> Examined:
    """A slice of the rows: columns derived from them, and the rules on each."""
    import pandas as pd

    row_class = ROW_CLASSES[around.kind]
    columns = {name: table.column(name).to_pylist() for name in row_class.model_fields}
    texts = {name: ["" if cell is None else cell for cell in columns[name]] for name in _text_fields(row_class)}
    numbers = range(seen.rows + 1, seen.rows + table.num_rows + 1)
    derived: dict[str, Any] = {ROW: numbers, ID: texts["id"], "missing": _missing(table)}
    derived |= {"repeated": seen.repeated(texts["id"])}
    rules = [
        free_of("no value is missing", "missing", limit="no null", advice=FORMAT_ADVICE),
        free_of("ids are unique", "repeated", limit="once each"),
        among("the manifest tells of the source", "source", list(around.sources), advice="run the data stage again"),
    ]  # fmt: skip
    parts = [
        _texts(texts, around),
        _choices(row_class, texts, around),
        _of_class(row_class, columns, texts, around, seen),
        _overlap(texts, around),
        _distributed(texts, around, seen),
    ]
    seen.rows += table.num_rows
    for more_columns, more_rules in parts:
        derived |= more_columns
        rules += more_rules
    return Examined(pd.DataFrame(derived), rules)


def whole_examined(around: Surroundings, seen: Seen) -> list[Examined]:
    """The rules on all rows together, once they were seen."""
    import pandas as pd

    found: list[Examined] = []
    config = around.config
    if around.wanted:
        frame = pd.DataFrame({ROW: [0], ID: [around.kind], "rows": [seen.rows]})
        advice = f"raise the limits under data.{around.kind}, or lower validate.min_rows"
        limit = f"at least {config.min_rows} rows"
        rule = between("there are enough rows", "rows", config.min_rows, None, limit=limit, advice=advice)
        found.append(Examined(frame, [rule]))
    twins = {number: f"{seen.names[other - 1]} ({share:.0%})" for number, other, share in
             seen.near.pairs(config.min_near_similarity)}  # fmt: skip
    numbers = range(1, seen.rows + 1)
    frame = pd.DataFrame({ROW: numbers, ID: seen.names, "near": [twins.get(number, "") for number in numbers]})
    advice = "remove repeats from their source, or raise validate.max_near_duplicate_share"
    most = config.max_near_duplicate_share
    found.append(Examined(frame, [replace(free_of("few rows are nearly another", "near", advice=advice,
                 limit=f"at most {most:.0%} of the rows"), max_share=most)]))  # fmt: skip
    if ROW_CLASSES[around.kind] is PreferencePair:
        found += _pairs_together(around, seen)
    return found


def _pairs_together(around: Surroundings, seen: Seen) -> Iterator[Examined]:
    """Both routes and sides are there; length alone does not tell which response is preferred."""
    import pandas as pd

    sides = sorted(seen.kinds_of_pairs)
    if around.wanted:
        wanted = [f"{route} {split}" for route in ("helpful", "harmless") for split in ("train", "heldout")]
        advice = "add a source with such pairs to data.preferences, or change its heldout_share"
        rule = contains("both routes have pairs to train on and to hold out", "side", wanted, advice=advice)
        yield Examined(pd.DataFrame({ROW: range(1, len(sides) + 1), ID: sides, "side": sides}), [rule])
    routes = {route: sum(n for side, n in seen.kinds_of_pairs.items() if side.split()[0] == route) for route in
              sorted({side.split()[0] for side in sides})}  # fmt: skip
    judged = [route for route, count in routes.items() if count >= _MIN_PAIRS]
    least = around.config.min_length_balance
    advice = "a model would learn length alone: balance the pairs, or lower validate.min_length_balance"
    limit = f"from {least:g} to {1 - least:g}"
    name = "length alone does not tell the preferred response"
    rule = between(name, "longer_share", least, 1 - least, limit=limit, advice=advice)
    shares = [seen.longer[route] / routes[route] for route in judged]
    yield Examined(pd.DataFrame({ROW: range(1, len(judged) + 1), ID: judged, "longer_share": shares}), [rule])


_MIN_PAIRS = 20
"""Of fewer pairs of a route nothing is said about their balance."""
_LANGUAGE_CHARACTERS = 2000
"""So much of a row is looked at to tell its language."""
_MIN_LANGUAGE_SHARE = 0.5


_Part = tuple[dict[str, list[Any]], list[Rule]]


def _texts(texts: Mapping[str, list[str]], around: Surroundings) -> _Part:
    """Nothing blank that must not be, nothing longer than the bounds."""
    derived: dict[str, list[Any]] = {name: texts[name] for name in _ALWAYS_FILLED if name in texts}
    rules = [not_blank(name) for name in derived]
    others = [cells for name, cells in texts.items() if name != "prompt"]
    derived["prompt_characters"] = [len(cell) for cell in texts["prompt"]]
    derived["text_characters"] = [max(map(len, cells)) for cells in zip(*others, strict=True)]
    for name, words in (("prompt", "prompt is not too long"), ("text", "no other text is too long")):
        key = f"max_{name}_characters"
        most = getattr(around.config, key)
        advice = f"remove such rows from their source, or raise validate.{key}"
        limit = f"at most {most} characters"
        rules.append(between(words, f"{name}_characters", 0, most, limit=limit, advice=advice))
    return derived, rules


def _choices(row_class: type[Row], texts: Mapping[str, list[str]], around: Surroundings) -> _Part:
    """Fields that hold one of a few values, and licences."""
    allowed: dict[str, Sequence[str]] = {
        name: get_args(field.annotation)
        for name, field in row_class.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
    allowed["language"] = around.config.languages
    if around.kind in _SFT_KINDS:
        allowed["kind"] = [_SFT_KINDS[around.kind]]
    rules = [among(f"{name} is allowed", name, values) for name, values in allowed.items()]
    if around.allowed_licences:
        advice = "remove the source, or add its licence to data.allowed_licences"
        allowed["licence"] = around.allowed_licences
        rules.append(among("licence is allowed", "licence", around.allowed_licences, advice=advice))
    return {name: texts[name] for name in allowed}, rules


def _distributed(texts: Mapping[str, list[str]], around: Surroundings, seen: Seen) -> _Part:
    """Tokens, and the language that a row is really in; sketches for near-duplicates are kept for the end."""
    second = next(texts[name] for name in ("response", "chosen", "solution") if name in texts)
    third = texts.get("rejected", [""] * len(second))
    tokens = [sum(map(around.count_tokens, parts)) for parts in zip(texts["prompt"], second, third, strict=True)]
    seen.count(tokens, texts["language"], texts["source"])
    strange = [
        "" if language not in ("en", "zh") or _share(f"{prompt} {text}", language) >= _MIN_LANGUAGE_SHARE else prompt
        for prompt, text, language in zip(texts["prompt"], second, texts["language"], strict=True)
    ]
    read = _read(texts["source"], around)
    chosen = [place for place, is_read in enumerate(read) if is_read]
    seen.near.add([seen.rows + place + 1 for place in chosen],
                  [f"{texts['prompt'][place]} {second[place]}" for place in chosen])  # fmt: skip
    config = around.config
    share, most = config.max_other_language_share, config.max_row_tokens
    rules = [
        replace(
            free_of("rows are in their language", "strange", limit=f"all but {share:.0%} of the rows",
                    advice="mend the column language, remove such rows, or raise validate.max_other_language_share"),
            max_share=share,
        ),
        between("no row has too many tokens", "tokens", 0, most, limit=f"at most {most} tokens",
                advice="remove such rows from their source, or raise validate.max_row_tokens"),
    ]  # fmt: skip
    return {"strange": strange, "tokens": tokens}, rules


def _share(text: str, language: str) -> float:
    return language_share(text[:_LANGUAGE_CHARACTERS], "zh" if language == "zh" else "en")


def _read(sources: Sequence[str], around: Surroundings) -> list[bool]:
    """Which rows are of sources without templates."""
    procedural = {name for name, tally in around.sources.items() if tally.procedural}
    return [source not in procedural for source in sources]


def _of_class(
    row_class: type[Row],
    columns: Mapping[str, list[Any]],
    texts: Mapping[str, list[str]],
    around: Surroundings,
    seen: Seen,
) -> _Part:
    """What is special to problems, to rows for SFT, to pairs."""
    if row_class is Problem:
        return _of_problems(texts, around)
    if row_class is SftRow:
        return _of_sft_rows(columns["weight"], texts["response"], around)
    return _of_pairs(texts, around, seen)


def _of_problems(texts: Mapping[str, list[str]], around: Surroundings) -> _Part:
    names = ("verifier", "answer", "tests", "solution", "route", "meta")
    lacks = [_lack(*cells) for cells in zip(*(texts[name] for name in names), strict=True)]
    rules = [free_of("the verifier has what it needs", "lacks", limit="answer, tests, meta as the verifier reads them")]
    if around.kind == "benchmarks":
        rules.append(not_blank("benchmark", advice="name the benchmark of its source under data.benchmarks"))
    else:
        rules.append(free_of("no row belongs to a benchmark", "benchmark", limit="an empty field benchmark"))
    return {"lacks": lacks, "benchmark": texts["benchmark"]}, rules


def _lack(verifier: str, answer: str, tests: str, solution: str, route: str, meta: str) -> str:
    """What a problem lacks for its verifier, or nothing."""
    try:
        values = json.loads(meta)
    except ValueError:
        return "meta is not JSON"
    if not isinstance(values, dict):
        return "meta is not a JSON object"
    if verifier == "none":
        return "" if route or values.get("held_out_only") is True else "a route to a reward model"
    if verifier == "debug" and not isinstance(values.get("faulty"), str):
        return "the faulty program in meta"
    if verifier in ("code", "debug"):
        return "tests" if not tests.strip() else "" if solution.strip() else "a solution that passes the tests"
    if not answer.strip():
        return "an answer"
    if verifier == "gym" and not (isinstance(values.get("dataset"), str) and isinstance(values.get("entry"), dict)):
        return "dataset and entry in meta"
    return ""


def _of_sft_rows(weights: list[float | None], responses: list[str], around: Surroundings) -> _Part:
    wrong = ["" if weight is not None and 0 < weight < math.inf else str(weight) for weight in weights]
    derived: dict[str, list[Any]] = {"weight_at_fault": wrong}
    rules = [free_of("weight is a positive number", "weight_at_fault", limit="above 0, finite")]
    if around.kind == "chains":
        derived["badly_formed"] = ["" if chat.parse(text).well_formed else text or "nothing" for text in responses]
        shape = "<think> chain </think> <answer> answer </answer>, once each, neither empty, nothing else"
        rules.append(free_of("response is one chain and one answer", "badly_formed", limit=shape))
    return derived, rules


def _of_pairs(texts: Mapping[str, list[str]], around: Surroundings, seen: Seen) -> _Part:
    pairs = list(zip(texts["chosen"], texts["rejected"], strict=True))
    alike = [(chosen or "nothing") if chosen.strip() == rejected.strip() else "" for chosen, rejected in pairs]
    seen.kinds_of_pairs.update(f"{route} {split}" for route, split in zip(texts["route"], texts["split"], strict=True))
    seen.longer.update(
        route for route, (chosen, rejected) in zip(texts["route"], pairs, strict=True) if len(chosen) > len(rejected)
    )
    other = seen.other_side(texts["prompt"], texts["split"], texts["id"], _read(texts["source"], around))
    rules = [
        free_of("chosen differs from rejected", "alike", limit="two different responses"),
        free_of("no pair stands the other way round too", "turned", limit="one preference for the same two responses"),
        free_of("no prompt is on both sides of the split", "other_side", limit="train or heldout; templates apart"),
    ]
    turned = seen.turned(texts["prompt"], pairs, texts["id"], _read(texts["source"], around))
    return {"alike": alike, "other_side": other, "turned": turned}, rules


def _overlap(texts: Mapping[str, list[str]], around: Surroundings) -> _Part:
    """No prompt to train on is a benchmark's. Pairs held out are trained on by nobody."""
    if around.kind == "benchmarks":
        return {}, []
    splits = texts.get("split") or [""] * len(texts["prompt"])
    twins = [
        "" if split == "heldout" else around.benchmarks.get(normalise(prompt), "")
        for prompt, split in zip(texts["prompt"], splits, strict=True)
    ]
    advice = "run the data stage again, which removes such rows"
    return {"twin": twins}, [free_of("no prompt is a benchmark's", "twin", limit="normalised text", advice=advice)]


def _missing(table: "pa.Table") -> list[str]:
    """For each row, the first column without a value, or nothing."""
    missing = [""] * table.num_rows
    for name in table.column_names:
        if table.column(name).null_count:
            nulls = table.column(name).is_null().to_pylist()
            missing = [before or (name if null else "") for before, null in zip(missing, nulls, strict=True)]
    return missing


def _text_fields(row_class: type[Row]) -> Iterator[str]:
    return (name for name, field in row_class.model_fields.items() if _arrow_type(field.annotation) == "string")


def _arrow_type(annotation: Any) -> str:
    """The column type in which a field is written."""
    if get_origin(annotation) is tuple:
        return "list of string"
    return "double" if annotation is float else "string"


def _type_name(type_: "pa.DataType") -> str:
    import pyarrow as pa

    return f"list of {type_.value_type}" if isinstance(type_, pa.ListType) else str(type_)
