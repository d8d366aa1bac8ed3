"""A run directory as a whole recipe leaves it, made up, with a model that says hostile things."""

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

from r1kit.statistics import calibration_bins
from tasks.summary import Summary

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)> \u202egnorw\x07 & "quoted"'
PASS = {
    "base": 0.41,
    "zero": 0.78,
    "dev1": 0.72,
    "dev2": 0.83,
    "dev3": 0.82,
    "r1": 0.86,
    "distill-small": 0.69,
    "distill-wide": 0.74,
}
_PROBLEMS = 120
_TRAINED = {
    "base": ("loss",),
    "zero": ("rl",),
    "cold_start": ("loss",),
    "reason": ("rl",),
    "refine": ("loss",),
    "prefer": ("rl",),
    "distill-small": ("loss",),
    "distill-wide": ("loss",),
}


def digest(name: str) -> str:
    """A digest that depends on the name."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def _share(value: float, n: int) -> dict[str, float]:
    half = 1.96 * math.sqrt(value * (1 - value) / n)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def _scores(value: float, n: int, tokens: float) -> dict[str, Any]:
    return {
        "n": n,
        "k": 2,
        "pass_at_1": _share(value, n),
        "cons_at_k": _share(value, n),
        "preference": None,
        "response_tokens": tokens,
        "truncated_share": 0.01,
        "format_rate": 0.97,
        "thinking_rate": 0.98,
        "language_rate": 0.99,
        "one_language_rate": 0.96,
        "reflection_rate": 0.02,
        "tokens": int(n * tokens),
    }


def evaluation(model: str) -> dict[str, Any]:
    """An evaluation's JSON."""
    rng = random.Random(7)
    names = ("chain_sum", "letter_counting")
    right = PASS[model]
    draws = [(f"{name}/{n}", name, rng.random()) for name in names for n in range(_PROBLEMS // 2)]
    think = "start 3 plus 4 makes 7 minus 2 makes 5" if model != "base" else ""
    body = f"<think> {think} {HOSTILE if model == 'r1' else ''} </think> " if think else ""
    transcripts = [
        {
            "problem": f"{name}/{n}",
            "benchmark": name,
            "prompt": "What is 3 + 4 - 2 ?",
            "gold": "5",
            "completion": f"{body}<answer> {5 if right > 0.5 else 9} </answer>",
            "opens_think": False,
            "score": float(right > 0.5),
            "reason": "equal" if right > 0.5 else "9 is not 5",
            "tokens": 8 + len(body.split()),
            "finished": True,
        }
        for name in names
        for n in range(2)
    ]
    tokens = 9.0 if model == "base" else 24.0
    return {
        "model": model,
        "seed": 0,
        "config": {},
        "overall": _scores(right, _PROBLEMS, tokens),
        "benchmarks": {
            name: _scores(right + shift, _PROBLEMS // 2, tokens)
            for name, shift in zip(names, (0.05, -0.05), strict=True)
        },
        "problems": [
            {"id": i, "benchmark": name, "score": float(draw < right), "consensus": None} for i, name, draw in draws
        ],
        "transcripts": transcripts,
        "seconds": 4.2,
        "seconds_per_million_tokens": 91.0,
    }


_RECIPE: tuple[tuple[str, dict[str, str], tuple[str, ...], dict[str, float]], ...] = (
    (
        "data",
        {},
        ("pretrain", "problems", "chains", "instructions", "preferences", "benchmarks"),
        {"rows": 48210.0},
    ),
    (
        "validate",
        {"problems": "data/problems", "preferences": "data/preferences"},
        ("validation",),
        {"quarantined": 3.0},
    ),
    ("base", {"pretrain": "data/pretrain"}, ("model",), {"loss": 0.41}),
    (
        "zero",
        {"model": "base/model", "problems": "data/problems"},
        ("model",),
        {"steps": 60.0, "last_reward": 1.7},
    ),
    (
        "cold_start",
        {"model": "base/model", "zero": "zero/model", "chains": "data/chains"},
        ("model", "cold_start_data"),
        {},
    ),
    ("reason", {"model": "cold_start/model", "problems": "data/problems"}, ("model",), {}),
    (
        "reject",
        {"model": "reason/model", "benchmarks": "data/benchmarks"},
        ("curated", "decisions"),
        {"rows": 1024.0},
    ),
    ("refine", {"model": "base/model", "curated": "reject/curated"}, ("model",), {}),
    (
        "reward_models-helpful",
        {"model": "base/model", "preferences": "data/preferences"},
        ("reward_model",),
        {
            "agreement": 0.97,
            "agreement_low": 0.94,
            "agreement_high": 0.99,
            "length_agreement": 0.96,
            "longer_preferred": 0.8,
            "longer_scored_higher": 0.97,
            "length_bias": 0.17,
            "num_heldout_pairs": 240.0,
            "heldout_unseen_share": 0.3,
            "calibration_error": 0.03,
            "length_correlation": 0.81,
            "log_loss": 0.12,
        },
    ),
    (
        "reward_models-harmless",
        {"model": "base/model", "preferences": "data/preferences"},
        ("reward_model",),
        {
            "agreement": 0.94,
            "agreement_low": 0.9,
            "agreement_high": 0.97,
            "length_agreement": 0.52,
            "longer_preferred": 0.52,
            "longer_scored_higher": 0.5,
            "length_bias": -0.02,
            "agreement_longer": 0.95,
            "agreement_shorter": 0.93,
            "num_heldout_pairs": 260.0,
            "heldout_unseen_share": 1.0,
            "calibration_error": 0.05,
            "length_correlation": -0.07,
            "log_loss": 0.2,
        },
    ),
    (
        "prefer",
        {
            "model": "refine/model",
            "helpful": "reward_models-helpful/reward_model",
            "harmless": "reward_models-harmless/reward_model",
        },
        ("model",),
        {},
    ),
    ("distill-small", {"curated": "reject/curated"}, ("model",), {}),
    ("distill-wide", {"curated": "reject/curated"}, ("model",), {}),
    ("register", {"model": "prefer/model"}, ("evidence",), {}),
)
_EVALUATED = {
    "base": "base",
    "zero": "zero",
    "cold_start": "dev1",
    "reason": "dev2",
    "refine": "dev3",
    "prefer": "r1",
    "distill-small": "distill-small",
    "distill-wide": "distill-wide",
}


def summary() -> Summary:
    """What the run says of itself."""
    stages = []
    for place, (name, inputs, roles, metrics) in enumerate(_RECIPE):
        stages.append(
            _entry(
                name,
                inputs,
                roles,
                metrics,
                seconds=3.0 + 17 * (place % 5),
                status="ran" if place > 1 else "cached",
            )
        )
        if name in _EVALUATED:
            needs = {"model": f"{name}/model", "benchmarks": "data/benchmarks"}
            stages.append(_entry(f"evaluate-{_EVALUATED[name]}", needs, ("evaluation",), {}, 4.2, "ran"))
    content = {
        "format": "r1kit summary 1",
        "started": "2026-11-24T04:17:00Z",
        "run_id": "20261124-0417-3fa2",
        "profile": "tiny",
        "seed": 0,
        "seconds": 487.3,
        "status": "finished",
        "code_digest": digest("code"),
        "config_digest": digest("config"),
        "stages": stages,
    }
    return Summary.model_validate(content)


def _entry(
    name: str,
    inputs: dict[str, str],
    roles: tuple[str, ...],
    metrics: dict[str, float],
    seconds: float,
    status: str,
) -> dict[str, Any]:
    return {
        "name": name,
        "stage": name.split("-")[0],
        "variant": name.partition("-")[2],
        "key": digest(f"key {name}"),
        "status": status,
        "seconds": seconds,
        "metrics": metrics,
        "inputs": {role: digest(artifact) for role, artifact in inputs.items()},
        "outputs": {
            role: {
                "uri": f"file:///nowhere/{name}/{role}",
                "digest": digest(f"{name}/{role}"),
                "kind": role,
                "size_bytes": 2_804_311,
            }
            for role in roles
        },
    }


def write(run_dir: Path) -> Summary:
    """Lay a whole run directory and return its summary."""
    content = summary()
    for model in PASS:
        folder = run_dir / "stages" / f"evaluate-{model}"
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(evaluation(model)))
    bins = calibration_bins([0.05, 0.1, 0.45, 0.55, 0.9, 0.95, 0.99], [False, False, True, False, True, True, True])
    for kind in ("helpful", "harmless"):
        folder = run_dir / "stages" / f"reward_models-{kind}"
        folder.mkdir()
        (folder / "details.json").write_text(json.dumps({"calibration": [bin_.model_dump() for bin_ in bins]}))
    folder = run_dir / "stages" / "validate"
    folder.mkdir()
    (folder / "validation.json").write_text(
        json.dumps(
            {
                "format": "r1kit validation 1",
                "success": True,
                "files": [
                    {
                        "kind": kind,
                        "digest": digest(kind),
                        "rows": 1200,
                        "success": True,
                        "checks": [
                            {
                                "rule": "ids are unique",
                                "success": True,
                                "checked": 1200,
                                "failed": 0,
                                "limit": HOSTILE,
                                "examples": [],
                            },
                            {
                                "rule": "language is allowed",
                                "success": False,
                                "checked": 1200,
                                "failed": 1,
                                "limit": "",
                                "examples": [{"row": 1, "id": HOSTILE, "value": HOSTILE}],
                            },
                        ],
                        "quarantined": 3,
                        "quarantine_share": 0.0025,
                        "contaminated": 1,
                        "duplicates": 0,
                    }
                    for kind in ("problems", "preferences", HOSTILE)
                ],
                "quarantine": {
                    "counts": {"contaminated": 3, "schema": 9},
                    "first": [
                        {
                            "kind": "problems",
                            "source": "a",
                            "file": "a.jsonl",
                            "row": 7,
                            "field": "answer",
                            "value": HOSTILE,
                            "reason": HOSTILE,
                            "rule": "schema",
                        },
                    ],
                },
                "verified": {"rows": 200, "passed": 200, "kinds": {"problems": 200}},
            }
        )
    )
    lines = [line for stage, kind in _TRAINED.items() for line in _curve(stage, kind[0])]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "zero", "st')
    (run_dir / "resolved.yaml").write_text(f"name: r1kit\nzero:\n  steps: 60\n# {HOSTILE}\n")
    return content


def _curve(stage: str, kind: str) -> list[dict[str, Any]]:
    rng = random.Random(stage)
    total = 60
    lines = []
    for step in range(1, total + 1):
        progress = 1 - math.exp(-step / 20)
        metrics: dict[str, float | None] = {
            "loss": 2.2 - 1.6 * progress + rng.gauss(0, 0.04),
            "gradient_norm": rng.random(),
        }
        if kind == "rl":
            metrics = {
                "reward": 0.9 + progress * 0.8 + rng.gauss(0, 0.05),
                "reward_accuracy": 0.4 + 0.4 * progress + rng.gauss(0, 0.02),
                "response_tokens": 10 + 14 * progress + rng.gauss(0, 0.5),
                "kl": 0.02 * progress + 0.001 * rng.random(),
                "entropy": 0.9 - 0.5 * progress,
                "truncated_share": 0.02 * rng.random(),
                "reward_format": 0.6 + 0.38 * progress,
                "zero_variance_share": 0.1 + 0.4 * progress,
                "clipped_low_share": 0.01 * rng.random(),
                "sampler_gap": 1e-6 * rng.random(),
                "watch_zero_variance": float(step // 58),
                "gradient_norm": None if step == 7 else rng.random(),
            }
        lines.append({"stage": stage, "step": step, "total": total, "time": 1.0 * step, "metrics": metrics})
    return lines
