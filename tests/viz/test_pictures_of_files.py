"""``pcequi view`` draws every format that can be read, without a display: its pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from pcequi.cli import main
from pcequi.datasets.readers import READABLE
from pcequi.models import presets
from pcequi.training import save_checkpoint

pytestmark = pytest.mark.render
SIZE = 96


def write(path: Path, pos: np.ndarray) -> Path:
    """The same thin plate as a mesh or as a cloud, by the file's ending."""
    if path.suffix == ".npy":
        np.save(path, pos)
    elif path.suffix == ".npz":
        np.savez(path, pos=pos)
    elif path.suffix == ".pcd":
        fields = f"FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {len(pos)}\nHEIGHT 1\n"
        rows = "\n".join(" ".join(map(str, row)) for row in pos.tolist())
        head = f"VERSION .7\n{fields}VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(pos)}\nDATA ascii\n"
        path.write_text(f"{head}{rows}\n")
    elif path.suffix in (".xyz", ".txt"):
        np.savetxt(path, pos)
    else:
        trimesh.creation.box((2.0, 0.6, 0.2)).export(path)
    return path


@pytest.fixture
def draw(first_picture, monkeypatch, tmp_path, levels_of, capsys):
    """Run `pcequi view ... --save`, and return the picture of each cloud and the figures."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(
        presets.PRESETS, "tiny", lambda: {"levels": levels_of(num=12), "channels": [4, 4, 4]}
    )
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        options = ["--num-points", "120", "--size", str(SIZE), "--save", "out.png", "--json"]
        with pytest.raises(SystemExit) as end:
            main(["view", *map(str, arguments), *options])
        assert not end.value.code
        with Image.open("out.png") as picture:
            image = np.asarray(picture.convert("RGB"), dtype=int)[:SIZE]
        clouds = np.split(image, image.shape[1] // SIZE, axis=1)
        return clouds, json.loads(capsys.readouterr().out)

    return call


def colored(image):
    """Pixels that are neither white nor grey [P, 3]."""
    return image[np.ptp(image, axis=2) > 30]


@pytest.mark.parametrize("ending", READABLE)
def test_every_format_is_drawn(draw, tmp_path, ending):
    pos = np.random.default_rng(0).uniform(-1, 1, (120, 3)) * [1.0, 0.3, 0.1]
    file = write(tmp_path / f"plate{ending}", pos)
    (image,), found = draw(file, "--preset", "tiny")
    assert found["points"] == 120 and found["representatives"] == 12
    covered = (image < 250).any(2)
    assert 0.03 < covered.mean() < 0.6
    # The plate is long: the picture shows the geometry that was read.
    width, height = covered.any(0).sum(), covered.any(1).sum()
    assert width > 1.3 * height
    # Many representatives: many hues.
    hue = np.unique((colored(image) // 48), axis=0)
    assert len(hue) > 8


def test_the_members_of_one_representative_are_orange_on_every_shape(draw, make_blob):
    for seed in (0, 4):
        np.save(f"{seed}.npy", make_blob(seed=seed).numpy())
    clouds, found = draw("0.npy", "4.npy", "--preset", "tiny", "--highlight", 3)
    for image in clouds:
        pixels = colored(image)
        orange = (pixels[:, 0] - pixels[:, 2] > 80) & (pixels[:, 1] - pixels[:, 2] > 25)
        own = image[: 3 * SIZE // 4].max(2) < 90  # above the title
        assert orange.sum() > 5 and own.sum() > 5, "members, and the representative's own point"
        assert (orange | (pixels[:, 0] > pixels[:, 2])).all(), "and no other colour"
    shown = [found["highlight"]["points"], found["others"][0]["highlight"]["points"]]
    assert min(shown) > 0


def test_evidence_is_drawn_in_red_and_blue(draw, make_blob, tmp_path, levels_of, network):
    np.save("0.npy", make_blob().numpy())
    run = save_checkpoint(tmp_path / "run", network(levels_of()), list("abcd")).parent
    clouds, found = draw("0.npy", "--run", run, "--color", "evidence", "--rotated")
    shares = []
    for image in clouds:
        pixels = colored(image)
        assert len(pixels) > 20
        shares.append((pixels[:, 0] > pixels[:, 2]).mean())
    # Few points, seen from two sides: alike, not equal.
    assert abs(shares[0] - shares[1]) < 0.35
    assert found["evidence"][0]["total"] == pytest.approx(found["evidence"][1]["total"], rel=1e-5)
