"""A finished history, made by the real machinery with made-up models: runs, pins, approvals, promotions."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flows.folder import RunFolder
from r1kit.config import Config
from r1kit.promotion import PromotionConfig
from r1kit.rows import PreferencePair, Problem, Row, SftRow, write_rows
from tasks.approvals import approve
from tasks.artifacts import Artifact
from tasks.lineage import model_name
from tasks.pins import pin
from tasks.promotion import promote, rollback
from tasks.register import register
from tasks.stage import StageContext, StageOutput, StageResult, plan_stage, record_reuse, run_stage
from tasks.summary import Registration
from tasks.workspace import Workspace
from tests.tasks.made_up_run import evaluation
from tests.tasks.recipe import approver

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
PROFILE = "tiny"
SETTINGS = PromotionConfig(max_regression=1.0)
ROWS: dict[str, type[Row]] = {
    "pretrain": SftRow,
    "problems": Problem,
    "chains": SftRow,
    "instructions": SftRow,
    "preferences": PreferencePair,
    "benchmarks": Problem,
}


@dataclass
class Finished:
    """Where it all lies, and the runs that made it."""

    workspace: Workspace
    root: Path
    """Of the repository whose data DVC pins."""
    keys: dict[str, Path] = field(default_factory=dict)
    """Person → private key."""
    results: dict[str, StageResult] = field(default_factory=dict)
    """Stage name → what it last made."""


def make(directory: Path) -> Finished:
    """Two runs: the first's model in production, the second's promoted to staging and rolled back."""
    made = Finished(Workspace(directory / "r1"), directory / "repository")
    made.workspace.root.mkdir(parents=True, exist_ok=True)
    made.keys = {who: approver(directory / "people", who) for who in (ALICE, BOB, CAROL)}
    lines = (directory / "people" / "approvers").read_text().splitlines()
    lines[2] = lines[2].replace(f"{CAROL} ", f'{CAROL} valid-before="20200101Z" ')
    (made.workspace.root / "approvers").write_text("# who may approve\n" + "\n".join(lines) + "\n")
    _prepare_repository(made.root)
    _run(made, weights="first")
    for to, who in (("staging", ALICE), ("production", BOB)):
        _let_in(made, "r1", to, who)
    _run(made, weights="second", reuse=("data", "validate", "base", "reward_models"))
    _let_in(made, "r1", "staging", ALICE)
    rollback(made.workspace, "staging", actor="bob", reason="it rambles")
    return made


def _let_in(made: Finished, reference: str, to: Any, who: str) -> None:
    approve(made.workspace, reference, to, approver=who, key=made.keys[who])
    promote(made.workspace, reference, to, settings=SETTINGS, actor="deployer")


def _prepare_repository(root: Path) -> None:
    """A repository for DVC, without git, with the prepared data of one profile."""
    from dvc.repo import Repo

    data = root / "data" / PROFILE
    data.mkdir(parents=True)
    for kind, of in ROWS.items():
        write_rows(data / f"{kind}.parquet", [_row(kind, of, n) for n in range(3)], of)
    sources = [{"kind": kind, "source": "made_up", "rows_read": 3, "rows_kept": 3, "licence": "MIT"} for kind in ROWS]
    (data / "manifest.json").write_text(json.dumps({"format": "r1kit data 1", "sources": sources}))
    (data / "quarantine.jsonl").write_text('{"rule": "schema"}\n')
    outs = "".join(f"        - data/${{item}}/{path.name}\n" for path in sorted(data.iterdir()))
    (root / "dvc.yaml").write_text(
        f"stages:\n  data:\n    foreach:\n      - {PROFILE}\n    do:\n      cmd: 'true'\n      outs:\n{outs}"
    )
    Repo.init(str(root), no_scm=True).close()


def _row(kind: str, of: type[Row], number: int) -> Row:
    common = {"id": f"made_up/{kind}/{number}", "source": "made_up", "licence": "MIT", "prompt": f"{kind} {number}?"}
    special: dict[type[Row], dict[str, Any]] = {
        Problem: {"verifier": "math", "answer": str(number)},
        SftRow: {"response": f"it is {number}", "kind": "chain"},
        PreferencePair: {"chosen": f"yes {number}", "rejected": f"no {number}", "route": "helpful"},
    }
    return of.model_validate(common | special[of])


class _Silent:
    def step(self, name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Nobody watches."""

    def say(self, name: str, message: str) -> None:
        """Nobody listens."""


class _Run:
    """One run of the recipe, whose bodies only write files."""

    def __init__(self, made: Finished, weights: str, reuse: tuple[str, ...]) -> None:
        self.made, self.weights, self.reuse = made, weights, reuse
        settings = {
            "profile": PROFILE,
            "prefer": {"learning_rate": 1e-6 + len(weights) * 1e-7},
            "data": {"pretrain": [{"source": "tinyworld", "limit": 3}]},
            "distill": {"students": [{"name": "small"}]},
        }
        self.config = Config.model_validate(settings)
        self.folder = RunFolder(made.workspace, self.config, PROFILE)

    def stage(
        self,
        stage: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, str],
        variant: str = "",
        **figures: float,
    ) -> dict[str, Artifact]:
        """Run a stage, or reuse it; its outputs come back. `outputs`: role → kind."""
        plan = plan_stage(stage, self.config, inputs, variant)
        name = plan.name
        if stage in self.reuse and name in self.made.results:
            result = self.made.results[name]
            record_reuse(plan, result, self.made.workspace, self.folder.run_id)
            self.folder.finish_stage(result, "cached", 0.0)
            return result.outputs

        def body(context: StageContext) -> StageOutput:
            context.log(1, 1, {"loss": 0.5, **figures})
            files = {
                role: (kind, self._write(context.workdir, stage, role, kind, name)) for role, kind in outputs.items()
            }
            return StageOutput(files, {"loss": 0.25, **figures}, {"told": name})

        self.folder.begin(name, stage, variant)
        result = run_stage(plan, self.made.workspace, _Silent(), self.folder.run_id, call=body, threads=1)
        self.made.results[name] = result
        self.folder.finish_stage(result, "ran", result.seconds)
        shutil.rmtree(self.made.workspace.work_dir)
        return result.outputs

    def _write(self, workdir: Path, stage: str, role: str, kind: str, name: str) -> Path:
        if stage == "data":
            suffix = {"manifest": "json", "quarantine": "jsonl"}.get(role, "parquet")
            return self.made.root / "data" / PROFILE / f"{role}.{suffix}"
        place = workdir / role
        if kind in ("model", "reward_model"):
            place.mkdir(parents=True)
            (place / "model.safetensors").write_bytes(f"{name} {role} {self.weights} ".encode() * 40)
            (place / "config.json").write_text('{"hidden_size": 64}')
            (place / "tokenizer.json").write_text(json.dumps({"vocabulary": ["a", "b", name]}))
            return place
        if kind == "sft_rows":
            rows = [SftRow.model_validate({
                "id": f"reject/made_up/problems/{n}@{self.weights}/0", "source": "reject", "licence": "MIT",
                "parents": [f"made_up/problems/{n}"], "prompt": f"problems {n}?", "response": "so", "kind": "chain",
            }) for n in range(2)]  # fmt: skip
            write_rows(place.with_suffix(".parquet"), rows, SftRow)
            return place.with_suffix(".parquet")
        path = place.with_suffix(".json")
        path.write_text(json.dumps(self._document(kind, name)))
        return path

    def _document(self, kind: str, name: str) -> dict[str, Any]:
        if kind == "evaluation":
            return evaluation(name.removeprefix("evaluate-")) | {"seed": len(self.weights)}
        if kind == "validation":
            files = [
                {"kind": role, "digest": a.digest, "rows": 3, "success": True, "failed_checks": 0,
                 "checks": [{"rule": "ids are unique", "limit": "", "success": True, "checked": 3, "failed": 0}]}
                for role, a in self.made.results["data"].outputs.items() if role in ROWS
            ]  # fmt: skip
            return {"format": "r1kit validation 1", "success": True, "files": files}
        return {"kind": kind, "weights": self.weights}

    def evaluate(self, stage: str, model: Artifact, benchmarks: Artifact, variant: str = "") -> None:
        """Measure a model."""
        entry: Any = SimpleNamespace(job=stage, instance=variant)
        name = model_name(entry)
        self.stage("evaluate", {"model": model, "benchmarks": benchmarks}, {"evaluation": "evaluation"}, name)


def _run(made: Finished, weights: str, reuse: tuple[str, ...] = ()) -> None:
    run = _Run(made, weights, reuse)
    data = run.stage("data", {}, {role: role for role in (*ROWS, "manifest", "quarantine")}, rows=18.0)
    if "data" not in reuse:
        pin(PROFILE, made.workspace, made.root)  # from wherever the tests are run
    run.stage("validate", data, {"validation": "validation"})
    base = run.stage("base", {"pretrain": data["pretrain"]}, {"model": "model"})
    pairs = {"model": base["model"], "preferences": data["preferences"]}
    judges = {
        kind: run.stage("reward_models", pairs, {"reward_model": "reward_model"}, kind)["reward_model"]
        for kind in ("helpful", "harmless")
    }
    dev2 = run.stage("reason", {"model": base["model"], "problems": data["problems"]}, {"model": "model"})
    curated = run.stage(
        "reject", {"model": dev2["model"], "problems": data["problems"], "benchmarks": data["benchmarks"]},
        {"curated": "sft_rows", "decisions": "decisions"},
    )  # fmt: skip
    taught = {"curated": curated["curated"], "instructions": data["instructions"]}
    dev3 = run.stage("refine", {"model": base["model"], **taught}, {"model": "model"})
    r1 = run.stage("prefer", {"model": dev3["model"], "problems": data["problems"], **judges}, {"model": "model"})
    run.stage("distill", {"model": base["model"], **taught}, {"model": "model"}, "small")
    run.evaluate("refine", dev3["model"], data["benchmarks"])
    run.evaluate("prefer", r1["model"], data["benchmarks"])
    registered = register(made.workspace, run=run.folder.run_id)
    run.folder.finish_registration(Registration(name=registered.name, version=registered.version, new=True), 0.1)
    run.folder.close("finished")
