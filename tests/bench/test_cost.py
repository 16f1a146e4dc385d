"""What work must cost is counted right."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pcequi.bench.cost import (
    MATRIX,
    ceilings,
    floor_seconds,
    least_bytes,
    predict_flops,
    step_cost,
    step_flops,
)
from pcequi.graph_device import DeviceGraphs
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, averaged_logits
from pcequi.models.orders import order_shares
from pcequi.nn.block import GroupConvBlock
from pcequi.pose_graph import build_pose_graph


@pytest.mark.parametrize("name", ["default", "large", "pairs"])
def test_the_operations_of_a_step_are_those_that_torch_counts(name, make_blob):
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset(name, 40)
    graph = build_pose_graph(make_blob(600), model.levels, dtype=torch.float32)
    graph = DeviceGraphs.collect([graph], model.levels, 1).batch(torch.zeros(2, dtype=torch.long))
    flops, moved = step_cost(model, graph)
    with FlopCounterMode(display=False) as counter:
        model(graph).sum().backward()
    assert counter.get_total_flops() == pytest.approx(flops, rel=1e-9)
    assert moved > 28 * sum(p.numel() for p in model.parameters())


def test_the_bytes_of_a_step_are_those_counted_by_hand():
    """Three clouds; 6 lifted poses, 3 features to 4; 5 representatives, 4 and 1 constant to 2."""
    block = GroupConvBlock(4, 2, SE3Kernel(7, 1))
    model = torch.nn.Module()
    model.lift, model.blocks = torch.nn.Linear(3, 4, bias=False), torch.nn.ModuleList([block])
    model.head = torch.nn.Linear(2, 10)
    lifted = SimpleNamespace(count=torch.tensor([2, 2, 2]), num=6)
    level = SimpleNamespace(blocks=torch.zeros(3, 14, 2), characters=None, num=5)
    flops, moved = step_cost(model, SimpleNamespace(levels=[lifted, level]))
    lift, head = 6 * (3 + 4), 3 * (2 + 10)  # numbers into and out of the linear layers
    z, out = 5 * 7 * (4 + 1), 5 * 2
    # Two bytes each; there and back, written and read.
    between = 2 * 4 * (lift + head + z + 2 * out)  # out of the convolution, and of its layer
    blocks = 2 * 2 * (3 * 14 * 2)
    weights = 3 * 4 + (2 * 10 + 10) + 7 * (4 + 1) * 2 + 2 * 2 + 2 * (2 + 2)  # and two norms
    assert moved == between + blocks + 4 * 7 * weights
    products = 6 * 3 * 4 + 3 * 2 * 10 + z * 2 + out * 2
    average = 4 * out  # of the head's pooling
    assert flops == 6 * products + 4 * (3 * 14 * 2) * (4 + 1) + average


def test_the_operations_of_predictions_are_those_that_torch_counts(make_blob):
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset("small", 40).eval()
    clouds = [make_blob(600), make_blob(500) * torch.tensor([1.0, 1.001, 1.5])]
    graphs = [build_pose_graph(cloud, model.levels, dtype=torch.float32) for cloud in clouds]
    graph = DeviceGraphs.collect(graphs, model.levels, 2).batch(torch.arange(2))
    assert (order_shares(graph) > 0).sum() > 2  # some order is in doubt
    flops = predict_flops(model, graph)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        averaged_logits(model, graph)
    assert counter.get_total_flops() == pytest.approx(flops, rel=1e-9)


def test_entries_are_counted_each_and_so_are_the_bytes_of_what_is_read(make_blob):
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset("pairs", 40)
    graph = build_pose_graph(make_blob(600), model.levels, dtype=torch.float32)
    blocks = DeviceGraphs.collect([graph], model.levels, 1).batch(torch.zeros(1, dtype=torch.long))
    more = 0
    for block, level, dense in zip(model.blocks, graph.levels[1:], blocks.levels[1:], strict=True):
        assert dense.characters is None
        more += 4 * (dense.blocks.numel() - len(level.val)) * block.conv.in_channels
    assert step_flops(model, blocks) - step_flops(model, graph) == pytest.approx(more)
    weights = 4 * sum(p.numel() for p in model.parameters())
    read = graph.levels[0].lift.nbytes + sum(
        level.count.nbytes + level.weight.nbytes for level in graph.levels
    )
    for level in graph.levels[1:]:
        read += level.entries.nbytes + level.col.nbytes + level.val.nbytes
    assert least_bytes(model, graph, training=False) == read + weights
    assert least_bytes(model, graph, training=True) == read + 6 * weights


def test_a_floor_is_what_takes_longer():
    rates = {"copy_gb_per_s": 10.0, "matmul_gflop_per_s": 100.0, "matmul_bfloat16_gflop_per_s": 400}
    flops = 2 * 3 * 4 * 5  # of a product of 3 x 4 and 4 x 5
    assert floor_seconds(flops, 0, rates) == pytest.approx(120 / 1e11)
    assert floor_seconds(flops, 0, rates, "bfloat16") == pytest.approx(120 / 4e11)
    assert floor_seconds(flops, 48, rates) == pytest.approx(48 / 1e10)
    slow = rates | {"matmul_bfloat16_gflop_per_s": 1.0}  # a machine without such units
    assert floor_seconds(flops, 0, slow, "bfloat16") == floor_seconds(flops, 0, slow)


def test_the_product_that_is_timed_has_the_operations_that_are_divided_by():
    a = torch.rand(MATRIX, MATRIX)
    with FlopCounterMode(display=False) as counter:
        _ = a @ a
    assert counter.get_total_flops() == 2 * MATRIX**3
    timing = ceilings(1, casts=True)
    assert set(timing) == {"copy", "matmul", "matmul_bfloat16"}
    assert set(ceilings(1, casts=False)) == {"copy", "matmul"}
    assert all(seconds > 0 for values in timing.values() for seconds in values)
