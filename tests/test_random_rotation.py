"""RandomRotation: points and vectors turn together, uniformly, and the same for the same seed."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pcequi.datasets.describe import describe
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.poses import TangentPoses
from pcequi.transforms import BuildPoseGraph, RandomRotation

EYE = torch.eye(3, dtype=torch.float64)


def drawn(transform, num=1):
    """Rotations as columns turned into rows: unit vectors become their transpose."""
    return torch.stack([transform(Data(pos=EYE)).pos.T for _ in range(num)])


@pytest.mark.parametrize("axis", ["any", "x", "y", "z"])
def test_points_normals_and_given_vectors_turn_together(axis, make_blob):
    pos = make_blob(20)
    data = Data(pos=pos, normal=pos.roll(1, 0).float(), flow=pos[:5, None], y=torch.tensor([3]))
    found = RandomRotation(axis, vectors=["flow"], seed=1)(data)
    turn = torch.linalg.lstsq(pos, found.pos).solution.T
    torch.testing.assert_close(turn @ turn.T, EYE)
    assert torch.linalg.det(turn) > 0.99 and (turn - EYE).norm() > 0.1
    torch.testing.assert_close(
        found.normal.double(), data.normal.double() @ turn.T, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(found.flow, data.flow @ turn.T)
    assert found.normal.dtype == torch.float32 and found.y.item() == 3
    assert torch.equal(data.pos, pos)  # what was given stays
    if axis != "any":
        still = EYE["xyz".index(axis)]
        torch.testing.assert_close(turn @ still, still)


def test_rotations_are_uniform(generator):
    turns = drawn(RandomRotation(seed=0), 4000)
    # Of the Haar measure: entries have mean 0 and variance 1/3, the trace mean 0 and variance 1,
    # and the angle the density (1 - cos) / pi.
    assert turns.mean(0).abs().max() < 0.04
    assert (turns.square().mean(0) - 1 / 3).abs().max() < 0.03
    trace = turns.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(trace.mean())) < 0.06 and abs(float(trace.var()) - 1) < 0.1
    angle = ((trace - 1) / 2).clamp(-1, 1).arccos()
    share = ((angle - angle.sin()) / math.pi).sort().values
    assert (share - torch.linspace(0, 1, 4000)).abs().max() < 0.03


def test_angles_about_an_axis_are_uniform():
    turns = drawn(RandomRotation("z", seed=0), 4000)
    angle = torch.atan2(turns[:, 1, 0], turns[:, 0, 0]) / (2 * math.pi) % 1
    assert (angle.sort().values - torch.linspace(0, 1, 4000)).abs().max() < 0.03


def test_a_seed_gives_the_same_rotations_and_none_takes_torchs_own():
    one, other = RandomRotation(seed=3), RandomRotation(seed=3)
    first = drawn(one, 2)
    assert torch.equal(first, drawn(other, 2)) and not torch.equal(first[0], first[1])
    assert torch.equal(drawn(pickle.loads(pickle.dumps(one))), drawn(one))
    state = torch.get_rng_state()
    drawn(one)
    assert torch.equal(state, torch.get_rng_state())
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(drawn(RandomRotation(), 2))
    assert torch.equal(*found)


def test_the_description_of_a_transform_has_its_settings_and_no_state():
    one = RandomRotation(seed=3)
    before = describe(one)
    drawn(one)
    assert describe(one) == before == describe(RandomRotation(seed=3))
    assert before != describe(RandomRotation(seed=4)) and before != describe(
        RandomRotation("z", seed=3)
    )
    assert repr(one) == "RandomRotation(axis='any', vectors=(), seed=3)"


def test_networks_that_read_normals_do_not_notice(make_blob, levels_of, network):
    levels = [replace(level, normals=level.pairs is None) for level in levels_of(TangentPoses(2))]
    model, pos = network(levels[:2]), make_blob(40)
    data = Data(
        pos=pos, normal=torch.nn.functional.normalize(pos * pos.new_tensor([1, 2, 5]), dim=1)
    )
    build = BuildPoseGraph(levels[:2])
    before, after = model(build(data)), model(Compose([RandomRotation(seed=2), build])(data))
    torch.testing.assert_close(after, before)
    left = RandomRotation(seed=2)(data)
    left.normal = data.normal  # as RandomRotate of PyG leaves them
    assert (model(build(left)) - before).norm() > 0.01 * before.norm()


def test_a_loader_turns_every_cloud_by_itself():
    class Clouds(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, _):
            return RandomRotation()(Data(pos=EYE))

    found = [torch.cat([b.pos for b in DataLoader(Clouds(), 2, num_workers=2)]) for _ in range(2)]
    turns = torch.cat(found).view(-1, 9)
    assert len(turns.unique(dim=0)) == 16  # none twice, in no worker and no epoch


def test_bad_arguments(make_blob, levels_of):
    for axis in ("up", 2, None):
        with pytest.raises(ArgumentError, match=r"`axis` \(=.*\) must be one of any, x, y, z"):
            RandomRotation(axis)
    with pytest.raises(ArgumentError, match=r"`seed` \(=-1\)"):
        RandomRotation(seed=-1)
    pos = make_blob(10)
    with pytest.raises(DataError, match=r"`data.flow` \(=None\) is to be turned; leave it out"):
        RandomRotation(vectors="flow")(Data(pos=pos))
    for bad in (torch.zeros(10, 2), torch.zeros(10, 3, dtype=torch.long), torch.tensor(1.0), [1]):
        with pytest.raises(ShapeError, match=r"`data.normal` \(=.*\) must be floating vectors"):
            RandomRotation()(Data(pos=pos, normal=bad))
    with pytest.raises(DataError, match="`data.batch` names 2 clouds"):
        RandomRotation()(Batch.from_data_list([Data(pos=pos)] * 2))
    with pytest.raises(DataError, match="has a pose graph already.* BuildPoseGraph last"):
        RandomRotation()(BuildPoseGraph(levels_of(num=5))(Data(pos=pos)))
