"""What came from what, told from the ledger alone."""

import shutil

from tasks.artifacts import describe
from tasks.ledger import open_ledger
from tasks.lineage import ancestry
from tasks.workspace import Workspace
from tests.tasks.recipe import Recipe, artifact


def test_of_stages_that_made_the_same_bytes_the_one_is_meant_whose_copy_was_taken(workspace: Workspace) -> None:
    """A student distilled as Dev3 is refined has its bytes; R1 comes from Dev3 all the same."""
    recipe = Recipe(workspace)
    base = artifact(recipe.root / "base", "model", "base")
    refined = artifact(recipe.root / "refined", "model", "taught")
    twin = describe(shutil.copytree(recipe.root / "refined", recipe.root / "twin"), "model")
    r1 = artifact(recipe.root / "r1", "model", "r1")
    recipe.stage("base", {}, {"model": base})
    recipe.stage("refine", {"model": base}, {"model": refined})
    recipe.stage("distill", {"model": base}, {"model": twin}, instance="twin")
    recipe.stage("prefer", {"model": refined}, {"model": r1})
    assert twin.digest == refined.digest
    steps = ancestry(open_ledger(workspace).entries(), r1, recipe.run).steps
    assert [step.entry.job for step in steps] == ["base", "refine", "prefer"]
