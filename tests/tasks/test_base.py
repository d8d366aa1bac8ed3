"""The base model: its key names the bytes that it is made from."""

from pathlib import Path

from r1kit.config import Config
from tasks.stage import plan_stage


def test_a_model_directory_counts_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    config = Config.model_validate({"model": {"source": str(tmp_path)}})
    before = plan_stage("base", config, {}).key
    assert plan_stage("base", config, {}).key == before
    (tmp_path / "model.safetensors").write_text("other weights")
    assert plan_stage("base", config, {}).key != before
