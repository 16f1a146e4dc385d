"""Every way of running gives on a GPU what it gives on the CPU. Skipped where there is none."""

import json

import pytest
import torch

from pcequi.align import align_clouds, kabsch
from pcequi.cli import main
from pcequi.frames import manhattan_frame, principal_frame
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.kernels import SE3Kernel
from pcequi.models import (
    GroupConvClassifier,
    averaged_logits,
    extract_features,
    forward_online,
)
from pcequi.nn import GroupConv
from pcequi.normals import estimate_normals
from pcequi.ops import (
    Characters,
    blend_centers,
    dense,
    farthest_point_sampling,
    grouped_bmm,
    grouped_spmm,
    knn,
    local_moments,
    nearest_center,
    pairs_within,
    row_pointer,
)
from pcequi.orbits import group_products
from pcequi.outliers import kept_points
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph, pose_edges
from pcequi.poses import GridPoses, NormalPoses, PairPoses, TangentPoses
from pcequi.rotations import finite_group
from pcequi.training.fit import FitSettings, fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
CLOSE = {"atol": 1e-8, "rtol": 1e-7}


def both(function, *tensors, **close):
    """A function of tensors has the same values where they lie on a GPU."""
    here, there = function(*tensors), function(*(t.cuda() for t in tensors))
    here, there = ((v if isinstance(v, tuple) else (v,)) for v in (here, there))
    for one, two in zip(here, there, strict=True):
        assert two.is_cuda
        torch.testing.assert_close(two.cpu(), one, **(close or CLOSE))


POSES = {
    "octahedral": GridPoses("O", "principal"),
    "half turns": GridPoses("D2", "manhattan"),
    "world": GridPoses("T"),
    "a spiral": GridPoses(8, "manhattan"),
    "tangent": TangentPoses(4),
    "normals": NormalPoses(),
    "pairs": PairPoses(4),
}
SAMPLINGS = {
    "dense": {"num": None},
    "means": {"num": 20, "refine": 2, "center": "mean"},
    "fitted": {"num": 24, "refine": 1, "blend": 3, "center": "mean"},
    "blended": {"num": 24, "refine": 1, "blend": 3},
    "a tolerance": {"num": None, "tolerance": 0.4},
    "nearest points": {"num": 16, "method": "spatial"},
}


@pytest.mark.parametrize("poses", POSES.values(), ids=POSES)
def test_poses(poses, levels_of, make_blob, network):
    levels = levels_of(poses, num=20, refine=1)
    pos, model = make_blob(50), network(levels)
    expected = model(build_pose_graph(pos, levels))
    model = model.cuda()
    graph = build_pose_graph(pos.cuda(), levels)
    assert all(level.weight.is_cuda for level in graph.levels)
    torch.testing.assert_close(model(graph).cpu(), expected, **CLOSE)


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_sampling(sampling, levels_of, make_blob, network):
    levels = levels_of(TangentPoses(4), **sampling)
    clouds, model = [make_blob(50, 1), make_blob(40, 2)], network(levels)
    expected = model(PoseGraph.batch([build_pose_graph(c, levels) for c in clouds]))
    online = forward_online(model, clouds)
    model = model.cuda()
    graph = PoseGraph.batch([build_pose_graph(c.cuda(), levels) for c in clouds])
    torch.testing.assert_close(model(graph).cpu(), expected, **CLOSE)
    found = forward_online(model, [c.cuda() for c in clouds])
    torch.testing.assert_close(found.cpu(), online, **CLOSE)


def test_features_of_points(levels_of, make_blob, network):
    model, pos = network(levels_of(num=20)), make_blob(50)
    expected = extract_features(model, pos).levels[1].per_point()
    found = extract_features(model.cuda(), pos.cuda()).levels[1].per_point()
    torch.testing.assert_close(found.cpu(), expected, **CLOSE)


@pytest.mark.parametrize("rotations", [1, 4])
@pytest.mark.parametrize("channels", [1, 5])
def test_the_layer_along_edges(rotations, channels, make_blob, generator):
    level = Level(0.6, GridPoses("O", "principal"), kernel_points=7, kernel_rotations=rotations)
    poses = level.poses(make_blob(30))
    pos, rot = poses.at(torch.arange(0, poses.num, 5))
    edges = pose_edges(pos, rot, poses, level)
    conv = GroupConv(channels, 6, level.kernel()).double()
    x = torch.randn(poses.num, channels, generator=generator, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        own = conv.to(device)
        own.zero_grad()
        features = x.detach().clone().to(device).requires_grad_()
        relative = (edges.offset, edges.rotation, edges.anchor)
        out = own(
            features, edges.edge_index.to(device), tuple(t.to(device) for t in relative),
            size=(poses.num, len(pos)),
        )  # fmt: skip
        out.square().sum().backward()
        found.append([t.detach().cpu() for t in (out, features.grad, own.weight.grad)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, **CLOSE)


def test_gradients_to_points(make_blob, generator):
    pos = make_blob(40)
    conv = GroupConv(3, 4, SE3Kernel(num_points=7, num_rotations=4)).double()
    level = Level(0.8, TangentPoses(4), kernel_points=7, kernel_rotations=4)
    x = torch.randn(160, 3, generator=generator, dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        moving = pos.detach().clone().to(device).requires_grad_()
        poses = TangentPoses(4)(moving, differentiable=True)
        where, rot = poses.at(torch.arange(poses.num, device=device))
        edges = pose_edges(where, rot, poses, level)
        relative = (edges.offset, edges.rotation, edges.anchor)
        out = conv.to(device)(x.to(device), edges.edge_index, relative, size=(160, 160))
        out.square().mean().backward()
        found.append([out.detach().cpu(), moving.grad.cpu()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-6)


def test_operators(generator, make_blob):
    pos = make_blob(200)
    x, center = (torch.randn(n, 12, generator=generator).double() for n in (90, 9))
    both(lambda p: farthest_point_sampling(p, 20), pos)
    both(lambda p: knn(p, p, 7), pos)
    both(lambda p: local_moments(p, 0.4), pos)
    both(lambda a, b: nearest_center(a, b), x, center)
    both(lambda a, b: blend_centers(a, b, 4), x, center)
    both(manhattan_frame, pos)
    both(principal_frame, pos)
    both(estimate_normals, pos)
    both(kept_points, pos)
    here, there = pairs_within(pos, pos, 0.3), pairs_within(pos.cuda(), pos.cuda(), 0.3)
    assert {*zip(*(t.tolist() for t in here))} == {*zip(*(t.tolist() for t in there))}
    entries = torch.tensor([2, 1, 3, 0])
    ptr = row_pointer(entries)
    col, val = torch.tensor([0, 2, 1, 0, 1, 2]), torch.randn(6, generator=generator).double()
    cuts = torch.tensor([0, 4]), torch.tensor([0, 3])
    both(lambda f, *rest: grouped_spmm(f, *rest), x[:3], ptr, col, val, *cuts)


@pytest.mark.parametrize("group", ["C2", "D2"])
@pytest.mark.parametrize("channels", [1, 7, 48])
@pytest.mark.parametrize("constant", [0, 1, 8])
def test_the_transform_over_half_turns(group, channels, constant, generator, monkeypatch):
    pytest.importorskip("triton")
    elements = finite_group(group, dtype=torch.float64)
    size, basis, points = len(elements), 15, 5
    turns = torch.stack([torch.randperm(basis, generator=generator) for _ in range(size)])
    characters = Characters.of(turns, group_products(elements)).to("cuda")
    blocks = torch.randn(3, size, points * basis, 6, generator=generator).cuda()
    x = torch.randn(3 * 6 * size, channels, generator=generator).cuda()
    scale = torch.randn(3 * points * basis * size, channels + constant, generator=generator).cuda()
    for dtype, limit in ((torch.float32, 1e-4), (torch.float16, 0.02), (torch.bfloat16, 0.1)):
        found = []
        for way in (True, False):
            monkeypatch.setattr(dense, "has_triton", lambda way=way: way)
            own = x.detach().to(dtype, copy=True).requires_grad_()
            out = grouped_bmm(own, blocks, characters, constant=constant)
            (out.float() * scale).sum().backward()
            found.append((out.detach().float(), own.grad.float()))
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two, atol=limit * float(two.abs().max()), rtol=0)


def test_answers_averaged_over_orders(tmp_path, generator):
    """Of clouds whose order of axes is in doubt, from each form of a graph."""
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset("small", num_classes=3).double().eval()
    stretch = torch.tensor([1.0, 0.97, 0.94], dtype=torch.float64)
    clouds = [torch.randn(300, 3, generator=generator).double() / 3 * stretch for _ in range(4)]
    clouds.append(torch.randn(300, 3, generator=generator).double() / 3 * (stretch**20))
    store = GraphStore.build(tmp_path, clouds, model.levels, workers=1)
    expected = averaged_logits(model, store.batch(range(5)).to(torch.float64))
    model = model.cuda()
    rows = torch.arange(5, device="cuda")
    for graph in (
        store.batch(range(5)).to("cuda", torch.float64),
        DeviceGraphs.load(store, "cuda", torch.float64).batch(rows),
    ):
        torch.testing.assert_close(averaged_logits(model, graph).cpu(), expected, **CLOSE)


def test_versions_are_trained_on_in_turns(tmp_path, generator, monkeypatch):
    """Steps are captured once for each set of graphs."""
    clouds = [torch.randn(300, 3, generator=generator) / 3 for _ in range(10)]
    settings = FitSettings(epochs=7, batch_size=4, lr=1e-3, mixup=0.3)
    found = []
    for switch in ("0", "1"):
        monkeypatch.setenv("PCEQUI_NO_CUDA_GRAPHS", switch)
        torch.manual_seed(0)
        model = GroupConvClassifier.from_preset("small", num_classes=2).double()
        model.head[3].p = 0.0
        stores = [
            GraphStore.build(tmp_path / f"{n}", [c * (1 + n / 9) for c in clouds], model.levels)
            for n in range(2)
        ]
        history = fit(
            model, stores, torch.arange(10) % 2, settings, device="cuda", quiet=True
        )  # fmt: skip
        found.append([metrics["loss"] for metrics in history])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_commands(tmp_path, capsys):
    """Train, evaluate and predict, each told to use the GPU."""

    def told(*arguments):
        with pytest.raises(SystemExit, match="^0$"):
            main([*arguments, "--json"])
        return json.loads(capsys.readouterr().out)

    run, cache = str(tmp_path / "run"), ["--cache", str(tmp_path / "cache")]
    here = [*cache, "--device", "cuda"]
    trained = told("train", "--epochs", "2", "--preset", "small", "-r", run, "--limit", "4", *here)
    assert trained["device"].startswith("cuda")
    found = told("evaluate", run, *here)["protocols"]["z/SO3"]
    assert found["accuracy"] == trained["accuracy"]["z/SO3"]
    file = tmp_path / "ball.xyz"
    ball = torch.nn.functional.normalize(torch.randn(500, 3), dim=1) * torch.tensor([1.0, 0.8, 0.5])
    file.write_text("".join(f"{x} {y} {z}\n" for x, y, z in ball.tolist()))
    there, here = (
        told("predict", run, str(file), "--device", device)["files"][0]["predictions"]
        for device in ("cuda", "cpu")
    )
    for one, two in zip(there, here, strict=True):
        assert one["class"] == two["class"]
        assert one["probability"] == pytest.approx(two["probability"], abs=1e-3)


def test_clouds_aligned(levels_of, make_blob, network):
    model, pos = network(levels_of(num=20)), make_blob(60)
    turn = finite_group("O", dtype=torch.float64)[5]
    found = align_clouds(model.cuda(), pos.cuda(), (pos @ turn.T).cuda())
    torch.testing.assert_close(found.rotation.cpu(), turn, atol=1e-5, rtol=0)
    both(lambda a, b: kabsch(a, b), pos, pos @ turn.T + 0.3)
