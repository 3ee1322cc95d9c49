"""Overlays, legends, charts and the report page."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from terrazzo.errors import UserError
from terrazzo.viz import (
    add_legend,
    colour_map,
    default_palette,
    error_map,
    fonts,
    legend,
    line_chart,
    overlay,
    side_by_side,
    write_report,
)
from terrazzo.viz.chart import COLOURS
from terrazzo.viz.matrix import matrix_picture
from terrazzo.viz.report import data_uri

PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
CLASSES = ["road", "sky", "tree"]


@pytest.fixture
def image() -> np.ndarray:
    return np.full((4, 6, 3), 100, np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((4, 6), np.uint8)
    labels[:2] = 1
    labels[3, 5] = 255
    return labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_colour_map_uses_the_palette_and_black_for_ignored(labels, dtype):
    colours = colour_map(labels.astype(dtype), PALETTE)
    assert colours.shape == (4, 6, 3) and colours.dtype == np.uint8
    assert tuple(colours[0, 0]) == PALETTE[1] and tuple(colours[2, 0]) == PALETTE[0]
    assert tuple(colours[3, 5]) == (0, 0, 0)


def test_overlay_mixes_by_opacity_and_leaves_ignored_pixels(image, labels):
    mixed = overlay(image, labels, PALETTE, opacity=0.25)
    assert tuple(mixed[2, 0]) == (125, 75, 75)
    assert tuple(mixed[3, 5]) == (100, 100, 100)
    np.testing.assert_array_equal(overlay(image, labels, PALETTE, opacity=0), image)
    np.testing.assert_array_equal(overlay(image, labels, PALETTE, opacity=1), colour_map(labels, PALETTE))
    assert image.max() == 100, "the image given is left alone"


def test_another_ignore_index(image, labels):
    np.testing.assert_array_equal(
        overlay(image, np.where(labels == 255, 9, labels), PALETTE, ignore_index=9)[3, 5], 100
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.full((4, 6), 3)}, "contains the value 3.*0 to 2"),
        ({"labels": np.full((4, 6), -1)}, "contains the value -1"),
        ({"labels": np.zeros((2, 6), int)}, "4x6.*2x6"),
        ({"opacity": 1.5}, "opacity is 1.5"),
    ],
)
def test_mistakes_are_named(image, labels, change, words):
    with pytest.raises(UserError, match=words):
        overlay(**{"image": image, "labels": labels, "palette": PALETTE, **change})


def test_error_map_marks_wrong_pixels(image, labels):
    prediction = labels.copy()
    prediction[0, 0], prediction[3, 5] = 2, 1
    for background in (None, image):
        errors = error_map(labels, prediction, background)
        red = (errors[..., 0] > 200) & (errors[..., 1] < 80)
        assert red.sum() == 1 and red[0, 0]
        assert tuple(errors[3, 5]) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 19, 150, 847])
def test_default_palette_is_distinct_and_stable(count):
    palette = default_palette(count)
    assert len(palette) == len(set(palette)) == count
    assert default_palette(1000)[:count] == palette
    lab = cv2.cvtColor(np.array([palette], np.float32) / 255, cv2.COLOR_RGB2Lab)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3 * np.eye(count)
    assert distance.min() > (5 if count > 150 else 12)


@pytest.mark.parametrize(("position", "axis"), [("right", 1), ("below", 0)])
def test_legend_shows_the_classes_that_are_present(position, axis):
    image, labels = np.full((96, 128, 3), 90, np.uint8), np.zeros((96, 128), np.uint8)
    labels[:40], labels[90:] = 2, 255
    together = add_legend(image, labels, CLASSES, PALETTE, position)
    assert together.shape[1 - axis] == image.shape[1 - axis] and together.shape[axis] > image.shape[axis]
    np.testing.assert_array_equal(together[:96, :128], image)
    seen = {tuple(colour) for colour in together.reshape(-1, 3).tolist()}
    assert {PALETTE[0], PALETTE[2]} <= seen and PALETTE[1] not in seen


@pytest.mark.parametrize("position", ["right", "below"])
def test_a_long_legend_takes_more_columns_or_rows(position):
    names = [f"class {index}" for index in range(60)]
    strip = legend(names, default_palette(60), 200, position)
    assert strip.shape[0 if position == "right" else 1] == 200
    seen = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()}
    assert set(default_palette(60)) <= seen


def test_side_by_side_brings_pictures_to_one_height(image):
    tall = np.zeros((8, 10), np.uint8)
    row = side_by_side([image, tall], gap=2)
    assert row.shape == (4, 6 + 2 + 5, 3)
    np.testing.assert_array_equal(row[:, :6], image)
    assert side_by_side([image, image], ["before", "after"]).shape[0] > 4
    with pytest.raises(UserError, match="2 pictures and 1 captions"):
        side_by_side([image, image], ["before"])


def texts_of(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def tooltips_of(svg: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}title")]


def markers_of(svg: str) -> list[tuple[float, float]]:
    """Where the markers of points are drawn."""
    found = re.findall(r'<g><title>.*?<use [^>]*x="([-\d.]+)" y="([-\d.]+)"', svg, re.DOTALL)
    return [(float(x), float(y)) for x, y in found]


def test_chart_has_labels_ticks_and_a_line_for_each_series():
    svg = line_chart({"a": [(0, 1.0), (100, 3.0)], "b": [(0, 2.0), (100, 0.5)]}, "Loss", "iteration", "loss")
    texts = texts_of(svg)
    assert {"Loss", "iteration", "loss", "a", "b"} <= set(texts)
    assert {"0", "20", "100"} <= set(texts) and {"0.5", "1", "3"} <= set(texts)
    assert tooltips_of(svg) == ["a: 1 at 0", "a: 3 at 100", "b: 2 at 0", "b: 0.5 at 100"]
    assert COLOURS[0] in svg and COLOURS[1] in svg and COLOURS[2] not in svg


def test_charts_take_the_colour_of_the_page_and_are_always_the_same():
    svg = line_chart({"a": [(0, 1), (5, 7)]}, "t", "x", "y")
    assert svg.startswith("<svg") and "currentColor" in svg
    assert set(re.findall(r"#[0-9a-f]{6}", svg)) == {COLOURS[0]}, "no colour but the line's"
    assert svg == line_chart({"a": [(0, 1), (5, 7)]}, "t", "x", "y")
    assert not re.search(r"<metadata|\d{4}-\d\d-\d\d", svg)


def test_lines_stay_inside_the_axes_and_run_upwards():
    svg = line_chart({"a": [(0, 1), (5, 7), (9, 10)]}, "t", "x", "y", width=400, height=300)
    spots = markers_of(svg)
    assert len(spots) == 3 and all(0 < x < 400 and 0 < y < 300 for x, y in spots)
    assert [x for x, _ in spots] == sorted(x for x, _ in spots)
    assert [y for _, y in spots] == sorted((y for _, y in spots), reverse=True)


def test_logarithmic_axis_spaces_factors_evenly():
    svg = line_chart({"lr": [(0, 1e-4), (1, 1e-3), (2, 1e-2), (3, 0.0)]}, "t", "x", "y", log=True)
    rows = [y for _, y in markers_of(svg)]
    assert len(rows) == 3 and rows[0] - rows[1] == pytest.approx(rows[1] - rows[2], abs=0.2)
    assert {"0.0001", "0.001", "0.01"} <= set(texts_of(svg))


@pytest.mark.parametrize(
    "points",
    [[], [(0, float("nan"))], [(3, 5.0)], [(0, 0.0), (1, 0.0)], [(0, -1e-9), (1, 1e9)], [(0, 1), (1, float("inf"))]],
)
@pytest.mark.parametrize("log", [False, True])
def test_charts_of_odd_series_are_still_drawn(points, log):
    svg = line_chart({"a": points}, "t", "x", "y", log=log)
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


def test_long_series_are_thinned_and_text_is_escaped():
    svg = line_chart({"<b>": [(x, x % 7) for x in range(50_000)]}, "a & b", "x", "y")
    assert len(svg) < 30_000
    assert {"<b>", "a & b"} <= set(texts_of(svg))


def test_a_legend_takes_further_rows():
    series = {f"a run with quite a long name {number}": [(0, 1.0), (1, 2.0)] for number in range(5)}
    svg = line_chart(series, "Loss", "step", "loss")
    spots = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>a run with', svg)
    assert len(spots) == 5 and len({y for _, y in spots}) == 3
    assert all(float(x) < 300 for x, _ in spots)


STRANGE = ["建筑", "طريق", "дорога", "$x_1$", '<b> & "c"', "_private", "\N{CACTUS}"]


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_drawn_without_a_warning():
    svg = line_chart({name: [(0, 1), (1, 2)] for name in STRANGE}, "图表 $^2$", "шаг", "損失")
    assert {*STRANGE, "图表 $^2$", "шаг", "損失"} <= set(texts_of(svg))
    assert f"{STRANGE[4]}: 2 at 1" in tooltips_of(svg)


@pytest.fixture
def one_font(tmp_path, monkeypatch) -> None:
    """The only font of the machine has a solid square for 天 and no other character."""
    builder = FontBuilder(1000, isTTF=True)
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0)), pen.lineTo((100, 800)), pen.lineTo((900, 800)), pen.lineTo((900, 0)), pen.closePath()
    builder.setupGlyphOrder([".notdef", "sky"])
    builder.setupCharacterMap({ord("天"): "sky"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "sky": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "sky": (1000, 100)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(), builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    monkeypatch.setattr(fonts, "installed", lambda: (tmp_path / "squares.ttf",))
    monkeypatch.setattr(fonts, "_told", [])
    fonts.font_for.cache_clear()
    yield
    fonts.font_for.cache_clear()


def dark(picture: np.ndarray) -> np.ndarray:
    return picture.astype(int).sum(-1) < 150


def test_a_character_is_drawn_in_a_font_that_has_it(one_font):
    square = dark(legend(["天"], [(255, 0, 0)], 40, size=20))
    assert square.sum() > 150, "the square of that font, not the frame of a missing character"
    assert dark(legend(["дорога é"], [(255, 0, 0)], 40, size=20)).any(), "in the bundled font"
    picture = matrix_picture(np.eye(2), ["天", "b"])
    assert dark(picture).sum() > dark(matrix_picture(np.eye(2), ["l", "b"])).sum() + 50


def test_a_name_that_no_font_has_is_shown_as_its_number_and_said_once(one_font):
    with pytest.warns(UserWarning, match="no font of this machine has the characters of 空, 树, so .*fonts-noto-cjk"):
        drawn = legend(["天", "空", "树"], PALETTE, 90)
    np.testing.assert_array_equal(drawn, legend(["天", "class 1", "class 2"], PALETTE, 90))


@pytest.mark.parametrize("size", [(32, 40), (64, 64), (8, 8), (20, 200), (512, 640)])
@pytest.mark.parametrize("position", ["right", "below"])
def test_a_legend_is_not_larger_than_its_picture(size, position):
    names = [f"a class of a long name {index}" for index in range(11)]
    labels = np.arange(size[0] * size[1]).reshape(size) % 11
    together = add_legend(np.zeros((*size, 3), np.uint8), labels, names, default_palette(11), position)
    assert together.shape[0] * together.shape[1] <= 2 * size[0] * size[1]
    assert together.shape[:2] != size or min(size) <= 64, "there is one where it fits"


@pytest.mark.parametrize("count", [2, 19, 150])
def test_a_matrix_as_a_picture(count):
    counts = np.eye(count)
    counts[0] = 0  # a class without pixels
    picture = matrix_picture(counts, [f"class {index}" for index in range(count)])
    height, width = picture.shape[:2]
    assert height > 18 * count and width > 18 * count
    dark = (picture.astype(int).sum(-1) < 250) & (picture[..., 2].astype(int) - picture[..., 0] > 60)
    rows, columns = np.nonzero(dark)
    assert np.corrcoef(rows, columns)[0, 1] > (0.95 if count > 2 else -1), "the diagonal runs down to the right"
    assert rows.mean() > height / 2 and columns.mean() > width / 2


class Page(HTMLParser):
    """Which tags, sources and texts a page has, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.sources, self.texts, self.tags = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_nothing_in_a_page_can_reorder_its_text(tmp_path):
    path = write_report(tmp_path / "r.html", "a\u202eb", table=[{"class": "x\u2066\x1b[31m", "IoU": 1.0}])
    assert {r"a\u202eb", r"x\u2066\u001b[31m"} <= set(Page(path.read_text(encoding="utf-8")).texts)


def test_long_names_are_shown_in_part(tmp_path, image, labels):
    names = ["road", "L" * 10_000, "sky"]
    palette = dict(zip(names, PALETTE, strict=True))
    rows = [{"class": name, "IoU": 1.0} for name in names]
    path = write_report(tmp_path / "r.html", "r", table=rows, pictures=[[("a", image)]], palette=palette)
    texts = Page(path.read_text(encoding="utf-8")).texts
    assert texts.count(f"{'L' * 50} ... {'L' * 50}") == 2 and max(map(len, texts)) < 5000, "the longest is the style"
    pictures = legend(names, PALETTE, 300), add_legend(image, labels, names, PALETTE), matrix_picture(np.eye(3), names)
    assert all(max(picture.shape) < 4000 for picture in pictures)


def test_report_holds_everything_itself_and_escapes(tmp_path, image, labels):
    path = write_report(
        tmp_path / "new" / "report.html",
        "Run <1>",
        summary=[("mIoU", "68.2 %"), ("model", "<script>alert(1)</script>")],
        curves=[line_chart({"loss": [(0, 1), (1, 2)]}, "Loss", "iteration", "loss")],
        table=[{"class": "road", "IoU": 91.234, "Acc": 99}, {"class": "a & b", "IoU": float("nan"), "Acc": None}],
        pictures=[[("image", image), ("label", colour_map(labels, PALETTE))], [("image", image)]],
        palette=dict(zip(CLASSES, PALETTE, strict=True)),
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("svg") == 1 and page.tags.count("img") == 3
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"url\((?!#)|@import", text), "nothing comes from outside the page"
    assert {"Run <1>", "<script>alert(1)</script>", "a & b", "91.23", "99.00", "–"} <= set(page.texts)
    assert "prefers-color-scheme: dark" in text


def test_an_empty_report_is_a_page(tmp_path):
    assert "Nothing yet" in Page(write_report(tmp_path / "r.html", "Nothing yet").read_text(encoding="utf-8")).texts


def test_pictures_with_flat_colours_are_embedded_exactly():
    labels = np.random.default_rng(0).integers(0, 3, (4, 6)).repeat(16, 0).repeat(16, 1)
    colours = colour_map(labels, PALETTE)
    kind, packed = data_uri(colours).split(";base64,")
    assert kind == "data:image/png"
    stored = cv2.imdecode(np.frombuffer(base64.b64decode(packed), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(stored[..., ::-1], colours)


def test_pictures_need_neither_torch_nor_matplotlib_before_one_is_drawn():
    code = "import sys; from terrazzo.viz import chart, curves, legend, line_chart, matrix, overlay, write_report; "
    code += "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
