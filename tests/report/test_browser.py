"""The report as a reader meets it: it renders, clouds turn, nothing complains or calls out."""

import numpy as np
import pytest

from pcequi.report import write_report


@pytest.fixture
def opened(finished, tmp_path, browser):
    if browser.find_browser() is None:
        pytest.skip("no Chromium is installed: `make test-browser` installs it")
    path = write_report(finished)
    with browser.Browser(tmp_path / "profile") as page:
        page.open(path)
        page.value("document.querySelector('canvas').scrollIntoView({block: 'center'})")
        yield page


def axes(page):
    return np.array(page.value("document.querySelector('canvas').dataset.axes").split(), float)


def pixels(page):
    return page.value("document.querySelector('canvas').toDataURL()")


def middle(page):
    place = "document.querySelector('canvas').getBoundingClientRect()"
    box = page.value(f"(({{x, y, width, height}}) => [x, y, width, height])({place})")
    assert box[2] > 150 and box[2] == pytest.approx(box[3], abs=1)
    return box[0] + box[2] / 2, box[1] + box[3] / 2


@pytest.mark.browser
def test_it_renders_and_turns(opened, finished):
    assert "77.78 %" in opened.value("document.title")
    drawn = "[...document.querySelectorAll('canvas')].filter(c => c.dataset.axes).length"
    assert opened.value(drawn) == 9
    # Points are drawn: many pixels are not transparent.
    pen = "document.querySelector('canvas').getContext('2d')"
    count = f"{pen}.getImageData(0, 0, 150, 150).data.filter((v, i) => i % 4 == 3 && v > 0).length"
    assert opened.value(count) > 500

    first, picture, (x, y) = axes(opened), pixels(opened), middle(opened)
    opened.drag((x, y), (x + 60, y))
    second = axes(opened)
    assert np.abs(second - first).max() > 0.2 and pixels(opened) != picture
    opened.drag((x, y), (x, y - 60))
    third = axes(opened)
    assert np.abs(third - second).max() > 0.2
    for seen in (first, second, third):
        right, down, toward = seen.reshape(3, 3)
        # A rotation, never a mirror image.
        assert np.allclose(np.cross(right, -down), toward, atol=5e-3)
    # Other shapes stay; nothing turns once the button is up.
    last = "document.querySelectorAll('canvas')[8].dataset.axes"
    assert np.allclose(np.array(opened.value(last).split(), float), first)
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 30, y=y)
    assert np.array_equal(axes(opened), third)

    opened.value("document.querySelector('canvas').dispatchEvent(new MouseEvent('dblclick'))")
    assert np.array_equal(axes(opened), first) and pixels(opened) == picture
    key = "new KeyboardEvent('keydown', {key: 'ArrowLeft', cancelable: true})"
    opened.value(f"document.querySelector('canvas').dispatchEvent({key})")
    assert np.abs(axes(opened) - first).max() > 0.1

    assert opened.complaints() == []
    assert opened.requests() == [(finished / "report.html").as_uri()]


@pytest.mark.browser
def test_a_drag_moves_the_near_side_with_the_pointer(opened):
    before, (x, y) = axes(opened).reshape(3, 3), middle(opened)
    near = before[2]  # the point of the unit ball nearest to the viewer
    opened.drag((x, y), (x + 40, y + 20))
    right, down, _ = axes(opened).reshape(3, 3)
    assert near @ right > 0.2 and near @ down > 0.1


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 500, 1600])
def test_it_fits_narrow_and_wide_windows(opened, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    assert opened.value("document.documentElement.scrollWidth") <= width
    # What is wider than the window lies in a box that scrolls to its end.
    cut = """[...document.querySelectorAll("table")].filter(table => {
        const box = table.parentElement;
        box.scrollLeft = 1e6;
        return table.getBoundingClientRect().right > box.getBoundingClientRect().right + 1;
    }).length"""
    assert opened.value("document.querySelectorAll('div.wide > table').length") >= 5
    assert opened.value(cut) == 0
    wider = "[...document.querySelectorAll('div.wide')].some(box => box.scrollLeft > 0)"
    assert opened.value(wider) == (width < 600)
