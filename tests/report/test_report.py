"""The report is one page that needs nothing else, escapes what it is given and leaves out what is not there yet."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from markupsafe import escape
from PIL import Image

from alexnet.config import replace
from alexnet.errors import DataError
from alexnet.inference.evaluate import evaluate
from alexnet.presets import preset
from alexnet.report.report import class_names, command, write_report
from alexnet.run import Run
from tests.told import Told

from .conftest import HOSTILE

FIGURES = ["confusion.png", "curves.png", "kernels.png", "nearest.png", "predictions.png"]
VOID = {"meta", "img", "br", "hr"}


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
    assert not re.search(r"https?://|\s//[a-z]+\.", text)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    sources = [attrs["xlink:href"] for tag, attrs in page.tags if tag == "image"]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not any("src" in attrs for _, attrs in page.tags)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()


def test_its_policy_forbids_scripts(page):
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_hostile_class_names_are_shown_as_text(text, page):
    for name in HOSTILE[:2]:
        assert name not in text
        assert escape(name) in text
        shown = [*page.texts, *(value or "" for _, attrs in page.tags for value in attrs.values())]
        assert any(name in words for words in shown)
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_a_name_cannot_turn_the_text_around_it(text):
    assert "\u202e" not in text


def test_class_names_lose_what_cannot_be_seen_and_identifiers_that_say_nothing():
    assert class_names(["n01440764 tench", "n01443537 goldfish"]) == ["tench", "goldfish"]
    assert class_names(["n01440764 crane", "n01443537 crane"]) == ["n01440764 crane", "n01443537 crane"]
    assert class_names(["n01440764", "n01443537"]) == ["n01440764", "n01443537"]
    assert class_names(["a\u202eb\x00", "1\u202f% ‰"]) == ["a\ufffdb\ufffd", "1\u202f% ‰"]


def test_every_figure_has_an_alternative_text(page):
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)


def test_identifiers_are_unique(page):
    names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(names) == len(set(names))


def test_the_drops_of_the_learning_rate_are_marked(page):
    assert page.texts.count("lr 0.0005") == 2 and page.texts.count("lr 5e-05") == 2


def test_every_colour_of_the_figures_is_the_pages(text, page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert drawings.count("var(--ink)") > 50
    assert not re.search(r"(fill|stroke): #", drawings)


def test_the_same_run_gives_the_same_bytes(trained, text):
    before = {path.name: path.read_bytes() for path in trained.figures.iterdir()}
    assert write_report(trained).read_text(encoding="utf-8") == text
    assert {path.name: path.read_bytes() for path in trained.figures.iterdir()} == before


def test_it_gives_the_errors_that_evaluate_measures(trained, text):
    result = evaluate(trained.path).to_json()
    assert f"{result['top1_error']:.2f}\u202f%" in text
    assert "Test error" in text
    assert "chance 75.00\u202f%, always the most frequent class 75.00\u202f%" in text
    assert f"of {result['count']} wrong" in text


def test_evaluations_name_the_weights_that_were_measured(trained, tmp_path):
    run = Run(shutil.copytree(trained.path, tmp_path / "run"))
    entry = evaluate(run.path).to_json()
    run.record_evaluation(evaluate(run.path, views=10).to_json())
    model, other = entry["models"][0], {"step": 9, "sha256": "0a"}
    entries = [
        entry | {"models": [model | {"backend": "torch", "precision": "int8"}], "top1_error": 12.5},
        entry | {"models": [model], "top1_error": 0.25},
        entry | {"models": [model | other], "top1_error": 31.25},
        entry | {"data_changed": "15 test images, not 16", "top1_error": 43.75},
    ]
    with open(run.path / "evaluations.jsonl", "a") as file:
        file.write("".join(json.dumps(entry) + "\n" for entry in entries))
    text = write_report(run).read_text(encoding="utf-8")
    assert "16 images; best weights, torch, int8</small>" in text and "12.50\u202f%" in text
    assert "16 images; best weights of step 9, not those shown here, engine" in text and "31.25\u202f%" in text
    assert "changed since: 15 test images, not 16" in text and "43.75\u202f%" in text
    assert "Test error, 10 views" in text and "16 images; best weights, engine, float32</small>" in text
    assert "0.25\u202f%" not in text  # what the report measures itself


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


def test_the_command_removes_the_layers_that_the_run_lacks(tmp_path):
    run = Run.create(tmp_path / "run", replace(preset("digits"), {"network.norm1": "none", "network.norm2": "none"}))
    words = [word for part in command(run) for word in part]
    assert words[words.index("--network.norm1") + 1] == words[words.index("--network.norm2") + 1] == "none"


def test_the_command_of_a_network_that_no_preset_has_names_the_run(tmp_path):
    fine_tuned = dataclasses.replace(preset("fine-tune"), network=preset("tiny-64").network)
    run = Run.create(tmp_path / "run", dataclasses.replace(fine_tuned, data=preset("tiny-64").data))
    assert command(run)[1] == ["--config", str(tmp_path / "run")]


def test_a_run_that_was_not_validated_has_a_report(unvalidated):
    text = write_report(unvalidated).read_text(encoding="utf-8")
    page = Page(text)
    assert "\ufffd" not in text.replace("\ufffdgnp", "")
    assert any("The run has not been validated yet" in part for part in page.texts)
    assert any("trained for 1 step on" in part for part in page.texts)
    assert "Training loss" in text and "<b>short" not in text and "<b>short" in page.texts


def test_a_run_without_checkpoint_leaves_the_pictures_out(trained, tmp_path):
    path = shutil.copytree(trained.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "figures"))
    text = write_report(Run(path)).read_text(encoding="utf-8")
    Page(text)
    assert text.count("The network is not saved yet") == 3
    assert [figure.name for figure in (path / "figures").iterdir()] == ["curves.png"]


def test_a_run_in_training_says_so_and_its_report_can_be_renewed(trained, tmp_path):
    run = _changed(trained, tmp_path / "run", "train", epochs=30)
    shutil.rmtree(run.checkpoints)
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(lines[:2]) + lines[2][:20])  # a line being written
    with run.held():
        text = write_report(run).read_text(encoding="utf-8")
        assert "<em>epoch 1 of 30, still training</em>" in text
        (run.path / "metrics.jsonl").write_text("".join(lines))
        assert "<em>epoch 4 of 30, still training</em>" in write_report(run).read_text(encoding="utf-8")
    assert "<em>stopped after epoch 3 of 30</em>" in write_report(run).read_text(encoding="utf-8")
    assert not [path for path in run.path.rglob("*.part")]


def test_a_run_that_ended_says_nothing_of_it(text):
    assert "<em>" not in text


def test_a_run_whose_images_are_gone_says_so(trained, tmp_path):
    run = _changed(trained, tmp_path / "run", "data", source=str(tmp_path / "<i>nowhere"))
    source = json.loads((run.path / "source.json").read_text())
    (run.path / "source.json").write_text(json.dumps(source | {"path": str(tmp_path / "<i>nowhere")}))
    run.report_file.unlink(missing_ok=True)
    progress = Told()
    text = write_report(run, progress).read_text(encoding="utf-8")
    assert text.count("The images cannot be read") == 3 and "Column 2" in text
    assert "<i>nowhere" not in text and "&lt;i&gt;nowhere" in text
    assert len(progress.warnings) == 1


def test_a_report_with_images_is_not_replaced_by_one_without(trained, tmp_path):
    run = _changed(trained, tmp_path / "run", "data")
    page = write_report(run).read_bytes()
    pictures = {path: path.stat().st_mtime_ns for path in run.figures.iterdir()}
    source = json.loads((run.path / "source.json").read_text())
    (run.path / "source.json").write_text(json.dumps(source | {"path": str(tmp_path / "nowhere")}))
    with pytest.raises(DataError, match=r"report\.html shows images and is kept; .*--out: .*no longer at .*--data"):
        write_report(Run(run.path))
    out = write_report(Run(run.path), out=tmp_path / "poor.html")
    assert out == tmp_path / "poor.html" and "The images cannot be read" in out.read_text(encoding="utf-8")
    assert run.report_file.read_bytes() == page
    assert pictures == {path: path.stat().st_mtime_ns for path in run.figures.iterdir()}
    run.report_file.write_bytes(out.read_bytes())
    assert "The images cannot be read" in write_report(Run(run.path)).read_text(encoding="utf-8")


def test_a_run_without_metrics_has_a_report(trained, tmp_path):
    path = shutil.copytree(trained.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (path / "metrics.jsonl").unlink()
    assert "logged nothing yet" in write_report(Run(path)).read_text(encoding="utf-8")


def _changed(run, path, section, **changes):
    """A copy of a run with other settings in its config.json."""
    shutil.copytree(run.path, path)
    config = json.loads((path / "config.json").read_text())
    config[section] |= changes
    (path / "config.json").write_text(json.dumps(config))
    return Run.open(path)
