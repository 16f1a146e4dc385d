"""Words on a picture stay inside it."""

import numpy as np
import pytest
from PIL import Image

from pcequi.viz import CloudPart, Scene
from pcequi.viz.annotate import _font, annotate

LEGEND = "representative 3 (red) and the points that share its output (orange); axes: their frames"


def blank(folder, size):
    file = folder / "drawn.png"
    Image.new("RGB", (size, size), "white").save(file)
    return file


def scene_of(titles, legend="", scale=("", "")):
    place, white = np.zeros((1, 3)), np.ones((1, 3))
    return Scene([CloudPart(place, white, title=title) for title in titles], legend, scale)


def written(picture):
    """Where there is dark text [height, width]."""
    return (np.asarray(picture) < 200).all(2)


@pytest.mark.parametrize("scale", [("", ""), ("-0.03", "0.03")])
def test_a_long_line_is_written_smaller(tmp_path, scale):
    file, images = blank(tmp_path, 640), []
    for legend in ("short", "a legend of many words " * 4):
        (picture,) = annotate(scene_of([legend], legend, scale), [file], 320)
        images.append(np.asarray(picture))
        assert picture.width == 320 and picture.height > 320
        # A margin of white on both sides: nothing is cut off.
        assert (images[-1][:, [0, -1]] == 255).all()
    short, long = (written(image[320:]).any(0).sum() for image in images)
    assert long > short > 0
    assert (images[0][:320] == 255).all()


@pytest.mark.parametrize("scale", [("", ""), ("against", "for")])
@pytest.mark.parametrize("size", [80, 120, 200, 360, 500, 640, 1000])
def test_a_legend_fits_at_any_size(tmp_path, size, scale):
    (picture,) = annotate(scene_of(["a title"], LEGEND, scale), [blank(tmp_path, size)], size)
    image = np.asarray(picture)
    assert (image[:, [0, -1]] == 255).all(), "nothing is cut off"
    if size >= 360:  # of a readable height: a capital letter has about 0.7 of the font's size
        columns = written(picture)[size:].any(1)
        runs = np.diff(np.flatnonzero(np.diff(np.r_[False, columns, False].astype(int))))[::2]
        assert runs.min() >= 7


def test_a_long_legend_takes_further_lines(tmp_path):
    heights = []
    for legend in ("short", LEGEND, f"{LEGEND}; {LEGEND}"):
        (picture,) = annotate(scene_of([""], legend), [blank(tmp_path, 360)], 360)
        heights.append(picture.height)
    line = heights[1] - heights[0]
    assert 0 < line < 40 and heights[2] > heights[1]
    # Lines of about one length.
    (picture,) = annotate(scene_of([""], LEGEND), [blank(tmp_path, 360)], 360)
    words = written(picture)[360:]
    spans = [np.ptp(np.flatnonzero(half.any(0))) for half in np.array_split(words[4:-4], 2)]
    assert max(spans) < 1.3 * min(spans)


def test_titles_stand_under_their_clouds(tmp_path):
    files, size = [], 100
    for number in range(5):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (200, 200), (40 * number, 0, 90)).save(files[-1])
    (picture,) = annotate(scene_of(["a title"] * 5, "legend"), files, size)
    image, text = np.asarray(picture), written(picture)
    assert picture.width == 3 * size
    high = np.flatnonzero((image[:, 50] == [120, 0, 90]).all(1))[0]  # the second row begins
    for number in range(5):
        x, y = size * (number % 3), high * (number // 3)
        assert (image[y : y + size, x : x + size] == [40 * number, 0, 90]).all()
        below = np.flatnonzero(text[y + size : y + high, x : x + size].any(0))
        assert abs((below[0] + below[-1] + 1) / 2 - size / 2) <= 2
    assert not text[high : 2 * high, 2 * size :].any(), "there is no sixth"


def test_every_frame_has_its_own_clouds(tmp_path):
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (80, 80), (40 * number, 0, 90)).save(files[-1])
    pictures = annotate(scene_of(["", ""]), files, 40)
    found = [[picture.getpixel((x, 20))[0] for x in (20, 60)] for picture in pictures]
    assert found == [[0, 40], [80, 120], [160, 200]]


def test_letters_of_other_alphabets_are_drawn():
    # Where a font lacks them, both are the same box.
    for one, other in ("чй", "åö", "λπ"):
        assert bytes(_font(18).getmask(one)) != bytes(_font(18).getmask(other))


@pytest.mark.parametrize("title", ["two\nlines\tof text", "not \udcff unicode", "x" * 300, " "])
def test_file_names_may_hold_anything(tmp_path, title):
    (picture,) = annotate(scene_of([title]), [blank(tmp_path, 120)], 120)
    assert (np.asarray(picture)[:, [0, -1]] == 255).all()
    assert written(picture).any() == bool(title.strip())
