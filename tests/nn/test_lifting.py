"""LiftConv: the lifting embedding with a weight, its gradient, its equivariance, its use in PyG."""

import pytest
import torch
from torch.export import Dim
from torch_geometric.nn import Sequential

from pcequi.embedding import geometric_embedding
from pcequi.errors import ArgumentError, ShapeError
from pcequi.kernels import space_basis
from pcequi.nn import LiftConv
from pcequi.normals import estimate_normals
from pcequi.ops import pairs_within
from pcequi.poses import GridPoses, TangentPoses
from pcequi.rotations import random_rotations

RADIUS = 0.6
KINDS = pytest.mark.parametrize(
    "channels, normals", [(0, False), (0, True), (2, False), (2, True)], ids=str
)


def make_layer(channels=0, normals=False, out=4, num_points=7, **settings):
    torch.manual_seed(0)
    layer = LiftConv(channels, out, num_points, normals, **settings).double()
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    return layer


def seen_from(pos, frames, at, normal=None, batch=None, batch_poses=None):
    """Edges from the points within the radius to poses, and what these see there."""
    pose, point = pairs_within(pos, at, RADIUS, batch, batch_poses)
    offset = ((pos[point] - at[pose])[:, None] @ frames[pose])[:, 0] / RADIUS
    if normal is not None:
        normal = (normal[point][:, None] @ frames[pose])[:, 0]
    return torch.stack([point, pose]), offset, normal


@pytest.fixture
def cloud(make_blob, generator):
    """Points, normals, numbers, and the poses on the points in a row: K a point."""
    pos = make_blob(20)
    poses = TangentPoses(3)(pos)
    x = torch.randn(20, 2, dtype=torch.float64, generator=generator)
    return pos, estimate_normals(pos), x, poses


def run(layer, pos, normal, x, frames, at):
    normal = normal if layer.normals else None
    index, offset, normal = seen_from(pos, frames, at, normal)
    x = x if layer.in_channels else None
    return layer((x, None), index, offset, normal, size=(len(pos), len(at)))


@KINDS
@pytest.mark.parametrize("sampler", [TangentPoses(3), GridPoses("T")], ids=str)
def test_it_is_the_embedding_and_a_weight(channels, normals, sampler, cloud):
    pos, normal, x, _ = cloud
    poses = sampler(pos)
    layer = make_layer(channels, normals)
    given = normal if normals else None, x if channels else None
    z = geometric_embedding(poses, pos, RADIUS, 7, *given).flatten(0, 1)
    at = pos.repeat_interleave(poses.num_rotations, 0)
    out = run(layer, pos, normal, x, poses.rot.flatten(0, 1), at)
    torch.testing.assert_close(out, z @ layer.weight + layer.bias)


@KINDS
def test_without_a_mean_it_is_the_sum(channels, normals, cloud):
    pos, normal, x, poses = cloud
    layer = make_layer(channels, normals, bias=False, normalize=False)
    out = run(layer, pos, normal, x, poses.rot[:, 1], pos)
    assert layer.bias is None
    points = layer.kernel.points
    for row in range(len(pos)):
        frame = poses.rot[row, 1]
        phi = space_basis((pos - pos[row]) @ frame / RADIUS, points, layer.kernel.width)
        parts = [torch.ones(len(pos), 1).double(), normal @ frame, x]
        seen = torch.cat([parts[0], *parts[1 : 1 + normals], *parts[2 : 2 + channels]], 1)
        torch.testing.assert_close(out[row], (phi.T @ seen).flatten() @ layer.weight)


@KINDS
def test_the_output_of_a_pose_stays_when_all_moves(channels, normals, cloud, generator):
    pos, normal, x, poses = cloud
    layer = make_layer(channels, normals)
    frames = poses.rot[:, 0]
    before = run(layer, pos, normal, x, frames, pos)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    moved, turned = pos @ turn.T + 3, normal @ turn.T
    after = run(layer, moved, turned, x, turn @ frames, moved)
    print(f"lifting, points and poses moved: {(after - before).abs().max().item():.1e}")
    torch.testing.assert_close(after, before, atol=1e-12, rtol=0)
    assert (run(layer, moved, turned, x, frames, moved) - before).abs().max() > 1e-3


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(cloud, normalize):
    pos, normal, x, poses = cloud
    layer = make_layer(2, True, out=2, normalize=normalize)
    index, offset, normal = seen_from(pos, poses.rot[:, 0], pos, normal)
    keep = torch.arange(0, index.shape[1], 5)
    inputs = [t.clone().requires_grad_() for t in (x, offset[keep], normal[keep])]

    def value(x, offset, normal, weight, bias):
        new = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, new, (x, index[:, keep], offset, normal))

    assert torch.autograd.gradcheck(value, (*inputs, layer.weight, layer.bias), fast_mode=True)


@KINDS
def test_clouds_of_a_batch_do_not_touch(channels, normals, make_blob, generator):
    layer = make_layer(channels, normals)
    clouds = [make_blob(n, n) for n in (14, 9)]
    frames = [TangentPoses(1)(pos).rot[:, 0] for pos in clouds]
    vectors = [estimate_normals(pos) for pos in clouds]
    x = [torch.randn(len(pos), 2, dtype=torch.float64, generator=generator) for pos in clouds]
    alone = [run(layer, *each) for each in zip(clouds, vectors, x, frames, clouds, strict=True)]
    batch = torch.tensor([0] * 14 + [1] * 9)
    pos, frame, normal, x = map(torch.cat, (clouds, frames, vectors, x))
    edges = seen_from(pos, frame, pos, normal if normals else None, batch, batch)
    together = layer(x if channels else None, *edges, size=(23, 23))
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("distance", [None, 2.0, 1.0 - 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_pose_that_sees_nothing_gets_the_bias(dtype, distance):
    layer = make_layer(1).to(dtype)
    many = 0 if distance is None else 1
    index = torch.zeros(2, many, dtype=torch.long)
    offset = torch.tensor([[distance or 0.0, 0.0, 0.0]] * many, dtype=dtype).view(many, 3)
    x = torch.ones(2, 1, dtype=dtype, requires_grad=True)
    out = layer(x, index, offset.requires_grad_(), size=(2, 3))
    torch.testing.assert_close(out[1:], layer.bias.expand(2, 4))
    if distance != 1.0 - 1e-7:
        torch.testing.assert_close(out[0], layer.bias)
    (1e6 * out).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(layer.weight.grad).all()
    assert torch.isfinite(offset.grad).all()


def test_no_points_and_no_poses():
    layer = make_layer()
    none = torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, 3).double()
    assert layer(None, *none, size=(0, 0)).shape == (0, 4)
    torch.testing.assert_close(layer((None, None), *none, size=(0, 3)), layer.bias.expand(3, 4))


def test_hooks_and_masks_of_pyg(cloud):
    pos, _, x, poses = cloud
    layer, calls = make_layer(2), []
    index, offset, _ = seen_from(pos, poses.rot[:, 0], pos)
    plain = layer(x, index, offset)
    hook = layer.register_message_forward_hook(lambda *given: calls.append(given[2].shape))
    assert torch.equal(layer(x, index, offset), plain)
    assert calls == [(index.shape[1], 7 * 3)]
    hook.remove()
    # An explainer's mask leaves edges out as if they were none, of the mass too.
    layer.explain, layer._apply_sigmoid = True, False
    layer._loop_mask = torch.ones(index.shape[1], dtype=torch.bool)
    layer._edge_mask = (torch.arange(index.shape[1]) % 2).double()
    kept = layer._edge_mask.bool()
    masked = layer(x, index, offset)
    layer.explain = False
    torch.testing.assert_close(masked, layer(x, index[:, kept], offset[kept]))


def test_in_a_pyg_sequential_and_with_short_edges(cloud):
    pos, _, x, poses = cloud
    layer = make_layer(2)
    index, offset, _ = seen_from(pos, poses.rot[:, 0], pos)
    chain = Sequential("x, edge_index, offset", [(layer, "x, edge_index, offset -> x")])
    assert torch.equal(chain(x, index.int(), offset), layer(x, index, offset))
    assert repr(layer) == "LiftConv(2, 4, num_points=7)"
    assert repr(make_layer(0, True)) == "LiftConv(0, 4, num_points=7, normals=True)"


class Lifted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = make_layer(0, True)

    def forward(self, edge_index, offset, normal, poses):
        return self.layer(None, edge_index, offset, normal, size=(8, poses.shape[0]))


@pytest.mark.filterwarnings("ignore")
def test_traced_compiled_exported_and_mapped(generator):
    model, poses, edges = Lifted(), Dim("poses", min=2), Dim("edges", min=2)

    def example(poses, edges):
        index = torch.randint(poses, (2, edges), generator=generator)
        seen = torch.randn(2, edges, 3, dtype=torch.float64, generator=generator) / 2
        return index, *seen, torch.zeros(poses)

    first, other = example(8, 30), example(5, 17)
    sizes = {"edge_index": {1: edges}, "offset": {0: edges}, "normal": {0: edges}}
    with torch.no_grad():
        program = torch.export.export(model, first, dynamic_shapes=sizes | {"poses": {0: poses}})
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for run in (program.module(), compiled):
        torch.testing.assert_close(run(*other), model(*other))
    traced = torch.jit.trace(model, first)
    fewer = (*other[:3], first[3])
    torch.testing.assert_close(traced(*fewer), model(*fewer))
    index, offset, normal, _ = first
    lift = lambda offset: model(index, offset, normal, first[3])  # noqa: E731
    both = torch.func.vmap(lift)(torch.stack([offset, -offset]))
    torch.testing.assert_close(both[1], lift(-offset))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(cloud, dtype):
    pos, normal, x, poses = cloud
    layer = make_layer(2, True)
    index, offset, normal = seen_from(pos, poses.rot[:, 0], pos, normal)
    whole = layer(x, index, offset, normal)
    half = layer.to(dtype)(x.to(dtype), index, offset, normal)
    with torch.autocast("cpu", dtype):
        cast = layer.float()(x.float(), index, offset.float(), normal.float())
    for found in (half, cast):
        torch.testing.assert_close(found.double(), whole, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("channels", [(-1, 4), (0, 0), (2.0, 4), (0, True)])
def test_impossible_channels_are_refused(channels):
    with pytest.raises(ArgumentError, match=r"_channels` \(=(-1|0|2.0|True)\) must be a whole"):
        LiftConv(*channels)
    with pytest.raises(ArgumentError, match=r"`num_points` \(=16\) must be one of"):
        LiftConv(0, 4, 16)


def test_what_does_not_fit_is_refused():
    layer, plain = make_layer(2, True), make_layer()
    x, index, three = torch.zeros(8, 2).double(), torch.zeros(2, 6, dtype=torch.long), (6, 3)
    offset, normal = torch.zeros(three).double(), torch.ones(three).double()
    for wrong, seen in ((x[:, :1], r"\[8, 1\]"), (x[0], r"\[2\]"), (None, "None")):
        with pytest.raises(ShapeError, match=rf"`x` \(={seen}\) must be .*in_channels \(=2\)\]"):
            layer(wrong, index, offset, normal, size=(8, 8))
    with pytest.raises(ShapeError, match=r"`x` \(=torch.float32\) must be of the type"):
        layer(x.float(), index, offset, normal)
    for wrong in (index.T, index[0], index.double()):
        with pytest.raises(ShapeError, match=r"`edge_index` .* must be whole numbers"):
            layer(x, wrong, offset, normal)
    with pytest.raises(ShapeError, match=r"`offset` \(=\[5, 3\]\) must be \[edges, 3\] .*\[6, 3\]"):
        layer(x, index, offset[:5], normal)
    with pytest.raises(ShapeError, match=r"`normal` \(=\[5, 3\]\) must be \[edges, 3\]"):
        layer(x, index, offset, normal[:5])
    with pytest.raises(ShapeError, match=r"`normal` \(=None\) must be .* that the layer reads"):
        layer(x, index, offset)
    with pytest.raises(ShapeError, match=r"`normal` \(=\[6, 3\]\).*LiftConv\(normals=True\)"):
        plain(None, index, offset, normal, size=(8, 8))
    with pytest.raises(ShapeError, match=r"`size` \(=None\) must be \(points, poses\)"):
        plain(None, index, offset)
    with pytest.raises(ShapeError, match=r"`size` \(=\(9, 5\)\) must begin with the points"):
        layer(x, index, offset, normal, size=(9, 5))
    for bad in (-1, 8):
        far = index.clone()
        far[0, 3] = bad
        for edge_index in (far, far.flip(0)):
            with pytest.raises(ShapeError, match=rf"`edge_index` \(.*{bad}.*\) must name"):
                layer(x, edge_index, offset, normal)
