"""Figures are drawn from what they are given, at any size, and the same as SVG and as PNG."""

import base64
import io
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from alexnet.checkpoint import arrays
from alexnet.data.statistics import Statistics
from alexnet.inference.load import load
from alexnet.model.zoo import build
from alexnet.report import figures
from alexnet.report.analysis import Example, Neighbour
from alexnet.report.history import Curve
from alexnet.report.kernels import first_kernels, grey_images

from .conftest import HOSTILE


def parse(svg):
    """The SVG element as XML."""
    return ElementTree.fromstring(str(svg).replace("<svg", '<svg xmlns:xlink="x"', 1))


def texts(svg):
    """All that is written in a drawing."""
    return [element.text for element in parse(svg).iter("text")]


def picture(svg):
    """The only picture in a drawing, as it is seen: matplotlib may store it upside down."""
    with Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", svg)[1]))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    return pixels[::-1] if "scale(1 -1)" in svg else pixels


def line(svg, key):
    """The points of a curve, from its path."""
    paths = [
        path.attrib["d"]
        for path in parse(svg).iter("path")
        if f"fill: none; stroke: var(--{key})" in path.get("style", "")
    ]
    return np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", max(paths, key=len)), float)


@pytest.mark.parametrize("points", [((1.0, 2.0),), ((0.0, 0.0), (5.0, 0.0)), ((0.0, 9.0), (1.0, 0.01), (300.0, 1e-6))])
def test_curves_are_well_formed_whatever_the_values(points):
    drops = ((1.0, 0.01), (1.1, 0.001))
    svg = figures.svg(figures.curves("<&>", "%", [Curve("train", "a <b>", points)], drops, points[-1][0]), "a")
    assert parse(svg).attrib["aria-label"].startswith("<&> over")
    assert "nan" not in svg and "inf" not in svg
    assert {"lr 0.01", "lr 0.001"} <= set(texts(svg))


def test_curves_place_their_values_to_scale():
    panel = figures.curves("Error", "%", [Curve("top1", "x", ((0.0, 0.0), (4.0, 20.0), (10.0, 50.0)))], (), 10.0)
    (x0, y0), (x1, y1), (x2, y2) = line(figures.svg(panel, "a"), "top1")
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.4)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(0.4)
    assert 0 < x0 < x2 < 72 * panel.width and 0 < y2 < y0 < 72 * panel.height


def test_an_error_axis_ends_at_100_percent():
    svg = figures.svg(figures.curves("Error", "%", [Curve("top1", "x", ((0.0, 99.9), (10.0, 99.8)))], (), 10.0), "a")
    assert "100" in texts(svg) and "120" not in texts(svg) and "125" not in texts(svg)


def test_the_legend_gives_the_newest_values():
    curve = Curve("top1", "validation", ((1.0, 40.0), (2.0, 1.25)))
    assert "validation 1.25\u202f%" in texts(figures.svg(figures.curves("Error", "%", [curve], (), 2.0), "a"))


def test_colours_are_the_pages_variables():
    svg = figures.svg(figures.confusion(np.array([[3, 0], [1, 2]]), ["a", "b"]), "a")
    assert {"var(--ink)", "var(--soft)", "var(--miss)", "var(--top1)", "var(--track)"} <= set(
        re.findall(r"var\S+\)", svg)
    )
    assert not re.search("#[0-9a-f]{6}", svg)
    assert figures.COLOURS["ink"] == "#1d1b18"  # those of the light


def test_equal_panels_give_equal_bytes(tmp_path):
    panel = figures.confusion(np.eye(20, dtype=np.int64), [f"class {i}" for i in range(20)])
    assert figures.svg(panel, "a") == figures.svg(panel, "a")
    for name in ("a.png", "b.png"):
        figures.save_png(tmp_path / name, [panel, panel], 2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_identifiers_are_a_panels_own():
    curve = Curve("top1", "x", ((0.0, 1.0), (1.0, 2.0)))
    pages = [figures.svg(figures.curves("Error", "%", [curve], (), 1.0), name) for name in "ab"]
    first, second = (set(re.findall(r'id="(\w+)"', page)) for page in pages)
    assert first and not first & second
    assert set(re.findall(r"#(\w+)", pages[0])) == first


def test_hostile_names_are_text():
    name = HOSTILE[0] + HOSTILE[1][:4]
    svg = figures.svg(figures.confusion(np.eye(2, dtype=np.int64), [name[:13], "b"]), "a")
    assert name[:13] in texts(svg) and "<script" not in svg
    example = Example(np.zeros((8, 8, 3), np.uint8), "x", 0, (0, 1), (0.75, 0.25), True)
    svg = figures.svg(figures.prediction(example, HOSTILE), "a")
    assert parse(svg).attrib["aria-label"] == f"Image of {HOSTILE[0]}, right"
    assert "<script" not in svg and "<img" not in svg


def test_a_prediction_has_its_labels_and_probabilities():
    example = Example(np.zeros((8, 8, 3), np.uint8), "x", 2, (1, 2), (0.75, 0.25), True)
    svg = figures.svg(figures.prediction(example, ["a", "b", "c"]), "a")
    assert sorted(texts(svg)) == ["25", "75", "b", "c", "c", "✗"]
    assert "var(--miss-bar)" in svg and "var(--hit-bar)" in svg


def test_neighbours_of_another_class_are_red():
    image = np.zeros((8, 8, 3), np.uint8)
    near = tuple(Neighbour(image, "x", label, 1.0) for label in (0, 0, 1, 0))
    svg = figures.svg(figures.neighbours(Example(image, "x", 0, (0,), (1.0,), True, near), ["a", "b"]), "a")
    red = [element.text for element in parse(svg).iter("text") if "var(--miss)" in element.attrib["style"]]
    assert red == ["b"] and texts(svg).count("a") == 4
    assert len(re.findall("data:image", svg)) == 5


def test_photographs_are_embedded_as_jpeg_and_small_pictures_with_their_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    small = np.zeros((2, 2, 3), np.uint8)
    small[0, 0] = 250
    for pixels, kind in ((noise, "jpeg"), (small, "png")):
        svg = figures.svg(figures.prediction(Example(pixels, "x", 0, (0,), (1.0,), True), ["a"]), "a")
        assert re.findall(r"data:image/(\w+)", svg) == [kind]
    shown = picture(svg)[..., :3]
    assert set(np.unique(shown)) == {0, 250}  # not blurred
    assert shown[0, 0, 0] == shown[len(shown) // 3, 0, 0] == 250


def kernels_of(trained):
    return first_kernels(trained.network, trained.weights, grey=False)


def test_kernels_are_divided_into_columns(trained):
    predictor = load(trained.path)
    kernels = kernels_of(predictor.trained)
    assert [column.shape for column in kernels.columns] == [(16, 5, 5, 3)] * 2
    weights = predictor.trained.weights["conv1.weight"][17].transpose(1, 2, 0)
    pixels = np.rint(127.5 + 127.5 * weights / np.abs(weights).max())
    np.testing.assert_array_equal(kernels.columns[1][1], pixels)


def test_kernels_are_drawn_column_by_column(trained):
    panels = figures.kernels(kernels_of(load(trained.path).trained))
    assert [panel.about for panel in panels] == [f"Column {i}: 16 kernels of 5 by 5 weights" for i in (1, 2)]
    svg = figures.svg(panels[1], "a")
    assert "Column 2" in texts(svg) and any("% colour" in text for text in texts(svg))


def test_every_kernel_uses_its_whole_range(trained):
    for column in kernels_of(load(trained.path).trained).columns:
        assert all(kernel.max() == 255 or kernel.min() == 0 for kernel in column)


def test_the_share_of_colour_of_random_weights_is_two_thirds(trained):
    weights = arrays(build(trained.config.network, seed=1).state_dict())
    assert first_kernels(trained.config.network, weights, grey=False).colour == pytest.approx([200 / 3, 200 / 3], abs=4)


def test_grey_kernels_have_no_colour(trained):
    weights = load(trained.path).trained.weights
    weights["conv1.weight"][:, 1:] = weights["conv1.weight"][:, :1]
    assert first_kernels(trained.config.network, weights, grey=False).colour == pytest.approx([0, 0], abs=1e-4)
    assert first_kernels(trained.config.network, weights, grey=True).colour is None


def test_coloured_pictures_are_not_taken_for_grey(trained):
    assert not grey_images(Statistics.load(trained.statistics_file))


@pytest.mark.parametrize("count", [2, 10, 30, 200])
def test_a_confusion_matrix_is_drawn_at_any_number_of_classes(count, tmp_path):
    counts = np.random.default_rng(0).integers(1, 50, (count, count))
    panel = figures.confusion(counts, [f"class {i}" for i in range(count)])
    figures.save_png(tmp_path / "confusion.png", [panel], 1)
    with Image.open(tmp_path / "confusion.png") as image:
        assert min(image.size) > 700
    words = texts(figures.svg(panel, "a"))
    assert words.count("class 1") == (2 if count <= 30 else 0)
    assert len(set(map(str, counts.flat)) - set(words)) == 0 or count > 12


def test_an_image_of_confusions_shades_them_up_to_the_largest():
    counts = np.diag(np.full(20, 90))
    counts[3, 5] = 10
    svg = figures.svg(figures.confusion(counts, list(map(str, range(20)))), "a")
    pixels = picture(svg)
    middles = ((np.arange(20) + 0.5) * len(pixels) / 20).astype(int)
    cells = pixels[middles][:, middles]
    assert cells[3, 5].tolist() == [0xB8, 0x37, 0x2B, 255]
    assert (cells[..., 3] > 0).sum() == 21
    assert cells[0, 0].tolist() == [0x1F, 0x5F, 0xA8, 255]


def test_names_the_font_lacks_and_mathematics_are_drawn_in_silence(tmp_path):
    panel = figures.confusion(np.eye(2, dtype=np.int64), ["犬", r"$\frac{$"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save_png(tmp_path / "confusion.png", [panel], 1)
        svg = figures.svg(panel, "a")
    assert {"犬", r"$\frac{$"} <= set(texts(svg))


def test_long_names_are_cut_and_wide_characters_count_twice():
    assert figures._fit("abcdef", 6) == "abcdef"
    assert figures._fit("abcdefg", 6) == "abcde…"
    assert figures._fit("犬猫鳥魚", 6) == "犬猫…"
    assert figures._fit("", 6) == ""


def test_the_figures_leave_matplotlibs_global_state_alone(tmp_path):
    import matplotlib

    before = matplotlib.rcParams["svg.fonttype"]
    figures.save_png(tmp_path / "confusion.png", [figures.confusion(np.eye(2, dtype=np.int64), ["a", "b"])], 1)
    assert "matplotlib.pyplot" not in sys.modules
    assert matplotlib.rcParams["svg.fonttype"] == before
