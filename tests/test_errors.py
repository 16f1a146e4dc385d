"""What is no whole number, or too small, is told by its own name, whoever looks."""

import numpy as np
import pytest

from pcequi.errors import ArgumentError, check_count
from pcequi.kernels import SE3Kernel
from pcequi.nn import GroupConv
from pcequi.pose_graph import Level
from pcequi.poses import CentroidPoses, GridPoses
from pcequi.training.fit import FitSettings
from pcequi.training.run_settings import RunSettings

CASES = {
    "epochs": lambda value: FitSettings(epochs=value),
    "batch_size": lambda value: FitSettings(batch_size=value),
    "num_points": lambda value: RunSettings(num_points=value),
    "limit": lambda value: RunSettings(limit=value),
    "resamplings": lambda value: RunSettings(resamplings=value),
    "data_seed": lambda value: RunSettings(data_seed=value),
    "in_channels": lambda value: GroupConv(value, 4, SE3Kernel(7)),
}


@pytest.mark.parametrize("value", [2.5, -1, True, "3"])
@pytest.mark.parametrize("name", CASES)
def test_counts_are_whole_numbers(name, value):
    with pytest.raises(ArgumentError, match=rf"`{name}` \(={value!r}\) must be a whole number"):
        CASES[name](value)


def test_counts_are_pythons_own():
    assert type(check_count("num", np.int64(3))) is int
    assert type(Level(0.3, num_points=np.int32(5)).num_points) is int
    assert check_count("num", None, none=True) is None
    with pytest.raises(ArgumentError, match="at least 1$"):
        check_count("num", None)


@pytest.mark.parametrize("rotations", ["X", 2.5, 0, "C0", True, False, 5.0, None, [5], "5"])
@pytest.mark.parametrize("sampler", [GridPoses, CentroidPoses])
def test_groups_are_told_by_the_argument_of_the_caller(sampler, rotations):
    assert sampler(1).rotations == 1 and sampler(np.int64(5)).rotations == 5  # kept, equal to some
    with pytest.raises(ArgumentError, match=r"`rotations` \(=.*\) must name a group"):
        sampler(rotations)


def test_kernels_are_told_by_the_argument_of_the_caller():
    with pytest.raises(ArgumentError, match=r"`kernel_points` \(=9\) must be one of"):
        Level(0.3, kernel_points=9)
    with pytest.raises(ArgumentError, match=r"`kernel_rotations` \(=3\) must be 1, 2"):
        Level(0.3, kernel_rotations=3)
    with pytest.raises(ArgumentError, match=r"`num_points` \(=9\) must be one of"):
        SE3Kernel(9)


def test_data_sets_are_told_before_they_are_looked_for():
    with pytest.raises(ArgumentError, match=r"`data` \(='nope'\) must be one of shapes"):
        RunSettings(data="nope")
