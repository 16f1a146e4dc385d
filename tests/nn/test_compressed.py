"""What ``GroupConv.compressed`` is given is looked at."""

import pytest
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.nn import GroupConv
from pcequi.pose_graph import PoseGraph, build_pose_graph


@pytest.fixture
def levels(levels_of):
    return levels_of(num=10)


@pytest.fixture
def graph(levels, make_blob):
    """Of two clouds, ten representatives each."""
    return PoseGraph.batch([build_pose_graph(make_blob(20), levels) for _ in range(2)])


@pytest.fixture
def given(levels, graph):
    conv = GroupConv(3, 4, levels[1].kernel()).double()
    return conv, torch.rand(20, 3, dtype=torch.float64), *graph.levels[:2]


def test_what_is_no_level_is_named(given, graph, levels):
    conv, x, below, _ = given
    for wrong in (graph, levels[1], None, {}, x):
        name = type(wrong).__name__
        with pytest.raises(ArgumentError, match=rf"`level` \(={name}\) must be a LevelGraph, one"):
            conv.compressed(x, wrong, below.count)


def test_sources_that_do_not_fit_are_named(given):
    conv, x, below, level = given
    assert conv.compressed(x, level, below.count).shape == (20, 4)
    count = below.count
    assert torch.equal(
        conv.compressed(x, level, count.int()), conv.compressed(x, level, count)
    )  # whole numbers of any width
    for wrong in (count[:1], torch.tensor([10, 5, 5]), count.double(), [10, 10], 20, below):
        with pytest.raises(
            ShapeError, match=r"`sources` .* must be whole numbers \[clouds\].*=\[2"
        ):
            conv.compressed(x, level, wrong)
    for wrong, total in (([10, 9], 19), ([20, 20], 40)):
        said = rf"`sources` \(={total} in all\) must be as many as `x` has rows \(=20\)"
        with pytest.raises(ShapeError, match=said):
            conv.compressed(x, level, torch.tensor(wrong))
    with pytest.raises(ShapeError, match=r"`x` \(=None\) must be"):
        conv.compressed(None, level, count)


def test_turns_that_do_not_fit_are_named(given):
    conv, x, below, level = given
    basis = conv.kernel.num
    plain = torch.arange(basis)
    expected = conv.compressed(x, level, below.count)
    assert torch.equal(conv.compressed(x, level, below.count, turn=plain), expected)
    # One function: the weights were once taken apart by it without a word.
    for wrong in (plain[:1], plain[None], torch.arange(2 * basis), plain.double(), plain > 1, [0]):
        with pytest.raises(ShapeError, match=rf"`turn` .* whole numbers \[{basis}\]"):
            conv.compressed(x, level, below.count, turn=wrong)
