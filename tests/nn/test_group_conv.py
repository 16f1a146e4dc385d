"""GroupConv: the formula, its gradient, its equivariance, its use in PyG."""

import os
import subprocess
import sys

import pytest
import torch
from torch_geometric.nn.aggr import MaxAggregation

from pcequi.errors import ArgumentError, ShapeError
from pcequi.kernels import SE3Kernel, anchor_rotations, kernel_points
from pcequi.nn import GroupConv, group_conv
from pcequi.nn.group_conv import ALIGN, filled_up
from pcequi.pose_graph import Level, build_pose_graph
from pcequi.poses import GridPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.sampling import FeatureSampler


def edges(generator, sources=8, targets=5, num=30):
    index = torch.stack(
        [
            torch.randint(0, sources, (num,), generator=generator),
            torch.randint(0, targets, (num,), generator=generator),
        ]
    )
    offset = 0.5 * torch.randn(num, 3, dtype=torch.float64, generator=generator)
    rotation = random_rotations(num, generator=generator, dtype=torch.float64)
    return index, (offset, rotation)


@pytest.fixture
def conv():
    torch.manual_seed(0)
    layer = GroupConv(3, 4, SE3Kernel(7, 4, rotation_width=2.0)).double()
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.fixture
def rows(monkeypatch):
    """A layer of three channels takes rows, too."""
    monkeypatch.setattr(group_conv, "LEAST_CHANNELS", 1)


@pytest.mark.parametrize("channels", [3, 4])
def test_edges_that_are_none_are_refused(channels, generator):
    conv = GroupConv(channels, 2, SE3Kernel(7)).double()
    index, pose = edges(generator)
    x, size = torch.randn(8, channels, dtype=torch.float64, generator=generator), (8, 5)
    for wrong in (index.T, torch.cat([index, index[:1]]), index[0], index.double()):
        with pytest.raises(ShapeError, match=r"`edge_index` .* must be whole numbers, \[2, edges"):
            conv(x, wrong, pose, size=size)
    for wrong in (pose[0], pose[:1], (*pose, None, None)):
        with pytest.raises(ShapeError, match="`relative_pose` .* must be offsets"):
            conv(x, index, wrong, size=size)
    short = conv(x, index.int(), pose, size=size)
    torch.testing.assert_close(short, conv(x, index, pose, size=size))


@pytest.mark.parametrize("messages", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_forward_is_the_formula(normalize, messages, rows, generator):
    torch.manual_seed(0)
    conv = GroupConv(3, 4, SE3Kernel(7, 2), normalize=normalize).double()
    torch.nn.init.normal_(conv.bias)
    index, (offset, rotation) = edges(generator)
    offset.requires_grad_(messages)  # without a gradient the product is made of rows
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    out = conv((x, None), index, (offset, rotation), size=(8, 5))
    weight = conv.weight.view(14, 3, 4)
    for g in range(5):
        here = (index[1] == g).nonzero()[:, 0]
        phi = conv.kernel(offset[here], rotation[here])
        mass = conv.kernel(offset[here]).view(len(here), 7, 2)[:, :, 0].sum() if normalize else 1.0
        value = torch.einsum("eb,ec,bcd->d", phi, x[index[0, here]], weight) / mass
        torch.testing.assert_close(out[g], value + conv.bias)


@pytest.mark.parametrize("seen", ["gradient", "hook", "explain"])
def test_rows_and_messages_give_the_same(conv, seen, rows, generator):
    index, (offset, rotation) = edges(generator)
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    targets, calls = torch.randn(8, 4, dtype=torch.float64, generator=generator), []

    def run():
        out = conv(x, index, (offset, rotation))
        return out, *torch.autograd.grad((out * targets).sum(), [x, conv.weight])

    plain = run()
    if seen == "gradient":
        offset.requires_grad_()
    elif seen == "hook":
        conv.register_message_forward_hook(lambda *arguments: calls.append(1))
    else:
        conv.explain, conv._edge_mask = True, torch.full((30,), 99.0)  # sigmoid of it is one
        conv._loop_mask, conv._apply_sigmoid = torch.ones(30, dtype=torch.bool), True
    for one, other in zip(plain, run(), strict=True):
        torch.testing.assert_close(one, other)
    assert len(calls) == (seen == "hook")


@pytest.mark.parametrize("sources, targets", [(3, 0), (0, 0), (3, 5)])
def test_graphs_without_edges_or_targets(conv, rows, sources, targets):
    x = torch.ones(sources, 3, dtype=torch.float64)
    none = (torch.zeros(0, 3, dtype=torch.float64), None)
    out = conv((x, None), torch.zeros(2, 0, dtype=torch.long), none, size=(sources, targets))
    torch.testing.assert_close(out, conv.bias.expand(targets, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(conv, rows, dtype, generator):
    index, (offset, rotation) = edges(generator)
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    whole = conv(x, index, (offset, rotation))
    with torch.autocast("cpu", dtype):
        cast = conv.float()(x.to(dtype), index, (offset, rotation))
    half = conv.to(dtype)(x.to(dtype), index, (offset, rotation))
    for found in (half, cast):
        torch.testing.assert_close(found.double(), whole, atol=0.05, rtol=0.05)


def test_a_message_of_ones_own_is_called(rows, generator):
    class Silent(GroupConv):
        def message(self, x_j, phi, mass):
            return 0 * super().message(x_j, phi, mass)

    index, (offset, rotation) = edges(generator)
    layer = Silent(3, 4, SE3Kernel(7, 4), bias=False).double()
    assert layer(torch.ones(8, 3, dtype=torch.float64), index, (offset, rotation)).abs().max() == 0


class Doubled(GroupConv):
    def update(self, inputs):
        return 2 * inputs


class Largest(GroupConv):
    def aggregate(self, inputs, index, ptr=None, dim_size=None):
        return MaxAggregation()(inputs, index, dim_size=dim_size)


def doubled(module, inputs, output):
    return 2 * output


@pytest.mark.parametrize(
    "change",
    [
        Doubled,
        Largest,
        lambda conv: setattr(conv, "flow", "target_to_source"),
        lambda conv: setattr(conv, "aggr_module", MaxAggregation()),
        lambda conv: conv.register_aggregate_forward_hook(doubled),
        lambda conv: conv.register_aggregate_forward_pre_hook(
            lambda module, inputs: dict(inputs[0], index=inputs[0]["index"].flip(0))
        ),
    ],
    ids=["update", "aggregate", "flow", "aggregation", "hook", "hook before"],
)
def test_rows_keep_what_is_put_into_message_passing(change, monkeypatch, generator):
    torch.manual_seed(0)
    index, relative = edges(generator, 8, 8)
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    kind = change if isinstance(change, type) else GroupConv
    plain = GroupConv(3, 4, SE3Kernel(7, 2), normalize=False).double()
    conv = kind(3, 4, SE3Kernel(7, 2), normalize=False).double()
    conv.load_state_dict(plain.state_dict())
    if kind is GroupConv:
        change(conv)
    expected = conv(x, index, relative)  # three channels: messages
    monkeypatch.setattr(group_conv, "LEAST_CHANNELS", 1)
    torch.testing.assert_close(conv(x, index, relative), expected)
    assert (expected - plain(x, index, relative)).abs().max() > 0.01


def test_functional_transforms_look_through_the_layer(conv, rows, generator):
    index, (offset, rotation) = edges(generator)
    x, step = (torch.randn(8, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    _, tangent = torch.func.jvp(lambda x: conv(x, index, (offset, rotation)), (x,), (step,))
    torch.testing.assert_close(tangent, conv(step, index, (offset, rotation)) - conv.bias)
    both = torch.func.vmap(lambda x: conv(x, index, (offset, rotation)))(torch.stack([x, step]))
    torch.testing.assert_close(both[1], conv(step, index, (offset, rotation)))
    bend = torch.randn(30, 3, dtype=torch.float64, generator=generator)
    _, slope = torch.func.jvp(lambda o: conv(x, index, (o, rotation)), (offset,), (bend,))
    near = [conv(x, index, (offset + t * bend, rotation)) for t in (1e-6, -1e-6)]
    torch.testing.assert_close(slope, (near[0] - near[1]) / 2e-6, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [3, 4])
def test_a_traced_layer_takes_other_edges(channels, generator):
    conv = GroupConv(channels, 2, SE3Kernel(7, 4)).double()
    x = torch.randn(8, channels, dtype=torch.float64, generator=generator)

    class Model(torch.nn.Module):
        def forward(self, x, index, offset, rotation):
            return conv(x, index, (offset, rotation))

    model = Model()
    model.conv = conv
    index, pose = edges(generator)
    traced = torch.jit.trace(model, (x, index, *pose))
    index, pose = edges(generator, num=17)
    torch.testing.assert_close(traced(x, index, *pose), model(x, index, *pose))


def test_gradcheck(conv, rows, generator):
    index, (offset, rotation) = edges(generator, num=12)
    x = torch.randn(8, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    def run(x, weight, bias):
        replaced = {"weight": weight, "bias": bias}
        arguments = ((x, None), index, (offset, rotation), (8, 5))
        return torch.func.functional_call(conv, replaced, arguments)

    assert torch.autograd.gradcheck(run, (x, conv.weight, conv.bias), fast_mode=True)
    small = GroupConv(2, 2, SE3Kernel(1, 2)).double()
    pose = (offset, rotation)
    x = x.detach()[:, :2].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: small(x, index, pose), (x,))


def test_gradcheck_of_the_compressed_form(make_blob, levels_of):
    torch.manual_seed(0)
    graph = build_pose_graph(make_blob(12), levels_of(num=6))
    level, sources = graph.levels[1], graph.levels[0].count
    conv = GroupConv(2, 2, SE3Kernel(7, 4)).double()
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)

    def run(x, weight):
        return torch.func.functional_call(conv, {"weight": weight}, (x,))

    conv.forward = lambda x: conv.compressed(x, level, sources)
    assert torch.autograd.gradcheck(run, (x, conv.weight), fast_mode=True)


def test_the_output_of_a_pose_stays_when_all_poses_move(conv, make_blob, generator):
    pos = make_blob(10)
    rot = random_rotations(10, generator=generator, dtype=torch.float64)
    index = torch.cartesian_prod(torch.arange(10), torch.arange(10)).T
    x = torch.randn(10, 3, dtype=torch.float64, generator=generator)

    def run(pos, rot):
        source, target = index
        offset = torch.einsum("eij,ei->ej", rot[target], pos[source] - pos[target]) / 0.8
        return conv(x, index, (offset, rot[target].transpose(1, 2) @ rot[source]))

    before = run(pos, rot)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    after = run(pos @ turn.T + 3, turn @ rot)
    print(f"group convolution, all poses moved: {(after - before).abs().max().item():.1e}")
    torch.testing.assert_close(after, before, atol=1e-12, rtol=0)
    assert (run(pos @ turn.T, rot) - before).abs().max() > 1e-3  # frames left behind


@pytest.mark.parametrize("sampler", [GridPoses("O"), TangentPoses(4)], ids=str)
def test_explicit_edges_give_the_compressed_layer(sampler, make_blob, generator):
    """One anchor: each pose reads, at each neighbour, the pose nearest in rotation."""
    pos, radius = make_blob(15), 0.8
    levels = [Level(0.5, sampler), Level(radius, sampler, kernel_points=7, rotation_width=2.0)]
    graph, sampled = build_pose_graph(pos, levels, embeddings=True)
    poses = sampled[1].poses
    k = poses.num_rotations
    frames = poses.rot.flatten(0, 1)
    trace = torch.einsum("gij,skij->gsk", frames, poses.rot + 0)
    close = torch.cdist(poses.pos, poses.pos).repeat_interleave(k, 0) <= radius
    target, point = close.nonzero().T
    source = point * k + trace.argmax(2)[target, point]
    offset = poses.pos[point] - poses.pos[target // k]
    offset = torch.einsum("eij,ei->ej", frames[target], offset) / radius
    relative = frames[target].transpose(1, 2) @ frames[source]
    torch.manual_seed(0)
    conv = GroupConv(3, 4, SE3Kernel(7, 1, rotation_width=2.0)).double()
    # In the same order as the graph: dense levels keep theirs.
    x = torch.randn(15 * k, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    explicit = conv(x, torch.stack([source, target]), (offset, relative))
    compressed = conv.compressed(x, graph.levels[1], graph.levels[0].count)
    torch.testing.assert_close(explicit, compressed, atol=1e-10, rtol=0)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (explicit, compressed)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)


def test_one_anchor_reads_what_its_rotation_says(generator):
    anchors = anchor_rotations(4)
    conv = GroupConv(1, 4, SE3Kernel(1, 4, rotation_width=1.0), bias=False).double()
    conv.weight.data.copy_(torch.eye(4))
    index = torch.zeros(2, 1, dtype=torch.long)
    for a in range(4):
        pose = (torch.zeros(1, 3, dtype=torch.float64), anchors[a : a + 1])
        out = conv(torch.ones(1, 1, dtype=torch.float64), index, pose)[0]
        torch.testing.assert_close(out, torch.eye(4, dtype=torch.float64)[a], atol=1e-10, rtol=0)


@pytest.mark.parametrize("alike", [False, True])
def test_initial_weights_neither_drown_nor_explode(alike, make_blob):
    """Features that are all different, and all the same: the two extremes."""
    levels = [Level(0.4, GridPoses("O")), Level(0.7, GridPoses("O"), FeatureSampler(num=60))]
    graph = build_pose_graph(make_blob(60), levels)
    variances = []
    for seed in range(5):
        torch.manual_seed(seed)
        conv = GroupConv(32, 64, SE3Kernel(15)).double()
        x = torch.randn(1 if alike else 60 * 24, 32, dtype=torch.float64).expand(60 * 24, 32)
        out = conv.compressed(x.contiguous(), graph.levels[1], graph.levels[0].count)
        variances.append(out.var().item())
    print(f"variance out for one in, features alike {alike}: {sum(variances) / 5:.2f}")
    assert 0.05 < sum(variances) / 5 < 2


def test_a_target_without_neighbours_gets_the_bias(conv):
    none = torch.zeros(2, 0, dtype=torch.long)
    pose = (torch.zeros(0, 3, dtype=torch.float64), None)
    out = conv(torch.ones(2, 3, dtype=torch.float64), none, pose)
    torch.testing.assert_close(out, conv.bias.expand(2, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", [2.0, 1.0 - 1e-7])
def test_a_target_that_sees_nothing_has_finite_gradients(conv, dtype, distance):
    # Beyond the kernel's support, or where it is almost zero.
    index = torch.tensor([[0, 1], [1, 1]])
    pose = (torch.tensor([[distance, 0.0, 0.0]] * 2, dtype=dtype), None)
    x = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    conv = conv.to(dtype)
    (1e6 * conv(x, index, pose)).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(value.grad).all() for value in conv.parameters())


def test_width_of_the_basis_and_repr(conv):
    assert conv.weight.shape == (7 * 4 * 3, 4)
    assert repr(conv) == "GroupConv(3, 4, basis=28)"
    assert GroupConv(3, 4, SE3Kernel(7), bias=False).bias is None
    assert len(kernel_points(7)[0]) == 7


@pytest.mark.parametrize("channels", [(0, 4), (4, -1), (8.0, 4)])
def test_no_channels_are_refused(channels):
    with pytest.raises(ArgumentError, match=r"_channels` \(=(0|-1|8.0)\) must be a whole"):
        GroupConv(*channels, kernel=SE3Kernel(7))


def test_wrong_shapes_are_refused(conv):
    index = torch.zeros(2, 6, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"`x` \(=\[8, 2\]\) must be \[num_src, in_channels \(=3"):
        conv(torch.zeros(8, 2), index, (torch.zeros(6, 3), None))
    with pytest.raises(ShapeError, match=r"`relative_pose\[0\]` \(=\[5, 3\]\) must be \[edges, 3"):
        conv(torch.zeros(8, 3).double(), index, (torch.zeros(5, 3), None))
    with pytest.raises(ShapeError, match=r"`relative_pose\[1\]` \(=\[6, 9\]\) must be"):
        conv(torch.zeros(8, 3).double(), index, (torch.zeros(6, 3), torch.zeros(6, 9)))
    with pytest.raises(ShapeError, match=r"`size` \(=\(10, 5\)\) must begin with the sources"):
        conv(torch.zeros(8, 3).double(), index, (torch.zeros(6, 3), None), size=(10, 5))
    conv = GroupConv(4, 4, SE3Kernel(7))  # of channels enough for rows
    for bad in (-1, 8):
        far = index.clone()
        far[0, 3] = bad
        for edge_index in (far, far.flip(0)):
            with pytest.raises(ShapeError, match=rf"`edge_index` \(.*{bad}.*\) must"):
                conv(torch.zeros(8, 4), edge_index, (torch.zeros(6, 3), None))


@pytest.mark.parametrize("kernel", [15, None, SE3Kernel, lambda offset: offset])
def test_what_is_no_kernel_is_refused(kernel):
    with pytest.raises(ArgumentError, match=r"`kernel` .* must be a basis, such as SE3Kernel"):
        GroupConv(4, 8, kernel)


def test_levels_of_other_layers_are_refused(levels_of, make_blob):
    levels = levels_of(num=10)
    graph = build_pose_graph(make_blob(20), levels).levels
    conv, x = GroupConv(3, 4, levels[1].kernel()).double(), torch.zeros(10, 3, dtype=torch.float64)
    assert conv.compressed(x, graph[1], graph[0].count).shape == (10, 4)
    with pytest.raises(ArgumentError, match=r"`level` \(=a lifting level\) .* graph.levels\[1\]"):
        conv.compressed(x, graph[0], graph[0].count)
    with pytest.raises(ArgumentError, match=r"with 7 basis functions.* kernel \(=28\).*Level.kern"):
        conv.compressed(x, graph[2], graph[1].count)
    for wrong, constant, channels in ((x[:, :2], False, 3), (x, True, 2), (x[0], False, 3)):
        with pytest.raises(ShapeError, match=rf"`x` .*below, channels \(={channels}\)\]"):
            conv.compressed(wrong, graph[1], graph[0].count, constant=constant)


def test_channels_that_fill_up_change_nothing(generator):
    kernel = SE3Kernel(num_points=7)
    conv = GroupConv(5, 4, kernel, bias=False).double()
    x = torch.randn(9, 5, dtype=torch.float64, generator=generator)
    rows = torch.randn(3 * kernel.num, 9, dtype=torch.float64, generator=generator)
    expected = conv.combine((rows @ x).view(3, -1))
    wide, weight = filled_up(x, conv.weight)
    assert wide.shape == (9, ALIGN) and weight.shape == (kernel.num * ALIGN, 4)
    torch.testing.assert_close(conv.combine((rows @ wide).view(3, -1), weight), expected)
    assert filled_up(wide, weight)[0] is wide


def test_autocast_leaves_the_geometry_alone(conv, generator):
    _, (offset, rotation) = edges(generator)
    kernel, offset, rotation = conv.kernel, offset.float(), rotation.float()
    with torch.autocast("cpu", torch.bfloat16):
        cast, mass = kernel(offset, rotation), kernel.mass(offset)
    assert torch.equal(cast, kernel(offset, rotation)) and torch.equal(mass, kernel.mass(offset))


@pytest.mark.parametrize("kind", ["compressed", "messages"])
def test_a_worker_that_was_forked_can_run_a_layer(kind):
    # In a process of its own: threads of OpenMP that this one has would end the fork.
    code = f"""
import torch
from torch.utils.data import DataLoader, Dataset
from pcequi.models import GroupConvClassifier
from pcequi.nn import GroupConv
from pcequi.kernels import SE3Kernel
from pcequi.pose_graph import build_pose_graph

torch.set_num_threads(2)
cloud = torch.rand(70, 3, generator=torch.Generator().manual_seed(0))
torch.manual_seed(0)
if {kind == "compressed"}:
    model = GroupConvClassifier.from_preset("small", num_classes=3).eval()
    graph = build_pose_graph(cloud, model.levels, dtype=torch.float32)
    run = lambda: model(graph).detach()
else:
    conv, index = GroupConv(16, 4, SE3Kernel(15, 1)), torch.randint(0, 70, (2, 900))
    x, offset = torch.rand(70, 16), 0.3 * torch.rand(900, 3)
    run = lambda: conv(x, index, (offset, torch.eye(3).expand(900, 3, 3))).detach()

class Features(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, place):
        return run()

own = run()
loader = DataLoader(Features(), batch_size=None, num_workers=1, multiprocessing_context="fork")
for found in loader:
    torch.testing.assert_close(found, own)
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
