"""Laws of an equivariant layer, for the tests of your own layer to inherit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import torch
from torch import Tensor

from pcequi.testing.checker import assert_equivariant
from pcequi.testing.clouds import generic_clouds
from pcequi.testing.probe import Probe, change, where_it_is

__all__ = ["EquivariantLayerContract"]


class EquivariantLayerContract:
    """A test class; inherit it, say how to make the layer, and run pytest::

        class TestMyLayer(EquivariantLayerContract):
            def make_layer(self):
                return MyLayer(channels=8)

    Needs nothing but ``assert``-style test discovery. Leave a law out by
    setting it to None, such as ``test_batching = None``.

    Attributes to override:
        action: how the output should move (``as_vectors``, ...); None: not at all.
        per_point: whether the output has one row a point.
        group: ``"SE(3)"`` or ``"E(3)"``.
        tolerance: largest relative change in float64.
        tolerance_float32: of float32 against float64, and of moved clouds.

    **Equivariance:** what the laws are about.
    """

    action: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    per_point: bool = False
    group: str = "SE(3)"
    tolerance: float = 1e-6
    tolerance_float32: float = 1e-3

    def make_layer(self) -> torch.nn.Module:
        """The layer under test, with weights of its own choice."""
        raise NotImplementedError("override make_layer(): return the layer under test")

    def call(self, layer: torch.nn.Module, pos: Tensor, batch: Tensor) -> Tensor:
        """How the layer is called: points [N, 3] and their cloud [N], sorted."""
        return layer(pos, batch)

    def make_clouds(self) -> list[Tensor]:
        """Clouds [N, 3], float64, of different sizes."""
        return generic_clouds(3, least=20, most=40, generator=torch.Generator("cpu").manual_seed(0))

    def _layer(self, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make_layer().to(dtype).eval()

    def _alone(self, layer: torch.nn.Module, pos: Tensor) -> Tensor:
        return self._together(layer, [pos])

    def _together(self, layer: torch.nn.Module, clouds: list[Tensor]) -> Tensor:
        """Of a batch, on the device of the layer's parameters."""
        pos, sizes = torch.cat(clouds), [len(cloud) for cloud in clouds]
        pos = pos.to(where_it_is(layer, [pos]))
        place = torch.arange(len(clouds), device=pos.device)
        sizes = torch.tensor(sizes, device=pos.device)
        return self.call(layer, pos, torch.repeat_interleave(place, sizes))

    def _size(self, layer: torch.nn.Module) -> float:
        """Of the entries of its outputs, which says what is rounding."""
        return Probe(lambda pos: self._alone(layer, pos)).typical_size(self.make_clouds())

    def _check(self, **settings) -> None:
        parent = self

        class Function(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = parent._layer()

            def forward(self, pos: Tensor) -> Tensor:
                return parent._alone(self.layer, pos)

        # `action` through the class: a plain function there must not become a method.
        assert_equivariant(
            Function().eval(),
            self.make_clouds(),
            action=type(self).action,
            per_point=self.per_point,
            group=self.group,
            tolerance=self.tolerance,
            **settings,
        )

    def test_moves_as_it_should(self):
        """Rotations, translations, new orders (and mirror images) in float64."""
        self._check(tolerance_float32=None)

    def test_moves_as_it_should_in_float32(self):
        """The median over motions, in float32."""
        self._check(tolerance_float32=self.tolerance_float32)

    def test_batching(self):
        """Clouds in a batch give what each gives alone."""
        layer, clouds = self._layer(), self.make_clouds()
        # Each at a place of its own: centred clouds would hide a common mean.
        clouds = [cloud + 2.0 * place for place, cloud in enumerate(clouds)]
        with torch.no_grad():
            together = self._together(layer, clouds)
            alone = torch.cat([self._alone(layer, cloud) for cloud in clouds])
        size = self._size(layer)
        _same(together, alone, self.tolerance, "in a batch", "one by one", size)

    def test_dtype(self):
        """float32 in, float32 out; float64 likewise; and they agree."""
        cloud = self.make_clouds()[0]
        with torch.no_grad():
            outs = {d: self._alone(self._layer(d), cloud.to(d)) for d in _DTYPES}
        for dtype, out in outs.items():
            _require(out.dtype == dtype, f"points in {dtype} gave an output in {out.dtype}")
        size = self._size(self._layer())
        _same(*outs.values(), self.tolerance_float32, "in float32", "in float64", size)

    def test_gradients_are_finite(self):
        """With respect to points and weights; some weight learns."""
        layer = self._layer().train()
        clouds = [cloud.detach().clone().requires_grad_() for cloud in self.make_clouds()]
        self._together(layer, clouds).square().sum().backward()
        gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
        if list(layer.parameters()):
            _require(
                any(g.abs().sum() > 0 for g in gradients.values()), "no weight gets a gradient"
            )
        if clouds[0].grad is not None:  # none where geometry is precomputed
            gradients["points"] = torch.cat([cloud.grad for cloud in clouds])
        for name, gradient in gradients.items():
            _require(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite")

    def test_copies_are_equal(self):
        """By ``copy.deepcopy``, by pickle, and by ``state_dict``."""
        layer, cloud = self._layer(), self.make_clouds()[0]
        loaded = self._layer()
        loaded.load_state_dict(layer.state_dict())
        copies = {"deepcopy": copy.deepcopy(layer), "pickle": pickle.loads(pickle.dumps(layer))}
        with torch.no_grad():
            wanted = self._alone(layer, cloud)
            for name, other in {**copies, "state_dict": loaded}.items():
                _same(self._alone(other.eval(), cloud), wanted, 0.0, f"after {name}", "before")


_DTYPES = (torch.float32, torch.float64)


def _require(fact: bool, message: str) -> None:
    # Not `assert`, which python -O leaves out.
    if not fact:
        raise AssertionError(message)


def _same(
    one: Tensor, other: Tensor, tolerance: float, name: str, other_name: str, size: float = 1.0
) -> None:
    _require(
        one.shape == other.shape,
        f"the output is {list(one.shape)} {name} and {list(other.shape)} {other_name}",
    )
    moved = change(other, one, center=False, size=size)
    _require(
        moved <= tolerance,
        f"the output {name} differs from that {other_name} by {moved:.1e} (relative), more than "
        f"{tolerance:g}",
    )
