"""The convolution with functions taken apart is the sparse product times the weights."""

import pytest
import torch

from pcequi.ops import Characters, dense, dense_blocks, grouped_bmm, twofold, twofold_product
from pcequi.orbits import basis_turns, group_products
from pcequi.rotations import finite_group

CLOUDS, POINTS, SEEN, WIDTH, OUT = 3, 4, 5, 6, 7
CASES = [("D2", 1), ("D2", 15), ("C2", 27), ("D2", 33)]


@pytest.fixture(params=CASES, ids=str)
def characters(request):
    name, basis = request.param
    group = finite_group(name, dtype=torch.float64)
    found = Characters.of(basis_turns(group, basis), group_products(group))
    assert found is not None
    return found


@pytest.fixture
def case(characters, generator):
    """Blocks of both kinds as a function of the dtype, features and weights."""
    size, basis = characters.turns.shape
    matrix = torch.rand(
        CLOUDS, POINTS * basis, SEEN * size, dtype=torch.float64, generator=generator
    )
    matrix[matrix < 0.6] = 0
    matrix[1, 0] = 0  # a row without entries
    rows = (matrix != 0).sum(2).flatten(), matrix.nonzero()[:, 2], matrix[matrix != 0]

    def blocks(kind, dtype):
        return dense_blocks(*rows, CLOUDS, SEEN * size, dtype, kind)

    x = torch.randn(CLOUDS * SEEN * size, WIDTH, dtype=torch.float64, generator=generator)
    weight = torch.randn(basis * (WIDTH + 1), OUT, dtype=torch.float64, generator=generator)
    return blocks, x, weight


@pytest.fixture(params=[False, True], ids=["", "constant"])
def product(request, case, characters):
    """The function under test of features and weights, what it is to be, and its arguments."""
    constant = request.param
    blocks, x, weight = case
    weight = weight[: len(characters.turns[0]) * (WIDTH + constant)]

    def run(x, weight):
        both = blocks(characters.twofold, x.dtype)
        return twofold_product(x, both, characters.twofold, weight, constant=constant)

    def reference(x, weight):
        z = grouped_bmm(x, blocks(characters, x.dtype), characters, constant=constant)
        return z.reshape(-1, len(weight)) @ weight

    return run, reference, x, weight


def test_functions_are_taken_apart_and_put_together(characters):
    functions = characters.functions
    basis = characters.turns.shape[1]
    identity = torch.eye(basis)
    torch.testing.assert_close(functions.weights.T @ functions.matrix, identity)
    assert sum(functions.sizes) == basis
    # Turning all functions multiplies each row by its character.
    start = 0
    for sign, size in zip(characters.signs, functions.sizes, strict=True):
        rows = functions.matrix[start : start + size]
        for k, turn in enumerate(characters.turns):
            torch.testing.assert_close(rows[:, turn], sign[k] * rows)
        start += size


def test_rows_taken_apart_multiply_as_they_did(case, characters):
    blocks, x, _ = case
    for constant in (0, 2):
        found = grouped_bmm(
            x, blocks(characters.twofold, x.dtype), characters.twofold, constant=constant
        )
        wanted = grouped_bmm(x, blocks(characters, x.dtype), characters, constant=constant)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_is_the_product_and_then_the_weights(product, dtype, generator):
    run, reference, *inputs = product
    wanted = reference(*inputs)
    functional = torch.randn(wanted.shape, dtype=torch.float64, generator=generator)
    wide = [one.clone().requires_grad_() for one in inputs]
    (reference(*wide) * functional).sum().backward()
    own = [one.to(dtype).requires_grad_() for one in inputs]
    out = run(*own)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    assert (out.double() - wanted).abs().max() < tolerance * wanted.abs().max()
    (out * functional.to(dtype)).sum().backward()
    for found, exact in zip(own, wide, strict=True):
        difference = (found.grad.double() - exact.grad).abs().max()
        assert difference < tolerance * exact.grad.abs().max()
    with torch.no_grad():  # characters one after the other in the same memory
        torch.testing.assert_close(run(*own), out)


def test_without_kernels_it_is_the_same(product, monkeypatch):
    run, _, *inputs = product
    inputs = [one.float() for one in inputs]
    found = run(*inputs)
    monkeypatch.setattr(dense, "HAS_NUMBA", False)
    monkeypatch.setattr(twofold, "HAS_NUMBA", False)
    torch.testing.assert_close(run(*inputs), found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("characters", [("D2", 7), ("C2", 7)], indirect=True, ids=str)
def test_gradients(product):
    run, _, x, weight = product
    inputs = [one.clone().requires_grad_() for one in (x[:, :2].repeat(1, 3), weight)]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, fast_mode=True)
    for needed in ((True, False), (False, True)):  # frozen weights, or first layers
        own = [one.detach().requires_grad_(n) for one, n in zip(inputs, needed, strict=True)]
        assert torch.autograd.gradcheck(run, own, fast_mode=True)


@pytest.mark.parametrize("characters", [("D2", 7)], indirect=True, ids=str)
def test_many_features_and_many_networks_are_mapped_over(product, generator):
    run, _, x, weight = product
    many = torch.randn(3, *x.shape, dtype=torch.float64, generator=generator)
    weights = torch.randn(3, *weight.shape, dtype=torch.float64, generator=generator)
    wanted = torch.stack([run(*one) for one in zip(many, weights, strict=True)])
    torch.testing.assert_close(torch.func.vmap(run)(many, weights), wanted)
    slope = torch.func.jvp(lambda w: run(x, w), (weight,), (weights[0],))[1]
    torch.testing.assert_close(slope, run(x, weights[0]))  # linear in the weights


@pytest.mark.parametrize("characters", [("D2", 15)], indirect=True, ids=str)
@pytest.mark.parametrize("constant", [False, True])
def test_it_is_traced_by_operations_that_can_be(case, characters, constant):
    """The kernels of numba cannot be looked into."""
    blocks, x, weight = case
    both, twofold = blocks(characters.twofold, torch.float32), characters.twofold
    x, weight = x.float(), weight[: 15 * (WIDTH + constant)].float()

    class Product(torch.nn.Module):
        def forward(self, x, weight):
            return twofold_product(x, both, twofold, weight, constant=constant)

    wanted = Product()(x, weight)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(
        torch.compile(Product(), backend="eager")(x, weight), wanted, **close
    )
    exported = torch.export.export(Product(), (x, weight)).module()
    torch.testing.assert_close(exported(x, weight), wanted, **close)
