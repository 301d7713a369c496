"""The report is one page that needs nothing else, escapes what it is given and leaves out what is not there yet."""

import json
import re
import shutil
from html import escape
from html.parser import HTMLParser

import pytest
from PIL import Image

from alexnet.inference.evaluate import evaluate
from alexnet.progress import Progress
from alexnet.report.report import command, write_report
from alexnet.report.sections import class_names
from alexnet.run import Run

from .conftest import HOSTILE

FIGURES = ["confusion.png", "curves.png", "kernels.png", "nearest.png", "predictions.png"]
VOID = {"meta", "img", "br", "hr", "line", "polyline", "circle"}


class Page(HTMLParser):
    """The tags, attributes and texts of a page; complains of tags that do not pair."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


@pytest.fixture(scope="module")
def text(trained):
    return write_report(trained).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_asks_for_nothing_from_elsewhere(text, page):
    assert not re.search(r"https?://|//[a-z]+\.", text)
    assert "@import" not in text and "url(" not in text
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()


def test_its_policy_forbids_scripts(page):
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_hostile_class_names_are_shown_as_text(text, page):
    for name in HOSTILE[:2]:
        assert name not in text
        assert escape(name) in text
        assert name in page.texts
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_a_name_cannot_turn_the_text_around_it(text):
    assert "\u202e" not in text


def test_class_names_lose_what_cannot_be_seen_and_identifiers_that_say_nothing():
    assert class_names(["n01440764 tench", "n01443537 goldfish"]) == ["tench", "goldfish"]
    assert class_names(["n01440764 crane", "n01443537 crane"]) == ["n01440764 crane", "n01443537 crane"]
    assert class_names(["n01440764", "n01443537"]) == ["n01440764", "n01443537"]
    assert class_names(["a\u202eb\x00", "1\u202f% ‰"]) == ["a\ufffdb\ufffd", "1\u202f% ‰"]


def test_every_picture_has_an_alternative_text(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert all("alt" in attrs for attrs in pictures)
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") == "img")


def test_small_pictures_keep_their_pixels(page):
    photos = [attrs for tag, attrs in page.tags if tag == "img" and attrs.get("width") == "20"]
    assert photos and all(attrs["class"] == "pixels" for attrs in photos)


def test_the_drops_of_the_rate_are_marked(text):
    assert text.count('class="drop"') == 4
    assert "ε 0.0005" in text and "ε 5e-05" in text


def test_it_gives_the_errors_that_evaluate_measures(trained, text):
    result = evaluate(trained.path).to_json()
    assert f"{result['top1_error']:.2f}\u202f%" in text
    assert "Test error" in text
    assert f"of {result['count']} wrong" in text


def test_recorded_ten_view_errors_are_shown(trained, tmp_path):
    run = Run(shutil.copytree(trained.path, tmp_path / "run"))
    run.record_evaluation(evaluate(run.path, views=10).to_json())
    assert "Test error, 10 views" in write_report(run).read_text(encoding="utf-8")


def test_every_figure_is_a_picture_too(trained, text):
    assert sorted(path.name for path in trained.figures.iterdir()) == FIGURES
    for name in FIGURES:
        with Image.open(trained.figures / name) as image:
            assert min(image.size) >= 200


def test_the_summary_is_part_of_it(page):
    assert "conv1" in page.texts and "fc5" in page.texts
    assert any("197,380 parameters" in text for text in page.texts)


def test_changed_settings_and_the_command_are_given(trained, text):
    words = [word for part in command(trained) for word in part]
    assert words[:4] == ["alexnet", "train", "--preset", "digits"]
    assert words[words.index("--schedule.milestones") + 1] == "1,2"
    assert "--train.log_every" in words and "--optimizer.lr" not in words
    assert "preset: plateau" in text


def test_a_run_that_was_not_validated_has_a_report(unvalidated):
    text = write_report(unvalidated).read_text(encoding="utf-8")
    page = Page(text)
    assert "\ufffd" not in text.replace("\ufffdgnp", "")
    assert any("The run was not validated yet" in part for part in page.texts)
    assert any("trained for 1 step on" in part for part in page.texts)
    assert "Training loss" in text and "<b>short" not in text and "<b>short" in page.texts


def test_a_run_without_checkpoint_leaves_the_pictures_out(trained, tmp_path):
    path = shutil.copytree(trained.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "figures"))
    text = write_report(Run(path)).read_text(encoding="utf-8")
    Page(text)
    assert text.count("The network is not saved yet") == 3
    assert [figure.name for figure in (path / "figures").iterdir()] == ["curves.png"]


def test_a_run_whose_images_are_gone_says_so(trained, tmp_path):
    path = shutil.copytree(trained.path, tmp_path / "run")
    config = json.loads((path / "config.json").read_text())
    config["data"]["source"] = str(tmp_path / "nowhere")
    (path / "config.json").write_text(json.dumps(config))
    told = Told()
    text = write_report(Run(path), told).read_text(encoding="utf-8")
    assert text.count("The images cannot be read") == 3 and "Column 2" in text
    assert len(told.warnings) == 1


def test_a_run_without_metrics_has_a_report(trained, tmp_path):
    path = shutil.copytree(trained.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (path / "metrics.jsonl").unlink()
    assert "logged nothing yet" in write_report(Run(path)).read_text(encoding="utf-8")


class Told(Progress):
    """Keeps the warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)
