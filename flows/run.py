"""One run of the recipe: which stages run, where, beside what; and what is told of them."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect.futures import PrefectFuture

from flows.cores import cores_for
from flows.folder import RunFolder, latest_result, model_name
from flows.stages import Run as RunStage
from flows.stages import stage_task, stored_result
from r1kit.config import Config
from tasks.artifacts import Artifact
from tasks.isolated import Processes, StageStopped
from tasks.launch import launch, launched
from tasks.pins import pin_faults
from tasks.progress import Progress
from tasks.stage import (
    STAGES,
    StageContext,
    StageOutput,
    StagePlan,
    StageResult,
    faults,
    forget_workdir,
    plan_stage,
    record_reuse,
    refuse_unvalidated,
    run_stage,
    stage_name,
)
from tasks.summary import Registration
from tasks.workspace import Workspace

SWITCHES = {"reward_models": "prefer"}
"""Stages that another one's switch turns off, because nothing else needs them."""


@dataclass(frozen=True)
class Span:
    """Which part of the recipe to run."""

    first: str = ""
    """Stages before it are taken from an earlier run."""
    last: str = ""
    """Stages after it are left out."""


class Made:
    """What a stage makes. Asking for it waits for the stage; a skipped stage makes nothing and is false."""

    def __init__(self, stage: str = "", variant: str = "", result: "StageResult | Pending | None" = None) -> None:
        self.stage, self.variant = stage, variant
        self._result = result

    @property
    def result(self) -> StageResult | None:
        """The finished stage; None where it was skipped."""
        if isinstance(self._result, Pending):
            self._result = self._result.wait()
        return self._result

    def then(self, act: Callable[[], None]) -> None:
        """Do something once the stage is finished; now, if it is."""
        if isinstance(self._result, Pending) and not self._result.settled:
            self._result.followers.append(act)
        else:
            act()

    def __getitem__(self, role: str) -> Artifact | None:
        """The output of that role, or None."""
        return self.result.outputs.get(role) if self.result else None

    def __bool__(self) -> bool:
        return self._result is not None


class RecipeRun:
    """Runs stages as Prefect tasks, reuses what has not changed, keeps the run's folder.

    Used within the flow by one thread; stages beside the main one run in threads of Prefect's, which wait for
    processes of their own.
    """

    def __init__(self, config: Config, profile: str, workspace: Workspace, progress: Progress, span: Span) -> None:
        self.config, self.profile, self.workspace, self.span = config, profile, workspace, span
        self.progress = progress
        self.folder = RunFolder(workspace, config, profile)
        self.cores = cores_for(config)
        self._processes = Processes()
        self._pending: list[Pending] = []
        self._data: StageResult | None = None
        self._verdict: StageResult | None = None

    def stage(
        self,
        stage: str,
        inputs: Mapping[str, Artifact | None],
        *,
        variant: str = "",
        optional: Mapping[str, Artifact | None] | None = None,
        beside: bool = False,
        alone: bool = False,
    ) -> Made:
        """Run a stage, or take what it made before.

        Args:
            stage: The stage, its switch being on.
            inputs: Role → artifact. Where one is None, the stage is skipped.
            variant: Which student, which model.
            optional: Inputs it can do without.
            beside: It may run beside the main stage.
            alone: It is the main stage while nothing can run beside it, so it gets all cores.
        """
        self._settle_finished()
        name = stage_name(stage, variant)
        missing = [role for role, artifact in inputs.items() if artifact is None]
        note = self._why_skipped(stage) or (f"there is no {missing[0]}" if missing else "")
        if note:
            self.folder.skip(name, stage, variant, note)
            return Made(stage, variant)
        if self.span.first and STAGES.index(stage) < STAGES.index(self.span.first):
            return Made(stage, variant, self._take_earlier(name))
        given = {**inputs, **(optional or {})}
        plan = plan_stage(stage, self.config, {r: a for r, a in given.items() if a is not None}, variant)
        if self._data and stage != "validate":
            refuse_unvalidated(plan, self._data, self._verdict)
        beside = beside and self.cores.room_beside and not self.config.runtime.launched
        return Made(stage, variant, self._run(plan, beside=beside, alone=alone))

    def validate(self, data: Made) -> Made:
        """Have the data examined; from here on no stage gets data that were not let through.

        Raises ValueError where they are not the bytes that DVC pins.
        """
        outputs = data.result.outputs if data.result else {}
        if not self._why_skipped("validate"):
            self._refuse_unpinned(outputs)
        verdict = self.stage("validate", outputs)
        self._data, self._verdict = data.result, verdict.result
        return verdict

    def evaluate(self, made: Made, benchmarks: Artifact | None, **judges: Artifact | None) -> None:
        """Measure a model, beside what follows; a model still being made, once it is made."""

        def examine() -> None:
            name = model_name(made.stage, made.variant)
            measured = {"model": made["model"], "benchmarks": benchmarks}
            self.stage("evaluate", measured, variant=name, optional=judges, beside=True)

        if made:
            made.then(examine)

    def wait(self) -> None:
        """Until everything beside is done."""
        while self._pending:
            self._settle_finished()
            time.sleep(0.05)

    def register(self, made: Made) -> None:
        """Register a model as a candidate, with its evidence."""
        if (note := self._why_skipped("register")) or not made:
            self.folder.skip("register", "register", "", note or "there is no model")
            return
        from flows.register import register_task

        self.folder.begin("register", "register", "")
        self.progress.begin("register")
        started = time.monotonic()
        reference = model_name(made.stage, made.variant)
        found = register_task(self.config.name, self.folder.run_id, reference)
        seconds = time.monotonic() - started
        registration = Registration.model_validate(found)
        self.folder.finish_registration(registration, seconds)
        status = "ran" if registration.new else "cached"
        self.progress.end("register", status, seconds, f"{registration.name}/{registration.version}")

    def stop(self) -> None:
        """Kill what runs beside, and let nothing more begin; checkpoints stay."""
        self.cores.stop()
        self._processes.stop()

    def step(self, name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """A stage made a step."""
        self.progress.step(name, step, total, metrics)
        self.folder.step(name, step, total, metrics)

    def say(self, name: str, message: str) -> None:
        """A stage says something."""
        self.progress.say(name, message)

    def finish(self, plan: StagePlan, result: StageResult, *, cached: bool, seconds: float, note: str) -> None:
        """Keep what a stage made, and let go of its checkpoints: Prefect has the result now."""
        self.folder.finish_stage(result, "cached" if cached else "ran", seconds, note)
        if cached:
            self.progress.end(plan.name, "cached", seconds, note)
        forget_workdir(plan.key, self.workspace)

    def fail(self, plan: StagePlan, error: BaseException, seconds: float) -> None:
        """Note that a stage failed."""
        self.folder.fail(plan, str(error) or type(error).__name__, seconds)

    def _refuse_unpinned(self, data: Mapping[str, Artifact]) -> None:
        files = [artifact.path for artifact in data.values() if artifact.path is not None]
        wrong = pin_faults(files, self.config.profile)
        if wrong:
            more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
            raise ValueError(
                f"{wrong[0]}{more}: restore dvc.lock from git, or pin these bytes with "
                f"`.venv/bin/dvc commit --force data@{self.config.profile}`"
            )

    def _why_skipped(self, stage: str) -> str:
        switch = SWITCHES.get(stage, stage)
        if not getattr(self.config.stages, switch, True):
            return f"stages.{switch} is off"
        if self.span.last and stage != "evaluate" and STAGES.index(stage) > STAGES.index(self.span.last):
            return f"after --until {self.span.last}"
        return ""

    def _take_earlier(self, name: str) -> StageResult:
        result = latest_result(name, self.workspace, self.profile)
        wrong = faults(result) if result else []
        if result is None or wrong:
            what = wrong[0] if wrong else f"no earlier run of profile {self.profile} has finished it"
            raise ValueError(f"--from {self.span.first} takes {name} from an earlier run, but {what}; leave out --from")
        self.finish(self._replan(result), result, cached=True, seconds=0.0, note="from an earlier run")
        return result

    def _replan(self, result: StageResult) -> StagePlan:
        plan = StagePlan(
            result.stage, result.variant, self.config, {}, result.code_digest, result.inputs, result.seed, result.key
        )
        record_reuse(plan, result, self.workspace, self.folder.run_id)
        return plan

    def _run(self, plan: StagePlan, *, beside: bool, alone: bool) -> "StageResult | Pending":
        known = stored_result(plan.key)
        wrong = faults(known) if known else []
        note = f"made anew: {wrong[0]}" if wrong else ""
        cached = known is not None and not wrong
        if wrong:
            self.progress.say(plan.name, note)
        if not cached:
            self.folder.begin(plan.name, plan.stage, plan.variant)
        started = time.monotonic()
        if cached or not beside:
            task = stage_task(plan, self._here(plan, alone=alone), refresh=not cached)
            try:
                result = StageResult.model_validate(task())
            except BaseException as error:
                self.fail(plan, error, time.monotonic() - started)
                raise
            if cached:
                record_reuse(plan, result, self.workspace, self.folder.run_id)
            self.finish(plan, result, cached=cached, seconds=time.monotonic() - started, note=note)
            return result
        pending = Pending(self, plan, note)
        self._pending.append(pending)
        pending.future = stage_task(plan, pending.marking(self._beside(plan)), refresh=True).submit()
        return pending

    def _here(self, plan: StagePlan, *, alone: bool) -> RunStage:
        """Runs a stage in this process, or in several that a launcher starts."""
        call = self._launch(plan.stage) if launched(plan.stage, self.config) else None
        threads = self.cores.threads_alone if alone else self.cores.main_threads
        threads = self._threads_a_rank() if call else threads

        def run(prefect_run_id: str) -> StageResult:
            with self.cores.main(alone=alone), self._shown(plan):
                return run_stage(
                    plan, self.workspace, self, self.folder.run_id, prefect_run_id=prefect_run_id, call=call,
                    threads=threads,
                )  # fmt: skip

        return run

    def _launch(self, stage: str) -> Callable[[StageContext], StageOutput]:
        runtime = self.config.runtime

        def call(context: StageContext) -> StageOutput:
            threads = self._threads_a_rank()
            return launch(stage, context, processes=runtime.processes, launcher=runtime.launcher, threads=threads)

        return call

    def _threads_a_rank(self) -> int:
        return max(1, self.cores.main_threads // self.config.runtime.processes)

    def _beside(self, plan: StagePlan) -> RunStage:
        """Runs a stage in a process of its own, on one thread, when a core is free."""

        def run(prefect_run_id: str) -> StageResult:
            with self.cores.beside(), self._shown(plan):
                return run_stage(
                    plan, self.workspace, self, self.folder.run_id, prefect_run_id=prefect_run_id,
                    call=lambda context: self._processes.call(plan.stage, context), threads=1,
                )  # fmt: skip

        return run

    @contextmanager
    def _shown(self, plan: StagePlan) -> Iterator[None]:
        """On the screen while it runs."""
        self.progress.begin(plan.name)
        started, status = time.monotonic(), "failed"
        try:
            yield
            status = "ran"
        except (KeyboardInterrupt, StageStopped):
            status = "stopped"
            raise
        finally:
            self.progress.end(plan.name, status, time.monotonic() - started)

    def _settle_finished(self) -> None:
        for pending in list(self._pending):
            if pending.done.is_set():
                pending.wait()

    def settled(self, pending: "Pending") -> None:
        """A stage beside has ended."""
        self._pending.remove(pending)


class Pending:
    """A stage that runs beside the main one."""

    future: PrefectFuture[dict[str, Any]]

    def __init__(self, run: RecipeRun, plan: StagePlan, note: str) -> None:
        self._recipe_run, self._plan, self._note = run, plan, note
        self._result: StageResult | None = None
        self.done = threading.Event()
        """Set when asking for it no longer waits."""
        self.followers: list[Callable[[], None]] = []
        """What to do once it is finished."""

    @property
    def settled(self) -> bool:
        """Whether its result has been taken in."""
        return self._result is not None

    def marking(self, run: RunStage) -> RunStage:
        """`run`, which then sets `done`, however it ends."""

        def marked(prefect_run_id: str) -> StageResult:
            try:
                return run(prefect_run_id)
            finally:
                self.done.set()

        return marked

    def wait(self) -> StageResult:
        """The result; raises what the stage raised."""
        if self._result is None:
            try:
                self.future.wait()
                self._result = StageResult.model_validate(self.future.result())
            except Exception as error:  # whatever it was, it is told and raised again
                self._recipe_run.fail(self._plan, error, 0.0)
                raise
            finally:
                self._recipe_run.settled(self)
            took = self._result.seconds
            self._recipe_run.finish(self._plan, self._result, cached=False, seconds=took, note=self._note)
            for follow in self.followers:
                follow()
        return self._result
