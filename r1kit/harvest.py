"""Sampling a model over many problems and keeping what is worth learning from, in chunks that survive a kill."""

import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1kit import chat, models, parallel, random
from r1kit.engine import Log
from r1kit.rejection import Decision, Selection, select
from r1kit.resume import surroundings
from r1kit.rewards import VerifierPool
from r1kit.rows import Problem, SftRow
from r1kit.sampler import SamplingConfig, sample


def harvest(
    model_dir: Path,
    problems: Sequence[Problem],
    *,
    samples_per_prompt: int,
    keep_per_prompt: int,
    sampling: SamplingConfig,
    batch_size: int,
    checkpoint: str,
    prefix: str,
    pool: VerifierPool,
    seed: int,
    workdir: Path,
    log: Log,
    system: str | None = None,
    dtype: str = "float32",
    contaminated: Callable[[str], str | None] = lambda text: None,
) -> Selection:
    """Sample, verify and select (see `rejection.select`), a batch of problems at a time; several processes share them.

    Args:
        checkpoint: digest of the model, named by every row.
        workdir: finished batches are kept here, so that a killed harvest goes on after the last one.
    """
    policy, tokenizer = models.load(model_dir, dtype)
    opens_think = chat.opens_think(tokenizer)
    workdir.mkdir(parents=True, exist_ok=True)
    per_batch = max(1, batch_size // samples_per_prompt)
    starts = range(0, len(problems), per_batch)
    files = [workdir / f"{start:08d}.json" for start in starts]
    rows: list[SftRow] = []
    decisions: list[Decision] = []
    for start, saved in parallel.mine(list(zip(starts, files, strict=True))):
        part = problems[start : start + per_batch]
        if not saved.exists():
            groups = sample(
                policy,
                tokenizer,
                [chat.prompt_ids(tokenizer, problem.prompt, system) for problem in part],
                samples_per_prompt,
                sampling,
                seed=seed,
                prompt_keys=[random.derive_seed(problem.id) for problem in part],
                batch_size=batch_size,
            )
            completions = [completion.text for group in groups for completion in group]
            repeated = [problem for problem in part for _ in range(samples_per_prompt)]
            verdicts = pool.verify(repeated, completions, opens_think)
            selection = select(
                part,
                groups,
                verdicts,
                keep_per_prompt=keep_per_prompt,
                checkpoint=checkpoint,
                prefix=prefix,
                opens_think=opens_think,
                contaminated=contaminated,
            )
            _write(saved, selection)
        selection = _read(saved)[0]
        rows += selection.rows
        decisions += selection.decisions
        done = min(start + per_batch, len(problems))
        log(done, len(problems), {"kept_share": len(rows) / max(1, len(decisions)), "rows": float(len(rows))})
    parallel.exchange(None)  # from here on all files are there
    parts = [_read(path) for path in files]
    changes = sum(before != after for (_, before), (_, after) in itertools.pairwise(parts))
    rows = [row for part, _ in parts for row in part.rows]
    return Selection(rows, [row for part, _ in parts for row in part.decisions], changes)


def _read(path: Path) -> tuple[Selection, dict[str, Any]]:
    """What a batch gave, and in which surroundings."""
    content = json.loads(path.read_text())
    rows = [SftRow.model_validate(row) for row in content["rows"]]
    decisions = [Decision.model_validate(row) for row in content["decisions"]]
    return Selection(rows, decisions), content["surroundings"]


def _write(path: Path, selection: Selection) -> None:
    partial = path.with_suffix(".tmp")
    content = {
        "surroundings": surroundings(),
        "rows": [row.model_dump(mode="json") for row in selection.rows],
        "decisions": [row.model_dump(mode="json") for row in selection.decisions],
    }
    with partial.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
