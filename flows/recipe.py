"""The recipe of DeepSeek-R1, base to registered model: what runs after what (arXiv 2501.12948, section 2)."""

from contextvars import ContextVar

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.run import Made, RecipeRun

RUN: ContextVar[RecipeRun] = ContextVar("RUN")
"""The run that the flow is to carry out."""


@flow(
    name="recipe",
    flow_run_name="{run_id}",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]
    persist_result=False,
    validate_parameters=False,
)
def recipe(run_id: str, profile: str) -> None:  # noqa: ARG001 - they name the flow run
    """Run the recipe that `RUN` holds. Every stage is a task; evaluations run beside what follows them."""
    run = RUN.get()
    try:
        follow(run)
    except BaseException:
        run.stop()  # the flow would wait for what runs beside
        raise


def follow(run: RecipeRun) -> None:
    """All stages, each after what it needs."""
    data = run.stage("data", {})
    run.validate(data)
    problems, instructions, benchmarks = data["problems"], data["instructions"], data["benchmarks"]

    base = run.stage("base", {}, optional={"pretrain": data["pretrain"]}, alone=True)
    run.evaluate(base, benchmarks)
    pairs = {"model": base["model"], "preferences": data["preferences"]}
    helpful = run.stage("reward_models", pairs, variant="helpful", beside=True)
    harmless = run.stage("reward_models", pairs, variant="harmless", beside=True)

    zero = run.stage("zero", {"model": base["model"], "problems": problems})
    run.evaluate(zero, benchmarks)

    chains = {"model": base["model"], "problems": problems, "chains": data["chains"], "benchmarks": benchmarks}
    dev1 = run.stage("cold_start", chains, optional={"zero": zero["model"]})
    run.evaluate(dev1, benchmarks)

    dev2 = run.stage("reason", {"model": last(dev1, zero, base)["model"], "problems": problems})
    run.evaluate(dev2, benchmarks)

    sampled = {"model": last(dev2, dev1, zero, base)["model"], "problems": problems, "benchmarks": benchmarks}
    curated = run.stage("reject", sampled)["curated"]
    taught = {"curated": curated, "instructions": instructions}

    dev3 = run.stage("refine", {"model": base["model"], **taught})  # from base again
    judges = {"helpful": helpful["reward_model"], "harmless": harmless["reward_model"]}
    judged = {"preferences": data["preferences"], **judges}
    run.evaluate(dev3, benchmarks, **judged)

    for student in run.config.distill.students:
        start = {"pretrain": data["pretrain"]} if student.shape else {"model": base["model"]}
        distilled = run.stage("distill", {**start, **taught}, variant=student.name, beside=True)
        run.evaluate(distilled, benchmarks)
        if run.config.stages.rl_student:
            begun = distilled["base"] if student.shape else base["model"]
            rival = {"model": begun, "problems": problems, **taught}
            run.evaluate(run.stage("rl_student", rival, variant=student.name, beside=True), benchmarks)

    trained = {"model": last(dev3, dev2, dev1, zero, base)["model"], "problems": problems, "benchmarks": benchmarks}
    r1 = run.stage("prefer", {**trained, **judged})
    run.evaluate(r1, benchmarks, **judged)

    run.wait()
    run.register(last(r1, dev3, dev2, dev1, zero, base))


def last(*models: Made) -> Made:
    """The first of these that was made."""
    return next((made for made in models if made), Made())
