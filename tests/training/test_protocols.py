"""The protocols turn clouds as their names say, and a seed decides how."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.training import PROTOCOLS, parse_protocol, protocol_rotations


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_read(name):
    protocol = parse_protocol(name)
    assert f"{protocol.train}/{protocol.test}" == name


@pytest.mark.parametrize("name", ["SO3/z", "z", "", "so3/so3"])
def test_an_unknown_protocol_is_refused_by_name(name):
    with pytest.raises(ArgumentError, match=r"`protocol` \(=.*must be one of z/z, z/SO3, SO3/SO3"):
        parse_protocol(name)


@pytest.mark.parametrize("kind", ["z", "SO3"])
def test_rotations_are_proper_and_in_float64(kind):
    turns = protocol_rotations(kind, 50, train=True)
    assert turns.shape == (50, 3, 3) and turns.dtype == torch.float64
    assert (turns @ turns.mT - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-12
    assert (torch.linalg.det(turns) - 1).abs().max() < 1e-12


def test_z_turns_about_the_vertical_axis_alone():
    turns = protocol_rotations("z", 2000, train=True)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.equal(turns @ up, up.expand(2000, 3))
    heading = turns[:, :2, 0]
    assert heading.mean(0).abs().max() < 0.06  # uniform angles: 1 / sqrt(2 * 2000) each


def test_so3_covers_the_sphere_evenly():
    axis = protocol_rotations("SO3", 4000, train=False)[:, :, 2]
    assert axis.mean(0).abs().max() < 0.05
    assert (axis.T @ axis / 4000 - torch.eye(3) / 3).abs().max() < 0.03


def test_a_seed_decides_and_splits_differ():
    draw = protocol_rotations("SO3", 5, train=True, seed=3)
    assert torch.equal(draw, protocol_rotations("SO3", 5, train=True, seed=3))
    assert not torch.equal(draw, protocol_rotations("SO3", 5, train=False, seed=3))
    assert not torch.equal(draw, protocol_rotations("SO3", 5, train=True, seed=4))


@pytest.mark.parametrize("kind", ["z", "SO3"])
def test_rotations_do_not_depend_on_the_default_device(kind):
    wanted = protocol_rotations(kind, 5, train=True)
    with torch.device("meta"):
        assert torch.equal(protocol_rotations(kind, 5, train=True), wanted)


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match=r"`kind` \(='x'\)"):
        protocol_rotations("x", 3, train=True)
    with pytest.raises(ArgumentError, match=r"`seed` \(=-1\)"):
        protocol_rotations("z", 3, train=True, seed=-1)
