"""What is lost, altered, or lies elsewhere is said in every export."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.exports import FORMATS
from tasks.exports.making import describe_making
from tasks.workspace import Workspace
from tests.tasks.exported import StoredRecipe, events, opened, rich
from tests.tasks.seaweed import S3Server


def _gone(place: Path) -> None:
    shutil.rmtree(place) if place.is_dir() else place.unlink()


def _altered(place: Path) -> None:
    file = place / "model.safetensors" if place.is_dir() else place
    file.write_bytes(file.read_bytes() + b" ")


@pytest.mark.parametrize("damage", [_gone, _altered])
@pytest.mark.parametrize("what", ["r1", "base", "problems.parquet", "curated.parquet", "evaluation.json",
                                  "validation.json"])  # fmt: skip
def test_what_is_lost_is_said_in_every_export(workspace: Workspace, what: str, damage: Callable[[Path], None]) -> None:
    recipe = rich(workspace)
    sound = describe_making(workspace, "r1")
    assert sound.problems == () and "not registered" in sound.gaps[0]
    damage(recipe.places[what])
    making = describe_making(workspace, "r1")
    word = "is missing" if damage is _gone else "was altered"
    told = [problem for problem in making.problems if what in problem and word in problem]
    assert told, making.problems
    for name, each in FORMATS.items():
        shown = each.render(making)
        if name == "slsa":
            stated = opened(shown, workspace)
            audit = stated["predicate"]["runDetails"]["byproducts"][-1]
            shown = base64.b64decode(audit["content"]).decode()
            assert (len(stated["subject"]) == 1) == (what == "r1")
        elif name == "card":
            shown = shown.replace("\\", "")
        elif name == "dossier":
            shown = shown.replace("&#39;", "'")
        assert told[0] in shown, name
    last = events(FORMATS["openlineage"].render(making))[-1]
    assert last["eventType"] == "FAIL" and list(told) <= last["run"]["facets"]["r1kit_audit"]["problems"]
    assert "✕" in FORMATS["dossier"].render(making)


def test_what_is_lost_is_valid_too(workspace: Workspace) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from prov.model import ProvDocument

    recipe = rich(workspace)
    for place in recipe.places.values():
        _gone(place)
    making = describe_making(workspace, "r1")
    text = FORMATS["cyclonedx"].render(making)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert len(json.loads(text)["annotations"]) == len(making.problems) + len(making.gaps)
    ProvDocument.deserialize(content=FORMATS["prov"].render(making), format="json")
    assert "model-index" not in FORMATS["card"].render(making)


def test_a_model_in_another_store_is_fetched_and_what_was_not_hashed_is_said(
    workspace: Workspace, bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_server.client()
    monkeypatch.setenv("R1_LEDGER", f"s3://{bucket}/ledger")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3_server.endpoint)
    recipe = StoredRecipe(workspace, client, bucket)
    recipe.make_all()
    making = describe_making(workspace, "r1")
    assert making.problems == () and len(making.model.files) == 3 and making.scores[0].benchmark == "arithmetic"
    unseen = [gap for gap in making.gaps if "was not hashed again" in gap]
    assert len(unseen) == 3 and all(f"s3://{bucket}/made/" in gap for gap in unseen)  # base, zero, dev3
    assert "0.86" in FORMATS["card"].render(making) and unseen[0] in FORMATS["prov"].render(making)
    shutil.rmtree(workspace.cache_dir / "artifacts")
    client.put_object(Bucket=bucket, Key="made/r1/tokenizer.json", Body=b"other")
    altered = describe_making(workspace, "r1")
    assert any(f"s3://{bucket}/made/r1 was altered" in problem for problem in altered.problems)
    assert altered.model.files == ()
