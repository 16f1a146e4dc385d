"""pcequi inside the rest of the ecosystem: containers, loaders, copies, tracing."""

import copy
import io
import pickle

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import Sequential, summary
from torch_geometric.transforms import Compose, NormalizeScale, RandomJitter

from pcequi.errors import ArgumentError
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, export_network, graph_tensors
from pcequi.nn import GroupConv, GroupConvBlock, GroupPool, LiftBlock
from pcequi.pose_graph import PoseGraph
from pcequi.transforms import BuildPoseGraph

# torch's own words on its own way of tracing.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def edges(generator):
    index = torch.randint(10, (2, 40), generator=generator)
    offset = 0.3 * torch.randn(40, 3, generator=generator)
    x = torch.randn(10, 4, generator=generator)
    return x, index, (offset, torch.eye(3).expand(40, 3, 3))


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return GroupConv(4, 8, SE3Kernel(7, 4))


@pytest.fixture
def model(levels_of, network):
    return network(levels_of(num=10)).float()


@pytest.fixture
def data(model, make_blob):
    build = BuildPoseGraph(model.levels)
    return [build(Data(pos=make_blob(n, n).float(), y=torch.tensor([n]))) for n in (25, 33)]


@pytest.fixture
def batch(data):
    return next(iter(DataLoader(data, batch_size=2)))


def test_layers_in_a_pyg_sequential(conv, edges):
    x, index, relative = edges
    after = GroupConv(8, 3, SE3Kernel(7))
    chain = Sequential(
        "x, edge_index, relative",
        [
            (conv, "x, edge_index, relative -> x"),
            torch.nn.ReLU(),
            (after, "x, edge_index, relative -> x"),
        ],
    )
    expected = after(conv(x, index, relative).relu(), index, relative)
    assert torch.equal(chain(x, index, relative), expected)


def test_blocks_pool_and_classifier_in_a_pyg_sequential(model, batch):
    graph = PoseGraph.load(batch)
    kernel = SE3Kernel(7, 4)
    chain = Sequential(
        "lift, level, sources",
        [
            (LiftBlock(15, 6), "lift -> x"),
            (GroupConvBlock(6, 8, kernel), "x, level, sources -> x"),
            (GroupPool(), "x, level -> x"),
            (torch.nn.Linear(16, 3), "x -> x"),
        ],
    ).eval()
    out = chain(graph.levels[0].lift, graph.levels[1], graph.levels[0].count)
    assert out.shape == (2, 3) and out.isfinite().all()
    share = Sequential("data", [(model, "data -> x"), torch.nn.Softmax(1)])(batch)
    torch.testing.assert_close(share, model(batch).softmax(1))


def test_batches_come_apart_and_together(model, data, batch):
    parts = batch.to_data_list()
    for part, original in zip(parts, data, strict=True):
        assert set(part.keys()) == set(original.keys())
        assert torch.equal(model(part), model(original)) and torch.equal(part.y, original.y)
    torch.testing.assert_close(model(Batch.from_data_list(parts)), model(batch))
    torch.testing.assert_close(model(batch[1]), model(data[1]))


def test_workers_send_graphs(model, data):
    loader = DataLoader(data, batch_size=1, num_workers=1)
    assert torch.equal(torch.cat([model(b) for b in loader])[1], model(data[1])[0])


def test_copies_and_pickles_are_equal(model, conv, batch, edges):
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(batch), model(batch)) and other.levels == model.levels
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(*edges), conv(*edges))
    assert torch.equal(model(pickle.loads(pickle.dumps(batch))), model(batch))


def test_pyg_summary_counts_the_weights(model, conv, batch, edges):
    pytest.importorskip("tabulate")
    assert "GroupConvClassifier" in summary(model, batch)
    table = summary(conv, *edges)
    assert "[10, 4], [2, 40]" in table and "[10, 8]" in table
    assert f"{sum(p.numel() for p in conv.parameters()):,}" in table


def test_transforms_compose(model, make_blob):
    chain = Compose([NormalizeScale(), RandomJitter(0.0), BuildPoseGraph(model.levels)])
    made = chain(Data(pos=3 * make_blob(25, 25).float() + 2))
    assert model(made).shape == (1, 4)


def test_mixed_precision(model, conv, batch, edges):
    with torch.autocast("cpu", torch.bfloat16):
        logits, out = model(batch), conv(*edges)
    assert logits.dtype == torch.bfloat16 and out.isfinite().all()
    exact = model(batch)
    assert (logits.float() - exact).norm() < 0.05 * exact.norm()
    learner = copy.deepcopy(model).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = learner(batch).float().square().sum()
    loss.backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_to_a_device(device, model, conv, batch, edges):
    moved = copy.deepcopy(model).to(device)
    for out in (moved(batch.to(device)), moved(PoseGraph.load(batch).to(device))):
        assert out.device.type == device and out.shape == (2, 4)
    x, index, relative = edges
    relative = tuple(part.to(device) for part in relative)
    out = copy.deepcopy(conv).to(device)(x.to(device), index.to(device), relative, size=(10, 10))
    assert out.device.type == device and out.shape == (10, 8)


def compiled(module, *args, backend):
    torch.compiler.reset()
    run = torch.compile(module, backend=backend, fullgraph=True)
    out, expected = run(*args), module(*args)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    gradients = [
        torch.autograd.grad(value.square().sum(), list(module.parameters()))
        for value in (run(*args), expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_one_graph_is_compiled(model, conv, batch, edges):
    """Without a C++ compiler; gradients too."""
    compiled(conv, *edges, backend="aot_eager")
    compiled(model, PoseGraph.load(batch), backend="aot_eager")


@pytest.mark.slow
def test_compiled_to_machine_code(model, conv, batch, edges):
    compiled(conv, *edges, backend="inductor")
    compiled(model, PoseGraph.load(batch), backend="inductor")


def test_export_serves_other_clouds(model, data, make_blob):
    program = export_network(model.train(), data[0])
    assert model.training, "left in the mode it was in"
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    run, model = torch.export.load(stream).module(), model.eval()
    other = BuildPoseGraph(model.levels)(Data(pos=make_blob(60, 7).float()))
    assert len(other.graph1_col) != len(data[0].graph1_col)
    for item in (data[0], other):
        torch.testing.assert_close(run(graph_tensors(item)), model(item))


def test_a_layer_is_exported(conv, edges):
    program = torch.export.export(conv, edges, strict=False)
    torch.testing.assert_close(program.module()(*edges), conv(*edges))


def test_a_graph_is_needed_to_export(model):
    with pytest.raises(ArgumentError, match="no pose graph"):
        export_network(model, Data(pos=torch.zeros(3, 3)))


def test_a_classifier_is_a_plain_module(model):
    assert isinstance(model, torch.nn.Module) and isinstance(model, GroupConvClassifier)
