"""What a model must show to enter an environment, and what is kept when room is made. Light: no torch behind it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from r1kit.complaints import sentence
from r1kit.schema import Section
from r1kit.settings import read_settings
from r1kit.watch import WatchConfig

Promoted = Literal["staging", "production"]
Sign = Literal["nonfinite", "truncated", "zero_variance", "kl", "constant"]
StageName = Literal[
    "base", "zero", "cold_start", "reason", "reject", "refine", "reward_models", "prefer", "distill", "rl_student"
]


def _watched() -> dict[Sign, int]:
    """The limits at which a training stops by itself, unless its settings say otherwise."""
    limits = WatchConfig().limits
    return {sign: steps for sign in get_args(Sign) if (steps := limits[sign]) is not None}


class Rules(Section):
    """Limits that a model's evidence is held to."""

    floors: dict[str, float] = {}
    """Lowest pass@1 per benchmark."""
    max_regression: float = Field(default=0.02, ge=0, le=1)
    """How far the paired difference to the current holder may lie below zero (lower end of the 95 % interval of a
    bootstrap over the problems that both answered)."""
    min_problems: int = Field(default=1, gt=0)
    """Fewest problems with a checkable answer that it was evaluated on; as many must be shared with the holder."""
    stages: tuple[StageName, ...] = ()
    """Stages that must stand in its lineage."""
    exact: bool = False
    """Refuse a lineage in which a stage was resumed on another machine, so that it cannot be rebuilt to the bit."""
    max_length_growth: float = Field(default=2.0, ge=1)
    """Responses so many times as long as those of the model it was trained from, without better answers, are a sign of
    reward hacking."""
    max_format_gain: float = Field(default=0.02, ge=0, le=1)
    """A format rate higher by more than this than that of the model it was trained from, with worse answers, is a sign
    of reward hacking."""
    alarms: dict[Sign, int] = Field(default_factory=_watched)
    """Steps in a row from which on a sign that RL's watch counted refuses the model, even where `watch` in the stage's
    settings let the training go on."""


class PromotionConfig(Rules):
    """The limits for every model, and what else one environment or the models of one stage are held to."""

    approvals: dict[Promoted, int] = {"staging": 1, "production": 1}
    """Signed approvals needed, none of them the submitter's."""
    min_staging_hours: float = Field(default=0.0, ge=0)
    """Hours in staging before production."""
    made_by: dict[StageName, Rules] = {}
    """For models that this stage made, instead of what stands above; floors and alarms are added one by one."""
    environments: dict[Promoted, Rules] = {}
    """For this environment, instead of all that; floors and alarms are added one by one."""

    def rules(self, environment: str, stage: str) -> Rules:
        """The limits that hold for a model of this stage in front of this environment."""
        merged = Rules(**{name: getattr(self, name) for name in Rules.model_fields})
        for parts, key in ((self.made_by, stage), (self.environments, environment)):
            merged = _laid_over(merged, {str(name): part for name, part in parts.items()}.get(key, Rules()))
        return merged


class GcConfig(Section):
    """What `r1 gc` leaves alone beside all that environments need."""

    keep_runs: int = Field(default=5, ge=0)
    """Latest runs, of each family of registered models and of all, whose models and data stay."""
    keep_unfinished_days: float = Field(default=14.0, ge=0)
    """Days after which the checkpoints of a stage that nobody went on with may go."""


class OperationsConfig(Section):
    """The sections that promotion and `r1 gc` read."""

    promotion: PromotionConfig = PromotionConfig()
    gc: GcConfig = GcConfig()


def load_operations(path: Path, profile: str | None = None, overrides: Iterable[str] = ()) -> OperationsConfig:
    """The sections `promotion` and `gc` of a profile, without the machine learning that the others configure.

    Raises ValueError as `r1kit.config.load` does, and for an override of another section, which would change nothing.
    """
    overrides = list(overrides)
    sections = OperationsConfig.model_fields
    for override in overrides:
        if override.partition("=")[0].partition(".")[0].strip() not in sections:
            raise ValueError(f"--set {override}: only settings of {' and '.join(sections)} matter here")
    settings = read_settings(path, profile, overrides)
    try:
        return OperationsConfig.model_validate({k: v for k, v in settings.values.items() if k in sections})
    except ValidationError as error:
        raise ValueError(sentence(error.errors(), settings, OperationsConfig)) from None


def _laid_over(rules: Rules, own: Rules) -> Rules:
    update = {name: getattr(own, name) for name in own.model_fields_set}
    for name in ("floors", "alarms"):
        if name in update:
            update[name] = {**getattr(rules, name), **update[name]}
    return rules.model_copy(update=update)
