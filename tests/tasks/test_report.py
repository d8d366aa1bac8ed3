"""The report: whole, self-contained, deaf to what a model says, and honest about what it shows."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tasks.report import charts, facts, words, write_report
from tasks.report.findings import findings, verdict
from tasks.report.page import _CURVES
from tests.tasks import made_up_run
from tests.tasks.browser import CHROMIUM, drawn


class Tags(HTMLParser):
    """Gathers the tags of a page, its ids, and every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.names.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            if name in ("src", "href", "action", "data", "srcset", "xlink:href", "background", "poster"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


DATA_PAGES = {"data-problems.html", "data-preferences.html"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made-up run."""
    run_dir = tmp_path_factory.mktemp("run")
    return write_report(run_dir, made_up_run.write(run_dir))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> facts.Run:
    """What is read from the made-up run."""
    run_dir = tmp_path_factory.mktemp("run")
    return facts.read_run(run_dir, made_up_run.write(run_dir))


def tags_of(page: Path) -> Tags:
    """The page's tags."""
    tags = Tags()
    tags.feed(page.read_text())
    return tags


def test_every_section_is_there_and_reachable(page: Path):
    tags = tags_of(page)
    expected = {
        "recipe",
        "accuracy",
        "curves",
        "transcripts",
        "data",
        "rewards",
        "stages",
        "lineage",
        "configuration",
    }
    assert expected <= tags.ids
    within = {address for address in tags.addresses if address.startswith("#")}
    assert {address.removeprefix("#") for address in within} == expected
    assert {address for address in tags.addresses if address not in within} == DATA_PAGES


def test_each_validated_data_set_has_a_page_of_its_own(page: Path):
    for name in DATA_PAGES:
        own, text = tags_of(page.parent / name), (page.parent / name).read_text()
        assert "1,200 rows, 2 rules" in text and "language is allowed" in text
        assert made_up_run.HOSTILE not in text and "&lt;script&gt;document.title=" in text
        assert not own.addresses and not own.handlers and "script" not in own.names and "default-src 'none'" in text


def test_it_asks_nothing_of_any_network(page: Path):
    tags = tags_of(page)
    assert not tags.names & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "audio",
        "video",
        "form",
    }
    assert all(address.startswith("#") or address in DATA_PAGES for address in tags.addresses)
    assert tags.handlers == []
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_what_a_model_says_is_shown_and_never_obeyed(page: Path):
    text = page.read_text()
    assert "&lt;script&gt;document.title=" in text
    assert made_up_run.HOSTILE not in text
    assert "\u202e" not in text and "⟨U+202E⟩" in text
    assert "\x07" not in text and "⟨U+0007⟩" in text


def test_every_picture_is_well_formed(page: Path):
    pictures = re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL)
    assert len(pictures) > 20
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root.get("aria-label")
        assert "nan" not in picture


def test_the_chain_stands_apart_from_the_answer(page: Path):
    text = page.read_text()
    assert "thinks</span>start 3 plus 4 makes 7 minus 2 makes 5" in text
    assert "<think>" not in text and "&lt;think&gt;" not in text


def test_the_verdict_compares_the_last_model_with_its_base(run: facts.Run):
    found = verdict(run)
    assert found.good
    assert "86.0 %" in found.headline and "41.0 %" in found.headline
    assert "points" in found.detail


def test_a_failed_run_says_where_and_why(tmp_path: Path):
    summary = made_up_run.write(tmp_path)
    stages = tuple(
        stage.model_copy(update={"status": "failed", "error": "the loss at step 3 is nan: lower learning_rate"})
        if stage.name == "reason"
        else stage
        for stage in summary.stages
    )
    broken = summary.model_copy(update={"status": "failed", "stages": stages})
    found = verdict(facts.read_run(tmp_path, broken))
    assert not found.good
    assert "Reasoning RL" in found.headline and "lower learning_rate" in found.detail
    assert "lower learning_rate" in write_report(tmp_path, broken).read_text()


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "finished"])
def test_a_run_that_made_nothing_has_a_report_too(tmp_path: Path, status: str):
    summary = made_up_run.summary().model_copy(update={"stages": (), "status": status})
    text = write_report(tmp_path, summary).read_text()
    assert "Stages" in text and "Lineage" not in text


def test_an_older_report_is_replaced_whole(tmp_path: Path):
    summary = made_up_run.write(tmp_path)
    (tmp_path / "report.html").write_text("old")
    assert write_report(tmp_path, summary).read_text() != "old"
    assert not list(tmp_path.glob(".report*"))


def test_a_reward_model_that_learned_length_is_called_out(run: facts.Run):
    found = [finding.words for finding in findings(run) if "helpful" in finding.where]
    assert any("the length of the responses alone predicts 96.0 %" in text for text in found)
    assert any("higher in 97.0 %" in text and "prefer it in 80.0 %: it is biased by length" in text for text in found)
    assert any("only 30 %" in text for text in found)
    assert not [finding for finding in findings(run) if "harmless" in finding.where]


def test_the_calibration_of_each_reward_model_is_drawn_with_its_counts(page: Path):
    text = page.read_text()
    for kind, predicted in (("helpful", "the first response preferred"), ("harmless", "the response harmless")):
        (drawn,) = re.findall(rf"<svg[^>]*Calibration of the {kind} reward model.*?</svg>", text, re.DOTALL)
        notes = re.findall(r"<title>(.*?)</title>", drawn)
        counts = [int(note.partition(" prediction")[0]) for note in dict.fromkeys(notes)]
        assert sum(counts) == 7 and drawn.count("<circle") == len(counts) and f"{kind}: {predicted}" in text
        assert "3 predictions of 94.7 %: 100.0 % came true, 95 % interval 43.9–100.0" in notes
    assert "calibration error 3.0 %" in text and "calibration error 5.0 %" in text


def test_a_model_that_lost_to_the_one_before_is_called_out(run: facts.Run):
    swapped = {**run.evaluations, "r1": run.evaluations["base"], "dev3": run.evaluations["r1"]}
    worse = facts.Run(run.summary, run.stages, swapped, None, {}, "")
    assert [f for f in findings(worse) if f.serious and f.where == "R1 is below Dev3"]


def test_a_training_that_rang_the_alarm_is_called_out(run: facts.Run):
    rang = {
        "reward_hacking": 1.0, "reward_hacking_step": 22.0, "first_guard_accuracy": 0.7, "last_guard_accuracy": 0.3,
        "first_guard_preference": 0.4, "last_guard_preference": 0.9,
    }  # fmt: skip
    for metrics, where in ((rang, ["Preference RL hacks its reward models"]), ({**rang, "reward_hacking": 0.0}, [])):
        stages = [
            stage.model_copy(update={"metrics": metrics}) if stage.name == "prefer" else stage for stage in run.stages
        ]
        found = [f for f in findings(dataclasses.replace(run, stages=stages)) if "hacks" in f.where]
        assert [f.where for f in found] == where and all(
            f.serious and "from 70.0 % to 30.0 %" in f.words for f in found
        )


def test_a_stage_that_went_on_elsewhere_is_called_out(run: facts.Run):
    stages = [
        stage.model_copy(
            update={"metrics": {**stage.metrics, "pretrain_resumed_elsewhere": float(stage.name == "zero")}}
        )
        for stage in run.stages
    ]
    found = findings(dataclasses.replace(run, stages=stages))
    assert [f.where for f in found if "not claimed to be bit-exact" in f.words] == ["R1-Zero"]


def test_every_figure_of_rl_has_a_title():
    from r1kit.guard import Guard, Measurement
    from r1kit.update import METRICS
    from r1kit.watch import WatchConfig

    measured = Guard(first=Measurement(step=0, accuracy=(1.0,), preference=(0.5,))).metrics()
    expected = {*METRICS, *measured, *(f"watch_{sign}" for sign in WatchConfig().limits)} - {"tokens"}
    assert expected <= set(_CURVES)


def test_a_torn_line_and_a_repeated_step_are_forgiven(tmp_path: Path):
    lines = [
        {"stage": "zero", "step": step, "metrics": {"reward": value}} for step, value in ((1, 1.0), (2, 2.0), (1, 5.0))
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n[1]\n{"stage": "zero", "step": 3, "metr'
    (tmp_path / "metrics.jsonl").write_text(text)
    (curve,) = facts.read_curves(tmp_path / "metrics.jsonl")["zero"]
    assert list(curve.points) == [(1.0, 5.0), (2.0, 2.0)]


def test_ten_thousand_steps_make_a_small_picture():
    points = [(float(step), (step % 7) / 7) for step in range(10_400)]
    assert len(charts.line_chart(points, "a long training")) < 30_000
    thinned = charts.thin(points, 300)
    assert (thinned[0][0], thinned[-1][0]) == (0.0, 10_399.0)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-2.0, 5.0], [1e-7, 2e-7], [0.98, 1.0], [12_345.0, 99_999.0]])
def test_an_axis_holds_its_values_between_round_ticks(values: list[float]):
    low, high, ticks = charts.scale(values)
    assert low <= min(values) and max(values) <= high
    assert low < high and 2 <= len(ticks) <= 6


def test_a_chain_that_was_cut_is_still_a_chain():
    assert words.apart("<think> 3 plus 4 makes") == ("3 plus 4 makes", "")
    assert words.apart("3 plus 4 makes", opens_think=True) == ("3 plus 4 makes", "")
    assert words.apart("<think> a </think> <answer> 7 </answer>") == ("a", "7")
    assert words.apart("7") == ("", "7")


def test_long_text_is_cut_and_says_so():
    assert words.visible("a" * 7000).endswith("[1,000 more characters]")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed to open the report with")
def test_a_browser_draws_it_and_runs_nothing_in_it(page: Path, tmp_path: Path):
    document = drawn(page, tmp_path)
    assert "<title>r1kit · tiny" in document and "<title>owned" not in document
