"""Single precision gives what double precision gives, to rounding: values and gradients."""

import copy

import pytest
import torch

import pcequi.nn
from pcequi.errors import ShapeError
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier
from pcequi.nn import GroupConv, GroupConvBlock, GroupPool, LiftBlock, LiftConv
from pcequi.pose_graph import PoseGraph, build_pose_graph
from pcequi.rotations import random_rotations

# Rounding of single precision is 6e-8; sums of hundreds of terms lose two digits more.
TOLERANCE = 2e-5


def edges(x, generator):
    index = torch.randint(len(x), (2, 60), generator=generator)
    offset = 0.5 * torch.randn(60, 3, dtype=torch.float64, generator=generator)
    turn = random_rotations(60, generator=generator, dtype=torch.float64)
    conv = GroupConv(5, 6, SE3Kernel(7, 4, rotation_width=2.0))
    return conv, lambda conv, x: conv(x, index, (offset.to(x), turn.to(x)))


def points(x, generator):
    index = torch.randint(len(x), (2, 60), generator=generator)
    offset, normal = torch.randn(2, 60, 3, dtype=torch.float64, generator=generator) / 2
    run = lambda conv, x: conv(x, index, offset.to(x), normal.to(x))  # noqa: E731
    return LiftConv(5, 6, 7, normals=True), run


def lift(x, generator):
    return LiftBlock(5, 6), lambda block, x: block(x)


def block(x, generator):
    def run(block, x):
        graph = make_graph().to(x.dtype)
        return block(x[: len(graph.levels[0].weight)], graph.levels[1], graph.levels[0].count)

    return GroupConvBlock(5, 6, SE3Kernel(7, 4)), run


def pool(x, generator):
    def run(pool, x):
        level = make_graph().to(x.dtype).levels[0]
        return pool(x[: len(level.weight)], level)

    return GroupPool(), run


CASES = {
    "GroupConv": edges,
    "LiftConv": points,
    "LiftBlock": lift,
    "GroupConvBlock": block,
    "GroupPool": pool,
}
make_graph = None


@pytest.fixture(autouse=True)
def graphs(make_blob, levels_of):
    global make_graph
    levels = levels_of(num=6)
    both = PoseGraph.batch([build_pose_graph(make_blob(n, n), levels) for n in (12, 9)])
    make_graph = lambda: both  # noqa: E731
    yield
    make_graph = None


def gradients(module, out, weight, *inputs):
    (out * weight.to(out)).sum().backward()
    found = [value.grad for value in (*inputs, *module.parameters())]
    return [value.double() for value in found if value is not None]


def assert_near(single, double):
    error = (single.double() - double).norm() / double.norm()
    assert error < TOLERANCE, f"relative error {error:.1e}"


def assert_gradients_near(single, double):
    # Of all together: batch norm makes some of them zero but for rounding.
    size = torch.cat([value.flatten() for value in double]).norm()
    for one, other in zip(single, double, strict=True):
        error = (one - other).norm() / size
        assert error < TOLERANCE, f"relative error {error:.1e}"


def test_every_public_layer_has_a_case():
    assert set(CASES) == set(pcequi.nn.__all__)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CASES)
def test_a_layer(name, training, generator):
    torch.manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    module, run = CASES[name](x, generator)
    double, single = module.double().train(training), copy.deepcopy(module).float().train(training)
    inputs = [x.clone().requires_grad_(), x.float().requires_grad_()]
    outputs = [run(double, inputs[0]), run(single, inputs[1])]
    assert outputs[1].dtype == torch.float32
    assert_near(outputs[1], outputs[0])
    weight = torch.randn(outputs[0].shape, dtype=torch.float64, generator=generator)
    wanted = gradients(double, outputs[0], weight, inputs[0])
    found = gradients(single, outputs[1], weight, inputs[1])
    assert len(found) == len(wanted) == 1 + len(list(module.parameters()))
    assert_gradients_near(found, wanted)


def test_the_classifier(generator, levels_of):
    torch.manual_seed(0)
    double = GroupConvClassifier(levels_of(num=6), 4, [6, 8, 10], head_channels=12, dropout=0.0)
    double = double.double()
    single = copy.deepcopy(double).float()
    for model in (double, single):  # statistics for batch norms that see two clouds
        model.head.eval()
    graph = make_graph()
    outputs = double(graph), single(graph.to(torch.float32))
    assert outputs[1].dtype == torch.float32 and outputs[0].std() > 1e-3
    assert_near(outputs[1], outputs[0])
    weight = torch.randn(outputs[0].shape, dtype=torch.float64, generator=generator)
    found = gradients(single, outputs[1], weight)
    assert_gradients_near(found, gradients(double, outputs[0], weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_layer_with_many_neighbours_in_16_bits(dtype, generator):
    # Means, not sums that saturate: 4,000 neighbours of mass one each.
    kernel = SE3Kernel(7)
    conv = GroupConv(8, 8, kernel).double()
    edge_index = torch.stack([torch.arange(4000), torch.zeros(4000, dtype=torch.long)])
    offset = 0.3 * torch.randn(4000, 3, generator=generator, dtype=torch.float64).clamp(-1, 1)
    x = torch.randn(4000, 8, generator=generator, dtype=torch.float64) + 1
    wanted = conv(x, edge_index, (offset, None), size=(4000, 1))
    found = conv.to(dtype)(x.to(dtype), edge_index, (offset.float(), None), size=(4000, 1))
    torch.testing.assert_close(found.double(), wanted, rtol=0.05, atol=0.02)


def test_features_of_another_type_are_refused_but_under_casts(generator):
    x = torch.randn(20, 5, generator=generator)
    conv, run = edges(x.double(), generator)
    with pytest.raises(ShapeError, match=r"`x` \(=torch.float64\).*weights \(=torch.float32\)"):
        run(conv, x.double())
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = (run(conv, some).float() for some in (x.bfloat16(), x))
    assert (found - wanted).norm() < 0.1 * wanted.norm()  # offsets are rounded to 8 bits, too
