"""What an audit tells, as values that also print as JSON."""

from typing import Any, Literal, get_args

from r1kit.schema import Section

Question = Literal["trained", "validated", "approved", "rebuildable", "altered"]
QUESTIONS: tuple[Question, ...] = get_args(Question)


class RowsRecord(Section):
    """Rows that a stage of the lineage learned from."""

    role: str
    kind: str
    digest: str
    uri: str
    """Where they lie now."""
    rows: int | None
    """How many; None where their bytes are gone or they are no table."""
    made_by: str
    """The stage that made them: `data`, `reject`."""
    fault: str | None
    """Why the bytes that lie there are not those trained on; None if they are."""


class DataRecord(Section):
    """A data set that the model's lineage was trained on, and whether it was validated first."""

    kind: str
    digest: str
    uri: str
    """Where its rows lie now."""
    rows: int | None
    """How many; None where its bytes are gone or it is no table."""
    fault: str | None
    """Why its bytes are no longer those trained on; None if they are."""
    sources: tuple[dict[str, Any], ...]
    """Where its rows came from: name, origin, checksum, licence, counts."""
    validated: str | None
    """When these bytes were let through; None if never."""
    validation_sequence: int
    """Ledger entry of that verdict; 0 if there is none."""
    rules: tuple[str, ...]
    """Rules that were checked, with their limits."""
    verdict: dict[str, Any]
    """What the validation says of it."""
    verdict_fault: str | None
    """Why what was validated is not byte for byte what was trained on; None if it is."""


class StepRecord(Section):
    """A stage in the lineage."""

    title: str
    """`prefer → r1`."""
    stage: str
    instance: str
    run: str
    """Recipe run."""
    time: str
    """When it ran, even where a later run reused it."""
    sequence: int
    """Ledger entry."""
    key: str
    code_digest: str
    config_digest: str
    config: dict[str, Any]
    seed: int
    seconds: float
    environment: dict[str, str]
    """Lock, commit, Python, platform, processor, cores, accelerators."""
    threads: int
    """Torch threads of each process; 0 where that was not noted."""
    processes: int
    mlflow_run_id: str
    prefect_run_id: str
    inputs: dict[str, str]
    """Role → digest."""
    outputs: dict[str, str]
    rows: tuple[RowsRecord, ...]
    """The rows among its inputs."""
    exact: bool
    """Whether it claims the bits of an uninterrupted run; not where it was resumed on another machine, say."""
    said: tuple[str, ...]
    """What it said for people while it ran."""
    faults: tuple[str, ...]
    """Outputs whose bytes are missing or altered; empty where `altered` was not asked."""


class ApprovalRecord(Section):
    """An approval, its signature verified now against the keys of then."""

    approver: str
    environment: str
    time: str
    sequence: int
    key: str
    """Fingerprint."""
    evidence_digest: str
    """The evidence that was signed for."""
    approvers_digest: str
    """Of the list of approvers as it was then."""
    fault: str | None
    """Why it did not hold when it was given; None if it did."""
    since: str | None
    """Why it would not count today: rolled back, revoked, the list changed; None if it would."""


class PlaceRecord(Section):
    """An event in the model's life after its making."""

    what: str
    time: str
    who: str
    sequence: int
    gates: tuple[str, ...] = ()
    """Of a promotion: what each gate found."""


class RebuildableRecord(Section):
    """Whether a step could be run again, and whether that must give the same bits."""

    title: str
    missing: tuple[str, ...]
    """What it would need and is not there; empty if it can run."""
    differs: tuple[str, ...]
    """What is no longer as it was, so that other bits may come of it."""


class AuditReport(Section):
    """All that was asked of a model."""

    reference: str
    asked: tuple[Question, ...]
    model: str
    name: str
    version: str
    digest: str
    uri: str
    size_bytes: int
    run: str
    submitters: tuple[str, ...]
    holds: tuple[str, ...]
    """Environments whose current model has these bytes."""
    signature: str
    """`verified`, `none`, what is wrong with it, or `not checked`."""
    evidence_digest: str
    """Of the bundle that approvers sign for; empty for a model that is not registered."""
    evaluation: dict[str, dict[str, float]]
    """Benchmark → n, mean score."""
    data: tuple[DataRecord, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    approvals: tuple[ApprovalRecord, ...] = ()
    places: tuple[PlaceRecord, ...] = ()
    rebuildable: tuple[RebuildableRecord, ...] = ()
    ledger_entries: int
    ledger_head: str
    repaired: tuple[str, ...] = ()
    """What the audit put right: half-way promotions, aliases."""
    problems: tuple[str, ...]
    """All that is not as it should be; empty for a sound model."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class HistoryReport(Section):
    """Whether any byte of the whole history was altered."""

    ledger_entries: int
    ledger_head: str
    artifacts: int
    """Different ones, all hashed again."""
    artifact_bytes: int
    signatures: int
    approvals: int
    versions: int
    """In MLflow's registry."""
    tracked_runs: int
    """In MLflow's store."""
    runs: int
    """Of the recipe."""
    pins: int
    """Files that dvc.lock pins."""
    notes: tuple[str, ...]
    """What is worth knowing and is no fault: deleted on record, replaced by newer data, made anew."""
    repaired: tuple[str, ...]
    problems: tuple[str, ...]
    """Every difference, named; empty for an untouched history."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class TouchedModel(Section):
    """A model that something reached."""

    model: str
    """`r1kit-staging/2`, `r1 of run 7`."""
    digest: str
    sequence: int
    holds: tuple[str, ...]
    """Environments that it holds now; empty for a past one."""
    path: tuple[str, ...]
    """The steps from there to here, oldest first."""


class TouchedReport(Section):
    """Everything that something reached, through any number of steps."""

    what: str
    """As it was asked for."""
    found: tuple[str, ...]
    """What it was found to be: `data set problems sha256:…`, `row tinyworld/3 in problems sha256:…`."""
    models: tuple[TouchedModel, ...]


class RebuiltStep(Section):
    """A step that was run again."""

    title: str
    identical: bool | None
    """Whether every output has the recorded digest; None where it could not run."""
    outputs: dict[str, dict[str, str]]
    """Role → `recorded` and `rebuilt` digest."""
    differs: tuple[str, ...]
    """What is no longer as it was when the step ran."""
    seconds: float
    error: str = ""
    """Why it could not run."""


class RebuildReport(Section):
    """A model's recipe, run again from its pins."""

    reference: str
    steps: tuple[RebuiltStep, ...]

    @property
    def sound(self) -> bool:
        """Whether every step gave the recorded bits."""
        return all(step.identical for step in self.steps)
