"""Words on a picture stay inside it."""

import numpy as np
import pytest
from PIL import Image

from pcequi.viz import CloudPart, Scene
from pcequi.viz.annotate import annotate


@pytest.mark.parametrize("scale", [("", ""), ("-0.03", "0.03")])
def test_a_long_line_is_written_smaller(tmp_path, scale):
    file = tmp_path / "drawn.png"
    Image.new("RGB", (640, 640), "white").save(file)
    images = []
    for legend in ("short", "a legend of many words " * 4):
        part = CloudPart(np.zeros((1, 3)), np.ones((1, 3)), title=legend)
        (picture,) = annotate(Scene([part], legend, scale), [file], 320)
        images.append(np.asarray(picture))
        assert picture.width == 320 and picture.height > 320
        # A margin of white on both sides: nothing is cut off.
        assert (images[-1][:, [0, -1]] == 255).all()
    written = [(image[320:] < 200).all(2).any(0).sum() for image in images]
    assert written[1] > written[0] > 0
    assert (images[0][:320] == 255).all()
