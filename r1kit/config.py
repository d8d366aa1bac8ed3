"""The whole of pipeline.yaml as one typed schema, and its one reader."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from r1kit.complaints import sentence
from r1kit.data.config import DataConfig, SourceEntry
from r1kit.evaluation import EvaluationConfig
from r1kit.grpo_config import GrpoConfig
from r1kit.models import ModelConfig, ScratchConfig
from r1kit.parallel import ZeroStage
from r1kit.promotion import GcConfig, PromotionConfig
from r1kit.rejection import RejectionConfig
from r1kit.reward_model import RewardModelConfig
from r1kit.rows import Language
from r1kit.schema import Section
from r1kit.settings import read_settings
from r1kit.sft import SftConfig


class ValidateConfig(Section):
    """The gate in front of training."""

    max_quarantine_share: float = Field(default=0.05, ge=0, le=1)
    """The flow stops where a larger share of a source's rows was quarantined."""
    min_rows: int = Field(default=1, gt=0)
    """Fewest rows of each prepared file that the profile asks for."""
    max_prompt_characters: int = Field(default=50_000, gt=0)
    """Longest prompt."""
    max_text_characters: int = Field(default=500_000, gt=0)
    """Longest response, solution, or other text of a row."""
    languages: tuple[Language, ...] = Field(default=("en", "zh"), min_length=1)
    """Languages that rows may be in."""
    max_row_tokens: int = Field(default=65_536, gt=0)
    """Most tokens of a row, prompt and responses together; the flow estimates one in four bytes."""
    max_other_language_share: float = Field(default=0.05, ge=0, le=1)
    """Most rows, as a share, that are mostly in another language than they say."""
    min_near_similarity: float = Field(default=0.85, gt=0, le=1)
    """Similarity of words and pairs of words (Jaccard, estimated by MinHash) that makes a row nearly another."""
    max_near_duplicate_share: float = Field(default=0.2, ge=0, le=1)
    """Most rows, as a share, that are nearly another one; rows made from templates do not count."""
    min_length_balance: float = Field(default=0.1, ge=0, le=0.5)
    """Of a route's pairs at least this share prefers the longer response, and at least this share the shorter one."""
    verify_rows: int = Field(default=200, ge=0)
    """Problems and benchmark rows, together, whose gold answer is verified once more."""


class ColdStartConfig(Section):
    """Dev1: curated chains plus R1-Zero's own correct and readable samples."""

    zero_prompts: int = Field(default=1000, ge=0)
    """Problems for which R1-Zero is sampled."""
    zero_samples_per_prompt: int = Field(default=4, gt=0)
    """Samples each."""
    max_zero_rows: int = Field(default=500, ge=0)
    """Most of them used."""
    max_chains: int | None = Field(default=None, gt=0)
    """Most curated chains used."""
    max_tokens: int = Field(default=32768, gt=0)
    """Limit of such a sample."""
    batch_size: int = Field(default=256, gt=0)
    """Completions sampled together."""
    sft: SftConfig = SftConfig()
    """The training."""


class RewardModelsConfig(Section):
    """Both reward models."""

    helpful: RewardModelConfig = RewardModelConfig()
    harmless: RewardModelConfig = RewardModelConfig()


class StudentConfig(Section):
    """One distilled student."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Names the model `distill-<name>`."""
    shape: ScratchConfig | None = None
    """Its own shape, trained from scratch on the pretraining rows first; None means a copy of the flow's base."""
    pretrain: SftConfig = SftConfig()
    """That first training."""
    sft: SftConfig = SftConfig(learning_rate=1e-4, batch_size=64)
    """The distillation."""


class DistillConfig(Section):
    """Students trained on the curated set, by SFT alone."""

    students: tuple[StudentConfig, ...] = ()
    """One entry a student; they run side by side where cores allow."""


class ScheduleConfig(Section):
    """The scheduled retraining."""

    cron: str = "0 3 * * 1"
    """When, in cron's five fields."""
    timezone: str = "UTC"
    """Of the cron fields."""


class StagesConfig(Section):
    """Switches of the one flow."""

    zero: bool = True
    cold_start: bool = True
    reason: bool = True
    reject: bool = True
    refine: bool = True
    prefer: bool = True
    distill: bool = True
    rl_student: bool = False
    """Also train each student by RL alone for the compute of its distillation, to compare."""


class RuntimeConfig(Section):
    """The machine."""

    threads: int = Field(default=0, ge=0)
    """Torch threads of a stage, which its processes share; 0 means all free cores."""
    verifier_workers: int = Field(default=1, gt=0)
    """Worker processes that check answers; each of `processes` has so many."""
    verifier_deadline_seconds: float = Field(default=5.0, gt=0)
    """Wall clock for one verdict."""
    processes: int = Field(default=1, gt=0)
    """Processes that train and sample a model together; where there are GPUs, each has one."""
    launcher: Literal["torchrun", "deepspeed"] = "torchrun"
    """What starts them."""
    zero_stage: ZeroStage = 0
    """What DeepSpeed shares out among them: 1 the optimizer's state, 2 gradients too, 3 weights too; 0 nothing."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more arithmetic."""

    @property
    def launched(self) -> bool:
        """Whether a launcher starts what trains: DeepSpeed needs one even for a single process."""
        return self.processes > 1 or self.zero_stage > 0


class Config(Section):
    """One resolved profile."""

    profile: str = ""
    """Name of the profile; `load` sets it."""
    name: str = "r1kit"
    """Prefix of the registered models."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    system: str = ""
    """System prompt of every conversation; `r1-zero` names the paper's template, empty means none."""
    runtime: RuntimeConfig = RuntimeConfig()
    stages: StagesConfig = StagesConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    base: SftConfig = SftConfig()
    zero: GrpoConfig = GrpoConfig()
    cold_start: ColdStartConfig = ColdStartConfig()
    reason: GrpoConfig = GrpoConfig()
    reject: RejectionConfig = RejectionConfig()
    refine: SftConfig = SftConfig()
    reward_models: RewardModelsConfig = RewardModelsConfig()
    prefer: GrpoConfig = GrpoConfig()
    distill: DistillConfig = DistillConfig()
    evaluate: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    gc: GcConfig = GcConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @property
    def system_prompt(self) -> str | None:
        """The system prompt's words, or None."""
        from r1kit.chat import ZERO_SYSTEM

        return {"": None, "r1-zero": ZERO_SYSTEM}.get(self.system, self.system)


def load(path: Path, profile: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read pipeline.yaml, lay the profile and the overrides over it, and check everything once.

    Args:
        path: The file: `defaults` holds what all profiles share, `profiles` the sparse overlays.
        profile: Its name; None means the file's `default_profile`.
        overrides: `a.b=value`, the value in YAML; items of lists by number.

    Raises:
        ValueError: One sentence with the key, the file, the line and what is allowed.
    """
    settings = read_settings(path, profile, overrides)
    try:
        return Config.model_validate({**settings.values, "profile": settings.profile})
    except ValidationError as error:
        raise ValueError(sentence(error.errors(), settings, Config)) from None


__all__ = ["Config", "DataConfig", "ScratchConfig", "SourceEntry", "load"]
