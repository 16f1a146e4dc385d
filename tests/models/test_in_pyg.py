"""pcequi inside the rest of the ecosystem: containers, loaders, copies, tracing."""

import copy
import io
import pickle

import pytest
import torch
from torch.export import Dim
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import Sequential, summary
from torch_geometric.transforms import Compose, NormalizeScale, RandomJitter

from pcequi.errors import ArgumentError
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, export_network, graph_tensors
from pcequi.nn import GroupConv, GroupConvBlock, GroupPool, LiftBlock
from pcequi.pair_kernel import PairKernel
from pcequi.pose_graph import PoseGraph
from pcequi.rotations import random_rotations
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


def graphs_of(model, make_blob, *sizes):
    build = BuildPoseGraph(model.levels)
    return Batch.from_data_list([build(Data(pos=make_blob(n, n).float())) for n in sizes])


def saved_and_loaded(program):
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    return torch.export.load(stream).module()


@pytest.mark.parametrize("example", [(25,), (25, 33)], ids=len)
def test_export_serves_other_clouds_and_budgets(example, model, make_blob):
    """As many clouds, points, representatives and entries as they like; one point alone, too."""
    first = graphs_of(model, make_blob, *example)
    run = saved_and_loaded(export_network(model.train(), first))
    assert model.training, "left in the mode it was in"
    model = model.eval()
    other = [graphs_of(model, make_blob, *sizes) for sizes in [(60,), (40, 20, 6), (1,), (1, 70)]]
    other += [graphs_of(model.with_budget(num=num), make_blob, 30, 50) for num in (3, 17, None)]
    for batch in (first, *other):
        torch.testing.assert_close(run(graph_tensors(batch)), model(batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "turned", "strict"),
    [
        (SE3Kernel(7, 4), True, False),
        (SE3Kernel(7, 4), True, True),
        (SE3Kernel(7), False, False),
        (PairKernel(), True, False),
    ],
)
def test_a_layer_is_exported_for_any_graph(kernel, turned, strict, generator):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = GroupConv(4, 8, kernel), GroupConv(8, 3, kernel)

        def forward(self, x, edge_index, offset, rotation=None):
            x = self.first(x, edge_index, (offset, rotation)).relu()
            return self.second(x, edge_index, (offset, rotation))

    def example(nodes, edges):
        index = torch.randint(nodes, (2, edges), generator=generator)
        offset = 0.3 * torch.randn(edges, 3, generator=generator)
        x = torch.randn(nodes, 4, generator=generator)
        rotation = random_rotations(edges, generator=generator, dtype=torch.float32)
        return x, index, offset, *([rotation] if turned else [])

    torch.manual_seed(0)
    model, nodes, edges = Model().eval(), Dim("nodes", min=2), Dim("edges", min=2)
    sizes = {"x": {0: nodes}, "edge_index": {1: edges}, "offset": {0: edges}}
    sizes |= {"rotation": {0: edges}} if turned else {}
    with torch.no_grad():
        program = torch.export.export(model, example(10, 40), dynamic_shapes=sizes, strict=strict)
        for other in (example(10, 40), example(31, 200), example(5, 3)):
            torch.testing.assert_close(program.module()(*other), model(*other))


def test_no_example_without_entries(model, data):
    graph = PoseGraph.load(data[0])
    level = graph.levels[1]
    level.entries, level.col, level.val = level.entries * 0, level.col[:0], level.val[:0]
    with pytest.raises(ArgumentError, match=r"graph1_col is empty.* reads nothing"):
        export_network(model, graph)


def test_a_graph_is_needed_to_export(model):
    with pytest.raises(ArgumentError, match="no pose graph"):
        export_network(model, Data(pos=torch.zeros(3, 3)))


def test_a_classifier_is_a_plain_module(model):
    assert isinstance(model, torch.nn.Module) and isinstance(model, GroupConvClassifier)
