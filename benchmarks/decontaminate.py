"""Does decontamination find what is planted, and leave alone what is clean? `make bench-decontaminate`.

Benchmark questions of GSM8K, MATH-500, AIME 2024 and HumanEval are planted in five ways into made-up training rows,
beside training rows of GSM8K, MATH and MBPP that nobody touched. Half of the questions were looked at when the limits
in `r1kit/data/overlap.py` were chosen; the numbers are those of the other half. Prints examples of alarms on clean rows
with --show, and last one JSON object.
"""

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.real_rows import problems
from r1kit.data.overlap import Held, Overlap, OverlapIndex
from r1kit.random import derive_seed
from r1kit.rows import Problem
from r1kit.statistics import wilson

Fields = dict[str, str]

HELD_OUT = ("gsm8k_test", "math500", "aime2024", "humaneval")
TRAINED_ON = (("gsm8k_train", 3000), ("math_train", 2500), ("mbpp", 500))

_PAIRS = (
    "buys:purchases bought:purchased many:numerous total:overall gets:receives got:received makes:produces "
    "made:produced each:every big:large small:little wants:wishes needs:requires needed:required starts:begins "
    "started:began gives:hands gave:handed find:determine compute:calculate evaluate:calculate value:amount "
    "number:count people:persons children:kids friends:pals house:home car:vehicle money:cash cost:price "
    "costs:sells week:seven-day remaining:leftover left:leftover after:following before:prior every:each "
    "store:shop job:work bags:sacks box:crate boxes:crates books:volumes also:additionally then:afterwards "
    "return:give list:sequence given:provided function:routine string:text numbers:figures largest:greatest "
    "smallest:least positive:strictly-positive integers:whole-numbers express:write determine:find if:when "
    "because:since more:further takes:requires spends:pays spent:paid sells:offers sold:offered"
)
_SYNONYMS = {old: new for old, _, new in (pair.partition(":") for pair in _PAIRS.split())}
_NAMES = ("Ada", "Bruno", "Chika", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jorge", "Kemal", "Lena")
_FIRST_WORDS = (
    "A An The In On At If How What When Where Who Which There This That It He She They We You I Find Let For Each "
    "Compute Determine Suppose Given Express Write Return And But So After Before His Her Their Every Two Three"
)
_NOT_NAMES = frozenset(_FIRST_WORDS.split())


def verbatim(question: Problem, _: random.Random) -> Fields:
    """As it is, in other letters and spaces."""
    return {"prompt": "  " + question.prompt.replace(" ", "  ").upper(), "response": "I do not know."}


def renumbered(question: Problem, dice: random.Random) -> Fields:
    """Every number another one."""
    text = re.sub(r"\d+", lambda found: str(int(found[0]) + dice.randrange(1, 90)), question.prompt)
    return {"prompt": text, "response": "Let us see."}


def reworded(question: Problem, dice: random.Random) -> Fields:
    """Synonyms, other names, and two sentences that change places."""
    names = dice.sample(_NAMES, len(_NAMES))
    known: dict[str, str] = {}

    def word(found: re.Match[str]) -> str:
        old = found[0]
        if old.istitle() and len(old) > 2 and old not in _NOT_NAMES:
            return known.setdefault(old, names[len(known) % len(names)])
        new = _SYNONYMS.get(old.lower(), old)
        return new.capitalize() if old.istitle() else new

    sentences = re.split(r"(?<=[.?!])\s+", re.sub(r"[A-Za-z]+", word, question.prompt))
    if len(sentences) > 2:
        place = dice.randrange(len(sentences) - 2)
        sentences[place], sentences[place + 1] = sentences[place + 1], sentences[place]
    return {"prompt": " ".join(sentences), "response": "Let us see."}


def wrapped(question: Problem, dice: random.Random) -> Fields:
    """In the middle of a longer text."""
    filler = [dice.choice(_FILLER.split()) for _ in range(300)]
    text = f"{' '.join(filler[:150])}. {question.prompt} {' '.join(filler[150:])}."
    return {"prompt": "Read this and comment.", "response": text}


def split(question: Problem, _: random.Random) -> Fields:
    """The first half in the prompt, the other in the response."""
    parts = question.prompt.split(" ")
    half = len(parts) // 2
    return {"prompt": " ".join(parts[:half]), "response": " ".join(parts[half:])}


_FILLER = (
    "the of and a to in is it as was with be by on not he his but at are this have from or had an they which one we "
    "city river market garden music paper winter summer teacher doctor village kitchen station window mountain bridge"
)
WAYS: dict[str, Callable[[Problem, random.Random], Fields]] = {
    way.__name__: way for way in (verbatim, renumbered, reworded, wrapped, split)
}


def planted(questions: list[Problem]) -> Iterator[tuple[str, str, Fields]]:
    """Way, benchmark row, training row; what a way leaves as it was is not counted as changed."""
    for question in questions:
        for name, way in WAYS.items():
            made = way(question, random.Random(derive_seed(question.id, name)))
            if name in ("renumbered", "reworded") and made["prompt"] == question.prompt:
                continue
            yield name, question.id, made


def reported(row: Problem) -> bool:
    """Whether a question is of the half that the numbers are of."""
    return derive_seed("reported", row.id) % 2 == 1


def index_of(questions: list[Problem]) -> OverlapIndex:
    """The benchmarks' questions and solutions."""
    return OverlapIndex(
        Held(row.id, name, text)
        for row in questions
        for name, text in (("prompt", row.prompt), ("solution", row.solution))
        if text
    )


def share(hits: int, total: int) -> dict[str, Any]:
    """A share with its 95 % interval."""
    interval = wilson(hits / max(1, total), total)
    return {
        "share": round(interval.value, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "n": total,
    }


def main() -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("reported", "tuned"), default="reported")
    parser.add_argument("--show", type=int, default=0, help="alarms on clean rows and misses to print")
    arguments = parser.parse_args()
    held = [row for name in HELD_OUT for row in problems(name)[0] if row.benchmark]
    index = index_of(held)
    wanted = [row for row in held if reported(row) == (arguments.half == "reported")]
    found, total = Counter[str](), Counter[str]()
    missed: list[tuple[str, str, Fields]] = []
    for way, row, fields in planted(wanted):
        total[way] += 1
        hit = index.find(fields)
        found[way] += hit is not None
        if hit is None:
            missed.append((way, row, fields))
    clean = [(row.id, {"prompt": row.prompt, "response": row.solution}) for row in _clean()]
    started = time.perf_counter()
    alarms = [(row, fields, hit) for row, fields in clean if (hit := index.find(fields))]
    seconds = time.perf_counter() - started
    _show(alarms, missed, arguments.show)
    hits = sum(found.values())
    told = {
        "benchmark": "decontaminate",
        "half": arguments.half,
        "planted": sum(total.values()),
        "recall": {way: share(found[way], total[way]) for way in WAYS} | {"all": share(hits, sum(total.values()))},
        "clean": len(clean),
        "alarms_on_clean_rows": len(alarms),
        "alarms_by_method": Counter(hit.method for _, _, hit in alarms),
        "precision": share(hits, hits + len(alarms)),
        "clean_rows_per_second": round(len(clean) / seconds),
    }
    print(json.dumps(told))
    return 0


def _clean() -> Iterator[Problem]:
    """Training rows of real sets, whose share of the same question may well be real."""
    for name, limit in TRAINED_ON:
        yield from [row for row in problems(name)[0] if not row.benchmark][:limit]


def _show(alarms: list[tuple[str, Fields, Overlap]], missed: list[tuple[str, str, Fields]], limit: int) -> None:
    for row, fields, hit in random.Random(0).sample(alarms, min(limit, len(alarms))):
        print(f"alarm {row}: {hit}\n    {' | '.join(fields.values())[:300]!r}")
    for way, row, fields in random.Random(0).sample(missed, min(limit, len(missed))):
        print(f"missed {way} of {row}: {' | '.join(fields.values())[:300]!r}")


if __name__ == "__main__":
    sys.exit(main())
