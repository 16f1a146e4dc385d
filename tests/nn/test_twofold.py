"""Layers and networks on graphs whose functions are taken apart."""

import pickle

import pytest
import torch

from pcequi import graph_ready
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_ready import ready_graphs
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, preset
from pcequi.nn import GroupConv

LEVELS = preset("small")["levels"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(graph_ready, "TWOFOLD_POSES", 1)


@pytest.fixture
def clouds(make_blob):
    return [make_blob(300), make_blob(400)]


@pytest.fixture
def graphs(clouds):
    """The same clouds with functions taken apart, and with the entries of A."""
    graph = ready_graphs(clouds, LEVELS, torch.float32, twofold=True)
    assert all(level.characters.both for level in graph.levels[1:])
    return graph, ready_graphs(clouds, LEVELS)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return GroupConv(4, 6, LEVELS[1].kernel(), bias=False)


class OnGraph(torch.nn.Module):
    """A layer on the second level of a graph."""

    def __init__(self, layer, graph):
        super().__init__()
        self.layer, self.graph = layer, graph

    def forward(self, x):
        return self.layer.compressed(x, self.graph.levels[1], self.graph.levels[0].count)


def both_ways(layer, x, graphs):
    return [OnGraph(layer, graph)(x) for graph in graphs]


@pytest.mark.parametrize("kind", [torch.float64, "casts", "bias", "transposed"])
def test_in_any_precision_and_layout_the_layer_is_the_same(kind, layer, graphs):
    x = torch.randn(graphs[0].levels[0].num, 4)
    if kind == torch.float64:
        layer, x, graphs = layer.double(), x.double(), [one.to(kind) for one in graphs]
    if kind == "bias":
        layer.bias = torch.nn.Parameter(torch.randn(6))
    if kind == "transposed":  # as an orthogonal parametrization has it
        layer.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous().T)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "casts"):
        found, wanted = both_ways(layer, x, graphs)
    assert found.dtype == wanted.dtype
    close = 0.03 if kind == "casts" else 1e-5
    assert (found - wanted).abs().max() < close * wanted.abs().max()


def test_an_own_dense_product_is_asked(layer, graphs):
    class Doubled(GroupConv):
        def combine(self, z, weight=None):
            return 2 * super().combine(z, weight)

    own = Doubled(4, 6, LEVELS[1].kernel(), bias=False)
    own.load_state_dict(layer.state_dict())
    x = torch.randn(graphs[0].levels[0].num, 4)
    torch.testing.assert_close(both_ways(own, x, graphs)[0], 2 * both_ways(layer, x, graphs)[1])


@pytest.mark.parametrize("only", ["features", "weights"])
def test_gradients_of_what_asks_for_them(only, layer, graphs):
    x = torch.randn(graphs[0].levels[0].num, 4, requires_grad=only == "features")
    layer.weight.requires_grad_(only == "weights")
    grads = []
    for out in both_ways(layer, x, graphs):
        (grad,) = torch.autograd.grad(out.square().sum(), x if only == "features" else layer.weight)
        grads.append(grad)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_graphs_of_inference_mode_train_what_lies_above(layer, clouds):
    with torch.inference_mode():
        graph = ready_graphs(clouds, LEVELS, torch.float32, twofold=True)
        x = torch.randn(graph.levels[0].num, 4)
    OnGraph(layer, graph)(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_a_store_is_read_in_inference_mode_before_training(clouds, tmp_path):
    store = GraphStore.build(tmp_path, clouds, LEVELS, workers=1)
    model = GroupConvClassifier.from_preset("small", 5).eval()
    with torch.inference_mode():
        wanted = model(store.batch([0, 1], torch.float32, twofold=True))
    found = model(store.batch([0, 1], torch.float32, twofold=True).to("cpu"))
    torch.testing.assert_close(found, wanted)
    found.sum().backward()


def test_what_is_kept_for_a_device_is_put_together(graphs):
    model = GroupConvClassifier.from_preset("small", 5).eval()
    kept = DeviceGraphs.collect([graphs[0]], LEVELS, 2)
    with torch.no_grad():
        found = model(kept.batch(torch.arange(2)))
        torch.testing.assert_close(found, model(graphs[1]), atol=2e-5, rtol=2e-5)


def test_networks_on_moved_and_copied_graphs_are_traced(graphs):
    model = GroupConvClassifier.from_preset("small", 5).eval()
    with torch.no_grad():
        wanted = model(graphs[1])
        graph = pickle.loads(pickle.dumps(graphs[0])).to("cpu")
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(graph), wanted, atol=2e-5, rtol=2e-5)


def test_a_head_is_mapped_over_alone(graphs):
    model = GroupConvClassifier.from_preset("small", 5).eval()
    heads = torch.randn(3, *model.head[4].weight.shape)

    def logits(weight, graph):
        return torch.func.functional_call(model, {"head.4.weight": weight}, graph)

    with torch.no_grad():
        found, wanted = (
            torch.func.vmap(logits, in_dims=(0, None))(heads, graph) for graph in graphs
        )
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("by", ["func", "dual"])
def test_gradients_have_tangents(by, layer, graphs):
    """Forward over reverse: how the gradient changes along a direction, by ``torch.func`` and with
    a cotangent that has a tangent."""
    x = torch.randn(graphs[0].levels[0].num, 4, requires_grad=True)
    direction = torch.randn(layer.weight.shape)
    found = []
    for graph in graphs:
        on = OnGraph(layer, graph)
        if by == "func":

            def loss(weight, on=on):
                return torch.func.functional_call(on, {"layer.weight": weight}, x).square().sum()

            tangent = torch.func.jvp(torch.func.grad(loss), (layer.weight,), (direction,))[1]
        else:
            out = on(x)
            torch.manual_seed(1)
            with torch.autograd.forward_ad.dual_level():
                cotangent = torch.autograd.forward_ad.make_dual(*torch.randn(2, *out.shape))
                grad = torch.autograd.grad(out, layer.weight, cotangent)[0]
                tangent = torch.autograd.forward_ad.unpack_dual(grad).tangent
        found.append(tangent)
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)
