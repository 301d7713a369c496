"""Curves, charts, kernels and confusions are drawn from what they are given, at any size."""

import base64
import dataclasses
import io
import json
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.inference.load import load
from alexnet.model.zoo import build
from alexnet.report import charts, figures
from alexnet.report.history import Curve, read_history, training_seconds
from alexnet.report.kernels import first_kernels, grey_images
from alexnet.run import Run


def test_history_has_the_runs_drops_and_curves(trained):
    history = read_history(trained)
    assert history.drops == ((1.0, 0.0005), (2.0, 0.00005))
    assert [curve.key for curve in history.errors] == ["train", "top1"]
    assert [epoch for epoch, _ in history.errors[1].points] == [1.0, 2.0, 3.0]
    assert history.epochs == 3
    assert history.best["top1_error"] == min(line["top1_error"] for line in trained.metrics("validation"))


def test_a_run_cut_short_is_a_part_of_an_epoch(unvalidated):
    history = read_history(unvalidated)
    assert history.epochs == pytest.approx(1 / 3)
    assert history.best is None


def test_seconds_are_those_the_epochs_record(trained):
    seconds, estimated = training_seconds(trained)
    assert not estimated
    assert seconds == pytest.approx(sum(line["seconds"] for line in trained.metrics("epoch")))


def test_seconds_without_record_are_estimated(trained, tmp_path):
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in trained.metrics()]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_bytes((trained.path / "config.json").read_bytes())
    seconds, estimated = training_seconds(Run.open(tmp_path))
    assert estimated and seconds > 0


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("points", [((1.0, 2.0),), ((0.0, 0.0), (5.0, 0.0)), ((0.0, 9.0), (1.0, 0.01), (300.0, 1e-6))])
def test_a_chart_is_well_formed_whatever_the_values(points, log):
    svg = charts.curves([Curve("train", "a <b>", points)], ((1.0, 0.01), (1.1, 0.001)), points[-1][0], "%", "<&>", log)
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "<&>"
    assert len(root.findall(".//polyline")) == 1
    assert "nan" not in svg and "inf" not in svg


def test_a_chart_places_its_values_to_scale():
    svg = charts.curves([Curve("top1", "x", ((0.0, 0.0), (10.0, 100.0)))], (), 10.0, "%", "")
    first, last = ElementTree.fromstring(svg).find(".//polyline").attrib["points"].split()
    (x0, y0), (x1, y1) = (map(float, place.split(",")) for place in (first, last))
    assert (x0, y1) == (0, pytest.approx(0, abs=charts.HEIGHT * 0.2))
    assert y0 == pytest.approx(charts.HEIGHT - charts.TOP - charts.BOTTOM)
    assert x1 == pytest.approx(charts.WIDTH - charts.LEFT - charts.RIGHT)


def test_an_error_axis_ends_at_100_percent():
    svg = charts.curves([Curve("top1", "x", ((0.0, 99.9), (10.0, 99.8)))], (), 10.0, "%", "")
    texts = [text.text for text in ElementTree.fromstring(svg).findall("text")]
    assert "100" in texts and "120" not in texts and "125" not in texts


def test_kernels_are_divided_into_columns(trained):
    classifier = load(trained.path)
    kernels = first_kernels(classifier)
    assert [column.shape for column in kernels.columns] == [(16, 5, 5, 3)] * 2
    weights = classifier.model.conv1.weight[17].detach().numpy().transpose(1, 2, 0)
    pixels = np.rint(127.5 + 127.5 * weights / np.abs(weights).max())
    np.testing.assert_array_equal(kernels.columns[1][1], pixels)


def test_every_kernel_uses_its_whole_range(trained):
    for column in first_kernels(load(trained.path)).columns:
        assert all(kernel.max() == 255 or kernel.min() == 0 for kernel in column)


def test_the_share_of_colour_of_weights_drawn_by_chance_is_two_thirds(trained):
    classifier = load(trained.path)
    classifier.model = build(classifier.config.network, seed=1)
    assert first_kernels(classifier).colour == pytest.approx([200 / 3, 200 / 3], abs=4)


def test_grey_kernels_have_no_colour(trained):
    classifier = load(trained.path)
    with torch.no_grad():
        classifier.model.conv1.weight[:, 1:] = classifier.model.conv1.weight[:, :1]
    assert first_kernels(classifier).colour == pytest.approx([0, 0], abs=1e-4)


def test_coloured_pictures_are_not_taken_for_grey(trained):
    assert not grey_images(trained)


@pytest.mark.parametrize("count", [2, 10, 200])
def test_a_confusion_matrix_is_drawn_at_any_number_of_classes(count, tmp_path):
    counts = np.random.default_rng(0).integers(0, 50, (count, count))
    figures.draw_confusion(tmp_path / "confusion.png", counts, [f"class {i}" for i in range(count)])
    with Image.open(tmp_path / "confusion.png") as image:
        assert min(image.size) > 900


def test_a_table_of_confusions_has_a_cell_for_each_pair():
    table = ElementTree.fromstring(charts.confusion_table(np.array([[3, 0], [1, 2]]), ["<a>", "b"]))
    assert [[cell.text for cell in row.findall("td")] for row in table.find("tbody")] == [["3", None], ["1", "2"]]
    assert table.find("tbody/tr/th").text == "<a>"


def test_an_image_of_confusions_shades_them_up_to_the_largest():
    counts = np.diag(np.full(20, 90))
    counts[3, 5] = 10
    source = re.search(r"base64,([^\"]+)", charts.confusion_image(counts, "x")).group(1)
    with Image.open(io.BytesIO(base64.b64decode(source))) as image:
        pixels = np.asarray(image)[::40, ::40]
    assert pixels[3, 5].tolist() == [222, 84, 58, 255]
    assert (pixels[..., 3] > 0).sum() == 21


def test_names_the_font_lacks_and_mathematics_are_drawn_in_silence(trained, tmp_path):
    counts = np.eye(2, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.draw_confusion(tmp_path / "confusion.png", counts, ["犬", r"$\frac{$"])
    assert (tmp_path / "confusion.png").exists()


def test_the_figures_leave_matplotlibs_global_state_alone(trained, tmp_path):
    figures.draw_curves(tmp_path / "curves.png", dataclasses.replace(read_history(trained), drops=()))
    assert "matplotlib.pyplot" not in sys.modules
