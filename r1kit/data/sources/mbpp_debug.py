"""Debugging: MBPP's solutions with one fault put in, to be mended so that the tests pass (arXiv 2108.07732)."""

import json
from itertools import islice

from r1kit.data.mutants import mutants
from r1kit.data.records import BadField, Context, Record
from r1kit.data.source import Source
from r1kit.data.sources.mbpp import MBPP, task
from r1kit.random import derive_seed
from r1kit.rows import Problem


def _faulty(record: Record, context: Context) -> Problem | None:
    """A task of MBPP with one of its mutants; None where it has fewer. Those that the tests let live are set aside."""
    whole = task(record, context)
    if whole is None:
        return None
    variant = int(context.options["variant"])
    try:
        shuffled = mutants(whole.solution, derive_seed("mbpp_debug", whole.id))
        faulty = next(islice(shuffled, variant, None), None)
    except SyntaxError as error:
        raise BadField("code", whole.solution, f"code is no Python: {error}") from None
    if faulty is None:
        return None
    name = record.get("task_id")
    return whole.model_copy(
        update={
            "id": f"{context.source}/{name}-{variant}",
            "verifier": "debug",
            "prompt": f"This program has a fault: not all of its tests pass. Mend it, and answer with the whole "
            f"program; the tests stay as they are.\n\n```python\n{faulty.strip()}\n```\n\n{whole.prompt}",
            "parents": (whole.id.replace(context.source, MBPP.name),),
            "meta": json.dumps({"faulty": faulty}),
        }
    )


MBPP_DEBUG = Source(
    name="mbpp_debug",
    licence=MBPP.licence,
    files=MBPP.files,
    makers={"problems": _faulty, "benchmarks": _faulty},
    options={"variant": (0, 99)},
    note="one change of an operator, constant, condition or name in each of MBPP's solutions",
)
