"""A stage's version is the code that it can reach: that, all of that, and nothing else."""

import shutil
from pathlib import Path

import pytest

from tasks.code import NOT_CODE, code_digest, reachable
from tasks.stage import STAGES
from tasks.workspace import REPOSITORY

GRPO = {"zero", "reason", "prefer", "rl_student"}
SFT = {"base", "cold_start", "refine", "distill", "rl_student"}
BODIES = [stage for stage in STAGES if stage != "register"]


def digests(root: Path = REPOSITORY) -> dict[str, str]:
    return {stage: code_digest(f"tasks.{stage}", root) for stage in BODIES}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, taken once: others may be at work on the original."""
    root = tmp_path_factory.mktemp("tree")
    for package in ("r1kit", "tasks"):
        shutil.copytree(REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def changed(tree: Path, tmp_path: Path, file: str, text: str = "\n# changed\n") -> set[str]:
    """The stages whose version changes with a line added to a file."""
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    with (copy / file).open("a") as stream:
        stream.write(text)
    before, after = digests(tree), digests(copy)
    return {stage for stage in BODIES if before[stage] != after[stage]}


def test_the_same_source_is_the_same_version_wherever_it_lies(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "elsewhere")
    assert digests(tree) == digests(tmp_path / "elsewhere")
    assert len(set(digests(tree).values())) == len(BODIES)


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("r1kit/grpo.py", GRPO),
        ("r1kit/loss.py", GRPO),
        ("r1kit/reinforce.py", GRPO),
        ("r1kit/sft.py", SFT),
        ("r1kit/preference.py", {"prefer", "evaluate"}),
        ("r1kit/reward_model.py", {"reward_models", "prefer", "evaluate"}),
        ("r1kit/evaluation.py", {"evaluate"}),
        ("r1kit/harvest.py", {"cold_start", "reject"}),
        ("r1kit/rejection.py", {"cold_start", "reject"}),
        ("r1kit/sampler.py", GRPO | {"cold_start", "reject", "evaluate"}),
        ("r1kit/schema.py", set(BODIES)),
        ("r1kit/__init__.py", set(BODIES)),
        ("tasks/zero.py", {"zero"}),
        ("tasks/prefer.py", {"prefer"}),
        ("tasks/promotion.py", set()),
        ("tasks/ledger/chain.py", set()),
        ("tasks/stage.py", set()),
        ("r1kit/config.py", set()),
        ("r1kit/settings.py", set()),
    ],
)
def test_a_changed_line_changes_the_stages_that_can_reach_it(
    tree: Path, tmp_path: Path, file: str, stages: set[str]
) -> None:
    assert changed(tree, tmp_path, file) == stages


@pytest.mark.parametrize("verifier", ["math", "code", "worker", "confine", "trial", "hedging"])
def test_verifiers_belong_to_whatever_verifies(tree: Path, verifier: str) -> None:
    """`worker` is started by its name in a string, not imported."""
    users = {stage for stage in BODIES if f"r1kit.rewards.{verifier}" in reachable(f"tasks.{stage}", tree)}
    assert users >= GRPO | {"cold_start", "reject", "evaluate", "validate"}
    assert not users & {"refine", "distill", "reward_models"}


def small(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"tasks/__init__.py": "", "r1kit/__init__.py": "", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("import r1kit.a", True),
        ("from r1kit import a", True),
        ("from r1kit.a import thing", True),
        ("def f():\n    from r1kit import a", True),
        ("import r1kit.a as other", True),
        ("command = ['-m', 'r1kit.a']", True),
        ("try:\n    import r1kit.a\nexcept ImportError:\n    pass", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from r1kit import a", False),
        ("import typing\nif typing.TYPE_CHECKING:\n    from r1kit import a\nelse:\n    import r1kit.a", True),
        ("# import r1kit.a", False),
        ("'''Like r1kit.a, but better.'''", False),
        ("import json, r1kita", False),
    ],
)
def test_what_counts_as_reaching(tmp_path: Path, source: str, reached: bool) -> None:
    root = small(tmp_path, {"tasks/x.py": source, "r1kit/a.py": "", "r1kit/b.py": ""})
    found = reachable("tasks.x", root)
    assert ("r1kit.a" in found) == reached and "r1kit.b" not in found and {"tasks", "tasks.x"} <= found.keys()


def test_modules_are_followed_in_circles_and_through_packages(tmp_path: Path) -> None:
    files = {
        "tasks/x.py": "import r1kit.p.deep",
        "r1kit/p/__init__.py": "from . import side",
        "r1kit/p/deep.py": "from ..a import b",
        "r1kit/p/side.py": "",
        "r1kit/a.py": "import r1kit.p.deep",
    }
    names = {"tasks", "tasks.x", "r1kit", "r1kit.p", "r1kit.p.deep", "r1kit.p.side", "r1kit.a"}
    assert reachable("tasks.x", small(tmp_path, files)).keys() == names


def test_what_carries_a_stage_exists() -> None:
    missing = [name for name in NOT_CODE if not list(REPOSITORY.glob(name.replace(".", "/") + ".py"))
               and not (REPOSITORY / name.replace(".", "/")).is_dir()]  # fmt: skip
    assert missing == [], "a name in NOT_CODE that no longer is one hides nothing, but misleads"
