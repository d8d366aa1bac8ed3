"""A very small model and tokenizer for the tests of the core."""

from r1kit import models, tinyworld
from r1kit.models import ScratchConfig


def small_model(seed: int = 0, layers: int = 2):
    """A random Llama of a few thousand parameters in the tiny world, and its tokenizer."""
    tokenizer = tinyworld.tokenizer()
    shape = ScratchConfig(hidden_size=16, num_layers=layers, num_heads=2, intermediate_size=32, max_length_tokens=128)
    return models.make_llama(shape, tokenizer, seed), tokenizer
