"""Every public name says how it moves with a cloud, and what its parameters are."""

import importlib
import inspect
import pkgutil

import pytest

import pcequi
from pcequi import errors

# The commands have `--help` instead; kernels are called by their faces alone, recipes of made
# shapes by their names.
INSIDE = (
    "pcequi.__main__",
    "pcequi.cli",
    "pcequi.bench",
    "pcequi.ops.compiled",
    "pcequi.datasets.shapes_",
)


def public_names():
    """Functions and classes in ``__all__`` of any module, each once, and errors."""
    found = {name: value for name, value in vars(errors).items() if callable(value)}
    for module in pkgutil.walk_packages(pcequi.__path__, "pcequi."):
        if not module.name.startswith(INSIDE):
            room = importlib.import_module(module.name)
            found |= {name: getattr(room, name) for name in getattr(room, "__all__", ())}
    kinds = (inspect.isfunction, inspect.isclass)
    return {name: v for name, v in sorted(found.items()) if any(kind(v) for kind in kinds)}


NAMES = public_names()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_is(name):
    value = NAMES[name]
    assert "**Equivariance:**" in (value.__doc__ or "")
    if inspect.isfunction(value):
        named = inspect.signature(value).parameters.values()
        own = [one for one in named if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        assert [one.name for one in own if one.annotation is one.empty] == []


def test_there_are_names():
    assert len(NAMES) > 150 and {"ArgumentError", "GroupConv", "align_clouds"} <= set(NAMES)
