"""How pipeline.yaml is read: layers, merges, numbers, and one sentence for each mistake."""

from pathlib import Path

import pytest

from r1kit.settings import read_settings

FILE = """\
default_profile: one
defaults:
  seed: 1
  zero: {steps: 10, rewards: {accuracy: 1.0, format: 1.0}}
  list: [1, 2, 3]
profiles:
  one:
    zero: &rl
      steps: 20
      learning_rate: 3e-6
    reason:
      <<: *rl
      steps: 30
    list: [4]
  two: {}
  three:
"""


def write(path: Path, text: str) -> Path:
    file = path / "pipeline.yaml"
    file.write_text(text)
    return file


def values(path: Path, *overrides: str, profile: str | None = None, text: str = FILE) -> dict:
    return read_settings(write(path, text), profile, overrides).values


def test_a_profile_lies_over_the_defaults_and_overrides_over_both(tmp_path: Path) -> None:
    merged = values(tmp_path)
    assert merged["seed"] == 1
    assert merged["zero"] == {"steps": 20, "learning_rate": 3e-6, "rewards": {"accuracy": 1.0, "format": 1.0}}
    assert merged["list"] == [4], "lists are replaced, not joined"
    changed = values(tmp_path, "zero.steps=7", "zero.rewards.format=0.5", "list.0=9", "seed=2")
    assert (changed["zero"]["steps"], changed["list"], changed["seed"]) == (7, [9], 2)
    assert changed["zero"]["rewards"] == {"accuracy": 1.0, "format": 0.5}
    assert values(tmp_path, "zero.steps=7", "zero.steps=8")["zero"]["steps"] == 8, "the last one counts"


@pytest.mark.parametrize("profile", ["two", "three"])
def test_an_empty_profile_is_the_defaults(tmp_path: Path, profile: str) -> None:
    assert values(tmp_path, profile=profile)["zero"]["steps"] == 10


def test_merge_keys_are_merged_and_may_be_replaced(tmp_path: Path) -> None:
    assert values(tmp_path)["reason"] == {"steps": 30, "learning_rate": 3e-6}


@pytest.mark.parametrize(
    ("written", "value"),
    [("3e-6", 3e-6), ("3.0e-6", 3e-6), ("1E5", 1e5), ("-2e3", -2000.0), ("+1e2", 100.0), ("3.e-6", 3e-6), ("0.5", 0.5),
     ("10", 10), ("'3e-6'", "3e-6"), ("e5", "e5"), ("1e", "1e"), ("true", True), ("null", None), ("1e5x", "1e5x")],
)  # fmt: skip
def test_numbers_are_what_people_mean(tmp_path: Path, written: str, value: object) -> None:
    for found in (values(tmp_path, f"x={written}")["x"], values(tmp_path, text=f"defaults: {{x: {written}}}")["x"]):
        assert found == value and type(found) is type(value)


def test_every_value_knows_its_line(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, FILE), None, ["zero.rewards.format=0.5"])
    where = str(tmp_path / "pipeline.yaml")
    assert settings.origin(("seed",)) == f"{where}, line 3"
    assert settings.origin(("zero", "learning_rate")) == f"{where}, line 10"
    assert settings.origin(("zero", "rewards", "accuracy")) == f"{where}, line 4"
    assert settings.origin(("zero", "rewards", "format")) == "--set zero.rewards.format=0.5"
    assert settings.origin(("reason", "steps")) == f"{where}, line 13"
    assert settings.origin(("reason", "learning_rate")) == f"{where}, line 10", "where the anchor has it"
    assert settings.origin(("list", 0)) == f"{where}, line 14"


MISTAKES = {
    "no YAML": ("defaults: {seed: 1", (), ("pipeline.yaml", "line", "not YAML")),
    "a tab": ("defaults:\n\tseed: 1", (), ("pipeline.yaml", "line 2", "not YAML")),
    "an unknown anchor": ("defaults: *nothing", (), ("pipeline.yaml", "line 1", "nothing")),
    "Python's tags": ("defaults: !!python/object/apply:os.getcwd []", (), ("pipeline.yaml", "line 1", "not YAML")),
    "a list": ("- seed", (), ("pipeline.yaml", "mapping")),
    "a key at the top": ("seed: 1\ndefaults: {}", (), ("pipeline.yaml", "line 1", "seed", "defaults")),
    "a key twice": ("defaults:\n  seed: 1\n  seed: 2", (), ("defaults.seed", "twice", "pipeline.yaml", "line 3")),
    "a key twice in a merge": (
        "defaults: {a: &a {x: 1}}\nprofiles: {p: {b: {<<: *a, x: 2, x: 3}}}", (), ("profiles.p.b.x", "twice", "line 2"),
    ),
    "a number that is none": ("defaults: {x: .nan}", (), ("defaults.x", "finite", "line 1")),
    "infinity": ("defaults: {x: 1e999}", (), ("defaults.x", "finite", "line 1")),
    "defaults that are no mapping": ("defaults: 7", (), ("pipeline.yaml", "line 1", "defaults", "mapping", "7")),
    "a profile that is no mapping": ("default_profile: p\nprofiles: {p: [1]}", (), ("line 2", "profiles.p", "mapping")),
    "defaults that are an empty list": ("defaults: []", (), ("line 1", "defaults", "mapping")),
    "profiles that are no mapping": ("profiles: [1]", (), ("line 1", "profiles", "mapping")),
    "a default that is missing": ("default_profile: on\nprofiles: {one: {}}", (), ("line 1", "True", "one")),
    "--set without a value": (FILE, ("zero.steps",), ("--set zero.steps", "section.key=value")),
    "--set without a key": (FILE, ("=3",), ("--set =3", "section.key=value")),
    "--set with an empty part": (FILE, ("zero..steps=3",), ("--set zero..steps=3", "section.key=value")),
    "--set with bad YAML": (FILE, ("zero.steps=[1",), ("--set zero.steps=[1", "not YAML")),
    "--set into a value": (FILE, ("seed.x=1",), ("--set seed.x=1", "seed is 1", "'x'")),
    "--set beyond a list": (FILE, ("list.5=1",), ("--set list.5=1", "list of 1", "numbered from 0")),
    "--set by name into a list": (FILE, ("list.x=1",), ("--set list.x=1", "list of 1", "'x'")),
    "--set to infinity": (FILE, ("seed=.inf",), ("--set seed=.inf", "finite")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_told_in_one_sentence(tmp_path: Path, mistake: str) -> None:
    text, overrides, parts = MISTAKES[mistake]
    with pytest.raises(ValueError) as caught:
        values(tmp_path, *overrides, text=text)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_an_unknown_profile_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--profile: .*pipeline\.yaml has no profile 'tow'; did you mean 'two'\?"):
        values(tmp_path, profile="tow")
    with pytest.raises(ValueError, match=r"no profile 'cluster'; it can be one, three, two"):
        values(tmp_path, profile="cluster")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml does not exist; run in the repository's root"):
        read_settings(tmp_path / "none.yaml", None, ())
    with pytest.raises(ValueError, match="cannot be read"):
        read_settings(tmp_path, None, ())
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        read_settings(tmp_path / "binary", None, ())


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    assert values(tmp_path, text="") == {}
