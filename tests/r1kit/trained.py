"""A very small model that has learned one response by heart, so that some of its samples are right."""

from pathlib import Path

from r1kit import models, sft
from r1kit.rows import Problem, SftRow
from r1kit.sft import SftConfig
from tests.r1kit.models import small_model

RIGHT = "<think> start 3 plus 4 makes 7 </think> <answer> 7 </answer>"
WORDS = ("milk", "house", "bones", "garden", "grass", "field", "honey", "lake")
PROBLEMS = [
    Problem(id=f"sum/{n}", source="sum", licence="MIT", prompt=f"{word} 3 + 4", verifier="math", answer="7")
    for n, word in enumerate(WORDS)
]


def save_trained(directory: Path) -> Path:
    """A model directory."""
    model, tokenizer = small_model()
    rows = [
        SftRow(id=row.id, source="sum", licence="MIT", prompt=row.prompt, response=RIGHT, kind="chain")
        for row in PROBLEMS
    ]  # fmt: skip
    config = SftConfig(learning_rate=2e-2, epochs=25, batch_size=4, max_length_tokens=64, checkpoint_every_steps=1000)
    examples = sft.examples(tokenizer, rows)
    sft.train(model, examples, config, seed=0, checkpoints=directory / "checkpoints", log=lambda *_: None)
    models.save(model, tokenizer, directory / "model")
    return directory / "model"
