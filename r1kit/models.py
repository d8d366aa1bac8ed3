"""Model directories: making a tiny Llama, fetching, loading, saving."""

from typing import Literal

from pydantic import Field

from r1kit.schema import Section


class ScratchConfig(Section):
    """Shape of a Llama made from scratch."""

    hidden_size: int = Field(128, gt=0)
    """Width."""
    num_layers: int = Field(4, gt=0)
    """Depth."""
    num_heads: int = Field(4, gt=0)
    """Attention heads."""
    intermediate_size: int = Field(384, gt=0)
    """Width of the MLP."""


class ModelConfig(Section):
    """Where the base model comes from."""

    source: str = "scratch"
    """`scratch`, a directory, `pypi:PACKAGE==VERSION`, or a hub name."""
    revision: str = ""
    """Commit of a hub model."""
    sha256: str = ""
    """Checksum of a fetched model file; empty means not checked."""
    scratch: ScratchConfig = ScratchConfig()
    """Shape, where source is `scratch`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights while training."""
