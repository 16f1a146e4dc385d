"""Dense blocks multiply as the sparse rows that they are made of."""

import copy
import functools
import pickle

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.ops import Characters, dense, dense_blocks, grouped_bmm, grouped_spmm, turned_rows
from pcequi.orbits import basis_turns, group_products
from pcequi.rotations import finite_group

CLOUDS, POINTS, SEEN = 3, 4, 5


def rows_of(blocks):
    """CSR of blocks [G, R, S], columns counted within a cloud."""
    entries = (blocks != 0).sum(2).flatten()
    ptr = torch.cat([entries.new_zeros(1), entries.cumsum(0)])
    return ptr, blocks.nonzero()[:, 2], blocks[blocks != 0]


@pytest.fixture
def make(generator):
    def make(rows, columns):
        blocks = torch.rand(CLOUDS, rows, columns, dtype=torch.float64, generator=generator)
        blocks[blocks < 0.6] = 0
        blocks[1, 0] = 0  # a row without entries
        return blocks

    return make


def test_blocks_are_the_matrix_of_the_rows(make):
    blocks = make(6, 7)
    ptr, col, val = rows_of(blocks)
    entries = (ptr[1:] - ptr[:-1]).short()
    again = dense_blocks(entries, col.short(), val, CLOUDS, 7, torch.float64)
    assert torch.equal(again, blocks)


def test_bfloat16_is_rounded_as_torch_does(make, monkeypatch):
    ptr, col, val = rows_of(make(40, 31) - 0.7)
    val[:3] = torch.tensor([1.00390625, 1.01171875, -3e-41])  # two ties, and nearly nothing
    arguments = (ptr[1:] - ptr[:-1], col, val.float(), CLOUDS, 31, torch.bfloat16)
    found = dense_blocks(*arguments)
    monkeypatch.setattr(dense, "HAS_NUMBA", False)
    assert torch.equal(found, dense_blocks(*arguments))


@pytest.mark.parametrize("name, size", [("D2", 4), ("C2", 2)])
def test_characters_are_the_homomorphisms_to_signs(name, size):
    products = group_products(finite_group(name, dtype=torch.float64))
    signs = Characters.of(torch.zeros(size, 1, dtype=torch.long), products).signs
    assert signs.shape == (size, size)
    assert torch.equal(signs[:, products], signs[:, :, None] * signs[:, None, :])
    assert torch.equal(signs @ signs.T, size * torch.eye(size))


@pytest.mark.parametrize("name", ["C1", "C4", "D4", "T"])
def test_groups_with_other_turns_have_none(name):
    group = finite_group(name, dtype=torch.float64)
    assert Characters.of(basis_turns(group, 15), group_products(group)) is None


CASES = [("D2", 15), ("C2", 27), ("C2", 7), ("D2", 33)]


@pytest.fixture(params=CASES, ids=str)
def case(request, make, generator):
    """Characters, rows of first poses, CSR of all rows with its pointers, and features."""
    name, basis = request.param
    group = finite_group(name, dtype=torch.float64)
    turns, products, size = basis_turns(group, basis), group_products(group), len(group)
    first = rows_of(make(POINTS * basis, SEEN * size))
    clouds = torch.arange(CLOUDS + 1)
    pointers = clouds * POINTS * size * basis, clouds * SEEN * size
    x = torch.randn(CLOUDS * SEEN * size, 6, dtype=torch.float64, generator=generator)
    matrix = (*turned_rows(*first, turns, products), *pointers)
    return Characters.of(turns, products), first, matrix, x


def blocks_of(characters, first, dtype=torch.float64):
    ptr, col, val = first
    entries = ptr[1:] - ptr[:-1]
    return dense_blocks(entries, col, val, CLOUDS, SEEN * characters.size, dtype, characters)


def test_rows_of_one_pose_multiply_as_those_of_all(case, generator):
    characters, first, matrix, x = case
    blocks = blocks_of(characters, first)
    expected = grouped_spmm(x, *matrix)
    torch.testing.assert_close(grouped_bmm(x, blocks, characters), expected)
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    torch.testing.assert_close(
        grouped_bmm(x, blocks, characters, constant=True), grouped_spmm(ones, *matrix)
    )
    # Both are linear in x: the gradients of a random functional say whether they agree.
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    grads = []
    for product in (
        lambda x: grouped_bmm(x, blocks, characters),
        lambda x: grouped_spmm(x, *matrix),
    ):
        own = x.clone().requires_grad_()
        grads += torch.autograd.grad((product(own) * weight).sum(), own)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("constant", [1, 8])
def test_backends_agree(dtype, constant, case, monkeypatch):
    """The kernels sum in float32, torch in the type itself."""
    characters, first, matrix, x = case
    ones = torch.ones(len(x), constant, dtype=x.dtype)
    expected = grouped_spmm(torch.cat([x, ones], 1), *matrix)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    for numba in (dense.HAS_NUMBA, False):
        monkeypatch.setattr(dense, "HAS_NUMBA", numba)
        own = x.to(dtype).requires_grad_()
        blocks = blocks_of(characters, first, dtype)
        out = grouped_bmm(own, blocks, characters, constant=constant)
        assert out.dtype == dtype
        assert (out.double() - expected).abs().max() < tolerance * expected.abs().max()
        out.backward(torch.ones_like(out))
        wide = x.clone().requires_grad_()
        grouped_spmm(wide, *matrix).sum().backward()
        assert (own.grad.double() - wide.grad).abs().max() < tolerance * wide.grad.abs().max()


def test_blocks_in_bfloat16_are_rounded_as_torch_does(case, monkeypatch):
    characters, (ptr, col, val), *_ = case
    first = ptr, col, (val * 8).round() / 8  # sums in any order are the same
    found = blocks_of(characters, first, torch.bfloat16)
    monkeypatch.setattr(dense, "HAS_NUMBA", False)
    assert torch.equal(found, blocks_of(characters, first, torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("constant", [False, True])
def test_many_features_are_mapped_over(case, constant, dtype, generator):
    characters, first, _, x = case
    blocks = blocks_of(characters, first, dtype)
    many = torch.randn(len(x), 3, 2, dtype=dtype, generator=generator)

    def product(x):
        return grouped_bmm(x, blocks, characters, constant=constant)

    expected = torch.stack([product(one) for one in many.unbind(1)])
    torch.testing.assert_close(torch.func.vmap(product, 1)(many), expected)
    expected = torch.autograd.functional.jacobian(lambda x: product(x)[:5], many[:, 0])
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        found = jacobian(lambda x: product(x)[:5])(many[:, 0])
        torch.testing.assert_close(found, expected)


def test_gradients(make, generator):
    group = finite_group("D2", dtype=torch.float64)
    characters = Characters.of(basis_turns(group, 7), group_products(group))
    blocks = make(4 * 7, 2).view(CLOUDS, 4, 7, 2)
    x = torch.randn(CLOUDS * 8, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    for constant in (False, True):
        both = functools.partial(
            grouped_bmm, blocks=blocks, characters=characters, constant=constant
        )
        assert torch.autograd.gradcheck(both, (x,))
        assert torch.autograd.gradgradcheck(both, (x,))
        assert torch.autograd.gradcheck(both, (x,), check_forward_ad=True)
    blocks = make(7, 8)
    assert torch.autograd.gradcheck(lambda x: grouped_bmm(x, blocks), (x,))


@pytest.mark.parametrize("constant", [1, 3])
def test_ones_are_appended_without_characters(constant, make, generator):
    blocks = make(6, 7)
    x = torch.randn(CLOUDS * 7, 2, dtype=torch.float64, generator=generator)
    out = grouped_bmm(x, blocks, constant=constant)
    sums = blocks.sum(2).view(-1, 1).expand(-1, constant)
    torch.testing.assert_close(out, torch.cat([grouped_bmm(x, blocks), sums], 1))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_characters_are_copied_whole(again, case):
    characters = case[0]
    found = again(characters)
    assert repr(found) == repr(characters) and "inverse" not in repr(found)
    for name in ("signs", "turns", "inverse"):
        assert torch.equal(getattr(found, name), getattr(characters, name))
    every = torch.arange(characters.turns.shape[1]).expand_as(characters.turns)
    assert torch.equal(characters.turns.gather(1, characters.inverse), every)


def test_precision_is_that_of_the_features(make):
    blocks = make(6, 7)
    out = grouped_bmm(torch.randn(CLOUDS * 7, 3, dtype=torch.bfloat16), blocks)
    assert out.dtype == torch.bfloat16


def test_it_is_traced_by_operations_that_can_be(case):
    """The kernels of numba cannot be looked into."""
    characters, first, matrix, x = case
    blocks, x = blocks_of(characters, first, torch.float32), x.float()
    expected = grouped_bmm(x, blocks, characters)

    class Product(torch.nn.Module):
        def forward(self, x):
            return grouped_bmm(x, blocks, characters)

    compiled = torch.compile(Product(), backend="eager")
    torch.testing.assert_close(compiled(x), expected, atol=1e-5, rtol=1e-5)
    own = x.clone().requires_grad_()
    compiled(own).sum().backward()
    wide = x.double().requires_grad_()
    grouped_spmm(wide, *matrix).sum().backward()
    torch.testing.assert_close(own.grad, wide.grad.float(), atol=1e-4, rtol=1e-4)
    exported = torch.export.export(Product(), (x,)).module()
    torch.testing.assert_close(exported(x), expected, atol=1e-5, rtol=1e-5)


def test_characters_of_other_sizes_are_refused():
    with pytest.raises(ArgumentError, match=r"`signs` \(=\[8, 8\]\) must be of 2 or 4"):
        Characters(torch.ones(8, 8), torch.zeros(8, 7, dtype=torch.long))
    with pytest.raises(ArgumentError, match="`turns` .*of as many poses"):
        Characters(torch.ones(2, 2), torch.zeros(4, 7, dtype=torch.long))
