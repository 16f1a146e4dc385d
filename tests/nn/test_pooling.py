"""Pooling stands for all poses: representatives count as often as poses they replace."""

import pytest
import torch

from pcequi.errors import ShapeError
from pcequi.nn import GroupPool
from pcequi.pose_graph import LevelGraph


def level(count, weight):
    none = torch.zeros(0)
    return LevelGraph(torch.tensor(count), torch.tensor(weight), none, none, 0)


def reference(x, level):
    rows = []
    for cloud in range(len(level.count)):
        mine = level.batch == cloud
        poses = x[mine].repeat_interleave(level.weight[mine].long(), 0)
        rows.append(torch.cat([poses.mean(0), poses.max(0).values]))
    return torch.stack(rows)


def test_mean_is_that_of_all_poses_and_maximum_too(generator):
    for count in ([3, 3], [1, 4, 2]):
        weight = [float(i % 4 + 1) for i in range(sum(count))]
        graph = level(count, weight)
        x = torch.randn(sum(count), 5, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(GroupPool()(x, graph), reference(x, graph))


def test_gradcheck_for_equal_and_unequal_counts(generator):
    for count in ([3, 3], [1, 4]):
        graph = level(count, [float(i + 1) for i in range(sum(count))])
        x = torch.randn(sum(count), 2, dtype=torch.float64, generator=generator)
        assert torch.autograd.gradcheck(lambda x, g=graph: GroupPool()(x, g), x.requires_grad_())


def test_order_of_representatives_does_not_matter(generator):
    weight = [1.0, 2, 3, 4, 5, 6]
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    order = torch.tensor([2, 0, 1, 5, 4, 3])
    moved = GroupPool()(x[order], level([3, 3], [weight[i] for i in order]))
    torch.testing.assert_close(moved, GroupPool()(x, level([3, 3], weight)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [[600, 100], [700, 700]], ids=str)
def test_means_of_many_poses_hold_in_16_bits(dtype, count, generator):
    x = torch.rand(sum(count), 4, generator=generator)
    graph = level(count, [150.0] * sum(count))  # 105,000 poses: more than float16 can name
    found = GroupPool()(x.to(dtype), graph)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), reference(x, graph), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("count", [[3, 3], [1, 4, 2]])
def test_features_of_another_level_are_refused(count):
    graph, num = level(count, [1.0] * sum(count)), sum(count)
    for x in (torch.zeros(num - 1, 5), torch.zeros(2 * num, 5), torch.zeros(num)):
        with pytest.raises(ShapeError, match=rf"`x` .* \[representatives .* \(={num}\), C"):
            GroupPool()(x, graph)
