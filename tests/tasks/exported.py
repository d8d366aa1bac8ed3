"""A recipe with everything that exports tell: sources, licences, a verdict, intervals, settings; some of it hostile."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.artifacts import Artifact, describe, digest_bytes
from tasks.ledger import open_ledger, stage_entry
from tasks.workspace import Workspace
from tests.tasks.made_up_run import HOSTILE
from tests.tasks.recipe import Recipe, artifact

RAW_SHA256 = "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"
SOURCES: list[dict[str, Any]] = [
    {
        "kind": "problems", "source": "gsm8k_train", "licence": "MIT", "revision": "", "seed": None, "note": "",
        "files": [{"path": "gsm8k/train.jsonl", "url": "https://example.org/gsm8k/train.jsonl", "sha256": RAW_SHA256,
                   "bytes": 4_166_206}],
        "rows_read": 7473, "rows_kept": 7426, "quarantined": 0, "duplicates": 0, "contaminated": 47, "unlicensed": 0,
    },
    {
        "kind": "problems", "source": f"own {HOSTILE}", "licence": f"ask | us {HOSTILE}", "revision": "", "seed": 7,
        "note": HOSTILE, "files": [], "rows_read": 10, "rows_kept": 9, "quarantined": 1, "duplicates": 0,
        "contaminated": 0, "unlicensed": 0,
    },
]  # fmt: skip


class RichRecipe(Recipe):
    """One run's artifacts and entries, as full as a real run's."""

    def make_all(self) -> Artifact:
        """The whole recipe but for reward models and students; the model r1 comes back."""
        manifest = json.dumps({"format": "r1kit data 1", "sources": SOURCES})
        problems = artifact(self.root / "problems.parquet", "problems", "rows")
        data = {"problems": problems, "manifest": artifact(self.root / "manifest.json", "manifest", manifest)}
        self.step("data", {}, data, seconds=2.0)
        verdict = artifact(self.root / "validation.json", "validation", json.dumps(self._verdict(problems)))
        self.step("validate", data, {"validation": verdict}, seconds=1.0)
        base = self._model("base")
        self.step("base", {}, {"model": base}, config={"model": {"source": "scratch"}, "base": {"steps": 3}})
        zero = self._model("zero")
        self.step("zero", {"model": base, "problems": problems}, {"model": zero}, seconds=61.5)
        curated = artifact(self.root / "curated.parquet", "curated", "kept")
        self.step("reject", {"model": zero, "problems": problems}, {"curated": curated})
        dev3 = self._model("dev3")
        self.step("refine", {"model": base, "curated": curated}, {"model": dev3}, config={"note": HOSTILE})
        r1 = self._model("r1")
        self.step("prefer", {"model": dev3, "problems": problems}, {"model": r1}, config={"prefer": {"steps": 60}})
        evaluation = artifact(self.root / "evaluation.json", "evaluation", json.dumps(self._evaluation()))
        self.step("evaluate", {"model": r1}, {"evaluation": evaluation}, instance="r1")
        return r1

    def step(
        self,
        stage: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        *,
        instance: str = "",
        config: Mapping[str, Any] | None = None,
        seconds: float = 4.0,
    ) -> None:
        """A stage that ran, with settings and seconds."""
        entry = stage_entry(
            stage=stage, instance=instance, status="ran", run=self.run, key=f"{stage}-{self.run}",
            code_digest=digest_bytes(stage.encode()), config=config or {"steps": 1}, seed=3, inputs=inputs,
            outputs=outputs, seconds=seconds, mlflow_run_id="m", facts={"runtime": {"processes": 1, "threads": 2}},
        )  # fmt: skip
        open_ledger(self.workspace).append(entry)

    def _model(self, name: str) -> Artifact:
        place = self.root / name
        place.mkdir(parents=True)
        (place / "model.safetensors").write_text(name)
        (place / "tokenizer.json").write_text("{}")
        shape = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "vocab_size": 512}
        (place / "config.json").write_text(json.dumps(shape))
        return describe(place, "model")

    def _verdict(self, problems: Artifact) -> dict[str, Any]:
        checks = [
            {"rule": f"rule {n} {HOSTILE if n == 3 else ''}", "limit": "none", "checked": 7435, "failed": 0,
             "success": True, "examples": []}
            for n in range(12)
        ]  # fmt: skip
        own = {"kind": "problems", "digest": problems.digest, "rows": 7435, "checks": checks, "failed_checks": 0}
        return {"format": "r1kit validation 1", "success": True, "files": [{**own, "success": True}]}

    def _evaluation(self) -> dict[str, Any]:
        def scores(value: float | None) -> dict[str, Any]:
            figure = {"value": value, "low": value - 0.05, "high": value + 0.05} if value is not None else None
            return {
                "n": 200, "k": 2, "pass_at_1": figure, "cons_at_k": figure, "response_tokens": 24.5,
                "preference": None if figure else {"value": 0.7, "low": 0.6, "high": 0.8}, "format_rate": 0.97,
                "truncated_share": 0.01, "one_language_rate": None, "reflection_rate": 0.02,
            }  # fmt: skip

        named = {"arithmetic": scores(0.86), f"riddles {HOSTILE}": scores(0.5), "general": scores(None)}
        problems = [{"id": "p/1", "benchmark": "arithmetic", "score": 1.0}]
        config = {"samples_per_problem": 2, "sampling": {"temperature": 0.6}}
        return {"model": "r1", "seed": 0, "config": config, "benchmarks": named, "problems": problems}

    @property
    def places(self) -> dict[str, Path]:
        """What a test may damage."""
        return {name: self.root / name for name in ("r1", "base", "problems.parquet", "curated.parquet",
                                                    "evaluation.json", "validation.json")}  # fmt: skip


class StoredRecipe(RichRecipe):
    """The same, with its models and its evaluation in an S3 bucket."""

    def __init__(self, workspace: Workspace, client: Any, bucket: str) -> None:
        super().__init__(workspace)
        self.client, self.bucket = client, bucket

    def step(self, stage: str, inputs: Mapping[str, Artifact], outputs: Mapping[str, Artifact], **options: Any) -> None:
        """A stage whose models and evaluations lie in the bucket."""
        super().step(stage, self._stored(inputs), self._stored(outputs), **options)

    def _stored(self, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
        return {role: self._put(a) if a.kind in ("model", "evaluation") else a for role, a in artifacts.items()}

    def _put(self, artifact: Artifact) -> Artifact:
        path = artifact.path
        assert path is not None
        for file in path.iterdir() if path.is_dir() else (path,):
            key = f"made/{file.relative_to(self.root).as_posix()}"
            self.client.put_object(Bucket=self.bucket, Key=key, Body=file.read_bytes())
        return artifact.model_copy(update={"uri": f"s3://{self.bucket}/made/{path.name}"})


def rich(workspace: Workspace, run: str = "run-1") -> RichRecipe:
    """The recipe, made."""
    recipe = RichRecipe(workspace, run)
    recipe.make_all()
    return recipe


def events(text: str) -> list[dict[str, Any]]:
    """Run events, one a line."""
    return [json.loads(line) for line in text.splitlines()]


def opened(envelope: str, workspace: Workspace) -> dict[str, Any]:
    """The statement in an envelope, its signature verified by securesystemslib and by hand."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage]

    public = serialization.load_pem_public_key((workspace.keys_dir / "signing.pub").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    value = json.loads(envelope)
    payload, signature = base64.b64decode(value["payload"]), base64.b64decode(value["signatures"][0]["sig"])
    kind = value["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    key = SSlibKey.from_crypto(public, keyid=value["signatures"][0]["keyid"])
    assert list(Envelope.from_dict(value).verify([key], 1)) == [key.keyid]
    return json.loads(payload)
