"""Registering, and naming models."""

import pytest

from tasks.ledger import open_ledger
from tasks.lineage import resolve_model
from tasks.register import read_evidence, register
from tasks.signing import signature_fault
from tasks.store import fetch
from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.recipe import BENCHMARK, Recipe, artifact


def test_a_candidate_has_copy_signature_and_evidence(tracked: Workspace) -> None:
    model = Recipe(tracked).make()
    registered = register(tracked, run="run-1")
    assert (registered.name, registered.version, registered.new) == ("r1kit-candidate", "1", True)
    assert registered.artifact.digest == model.digest and registered.artifact.uri != model.uri

    candidate = resolve_model("candidate", tracked)
    assert candidate.signature is not None and candidate.evidence is not None
    place, signature = fetch(candidate.artifact, tracked), fetch(candidate.signature, tracked)
    assert signature_fault(place, signature, tracked) is None
    evidence = read_evidence(candidate.evidence, tracked)
    assert [step["stage"] for step in evidence["lineage"]] == ["base", "data", "prefer"]
    assert evidence["data"][0]["validation_digest"].startswith("sha256:")
    assert BENCHMARK in (fetch(candidate.evidence, tracked) / "evaluation.json").read_text()

    stored = client_of(tracked).get_model_version("r1kit-candidate", "1")
    assert stored.tags["r1kit.submitter"] == "submitter@example.org"
    assert stored.source == f"runs:/{candidate.mlflow_run_id}/model"

    (place / "extra.py").write_text("import os")
    assert "extra.py" in str(signature_fault(place, signature, tracked))


def test_the_same_model_is_registered_once(tracked: Workspace) -> None:
    Recipe(tracked).make()
    first, again = register(tracked, run="run-1"), register(tracked, run="run-2")
    assert again.version == first.version and not again.new
    assert open_ledger(tracked).entries()[-1].entry.status == "reused"
    (fetch(first.artifact, tracked) / "model.safetensors").write_text("altered")
    assert register(tracked, run="run-3").version == "2"


def test_a_gap_in_the_lineage_is_refused(tracked: Workspace) -> None:
    recipe = Recipe(tracked)
    stray = artifact(recipe.root / "stray", "problems", "?")
    recipe.stage("prefer", {"problems": stray}, {"model": artifact(recipe.root / "m", "model", "m")})
    with pytest.raises(ValueError, match=r"does not say where problems sha256:.* came from"):
        register(tracked, run="run-1")


def test_models_are_found_by_every_reference(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="no model was made yet"):
        resolve_model("r1", workspace)
    recipe = Recipe(workspace)
    model = recipe.make()
    student = artifact(recipe.root / "student", "model", "s")
    recipe.stage("distill", {"curated": model}, {"model": student}, instance="small")
    assert resolve_model("r1", workspace).artifact == model
    assert resolve_model("distill-small", workspace).artifact == student
    newer = Recipe(workspace, "run-2").make(weights="newer")
    assert resolve_model("r1", workspace).artifact == newer
    with pytest.raises(ValueError, match=r"no model 'production' here; known models: base, distill-small, r1"):
        resolve_model("production", workspace)
