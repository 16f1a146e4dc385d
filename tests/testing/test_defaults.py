"""The checker works whatever torch's default device and type are."""

import pytest
import torch

from pcequi.testing import (
    EquivariantLayerContract,
    as_vectors,
    check_equivariance,
    generic_clouds,
    symmetric_clouds,
)


@pytest.fixture(params=["meta", "float64", "float16"])
def default(request):
    if request.param == "meta":  # which has no values
        with torch.device("meta"):
            yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.param))
    yield
    torch.set_default_dtype(before)


def profile(pos):
    distance = torch.cdist(pos, pos, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distance.square()[..., None] * distance.new_tensor([1.0, 4.0, 16.0]))


def honest(pos):
    return profile(pos).mean((0, 1))


def axis(pos):
    centred = pos - pos.mean(0)
    return torch.linalg.eigh(centred.T @ centred)[1][:, 0]


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with torch.device("cpu"):
            self.linear = torch.nn.Linear(3, 4)

    def forward(self, pos, batch=None):
        if batch is None:
            return self.linear(honest(pos))
        return torch.stack([self(pos[batch == place]) for place in batch.unique()])


CAUSES = {
    "missing centring": (lambda pos: pos.norm(dim=1).sort().values, None),
    "sign of normals": (axis, as_vectors),
    "world axes": (lambda pos: (pos - pos.mean(0)).abs().sum(0), None),
    "point order": (lambda pos: profile(pos)[0].mean(0), None),
    "neighbour cap": (lambda pos: profile(pos)[:, :32].mean((0, 1)), None),
    "randomness": (lambda pos: honest(pos) * torch.rand(3, device="cpu"), None),
}


def checked():
    found = {}
    for name, (function, action) in CAUSES.items():
        report = check_equivariance(function, action=action, num=2)
        found[name] = (report.cause, report.errors if name != "randomness" else None)
    for function in (honest, Layer()):
        report = check_equivariance(function, num=2)
        assert report.ok and report.errors_float32
    return found


def test_causes_are_found_whatever_the_defaults(default):
    found = checked()
    with torch.device("cpu"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        expected = checked()
        torch.set_default_dtype(before)
    assert found == expected
    assert len({cause for cause, _ in found.values()} & set(CAUSES)) >= 4


def test_clouds_are_on_the_cpu_and_in_float64(default):
    clouds = [*symmetric_clouds().values(), *generic_clouds(2, least=20, most=40)]
    clouds += generic_clouds(1, generator=torch.Generator("cpu").manual_seed(0))
    for cloud in clouds:
        assert cloud.device.type == "cpu" and cloud.dtype == torch.float64


def test_laws_hold_whatever_the_defaults(default):
    class Laws(EquivariantLayerContract):
        def make_layer(self):
            return Layer()

    for name in dir(Laws):
        if name.startswith("test_"):
            getattr(Laws(), name)()
