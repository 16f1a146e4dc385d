"""Dense blocks multiply as the sparse rows that they are made of."""

import pytest
import torch

from pcequi.ops import RowTurns, dense, dense_blocks, grouped_bmm, grouped_spmm, turned_rows
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


@pytest.mark.parametrize("name, basis", [("D2", 15), ("C4", 27), ("C2", 7), ("D2", 33)])
def test_rows_of_one_pose_multiply_as_those_of_all(name, basis, make, generator):
    group = finite_group(name, dtype=torch.float64)
    turns, products, size = basis_turns(group, basis), group_products(group), len(group)
    blocks = make(POINTS * basis, SEEN * size)
    x = torch.randn(CLOUDS * SEEN * size, 6, dtype=torch.float64, generator=generator)
    ptr, col, val = turned_rows(*rows_of(blocks), turns, products)
    clouds = torch.arange(CLOUDS + 1)
    rows, columns = clouds * POINTS * size * basis, clouds * SEEN * size
    expected = grouped_spmm(x, ptr, col, val, rows, columns)
    turned = RowTurns.of(turns, products)
    torch.testing.assert_close(grouped_bmm(x, blocks, turned), expected)
    # Both are linear in x: the gradients of a random functional say whether they agree.
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    grads = []
    for product in (
        lambda x: grouped_bmm(x, blocks, turned),
        lambda x: grouped_spmm(x, ptr, col, val, rows, columns),
    ):
        own = x.clone().requires_grad_()
        grads += torch.autograd.grad((product(own) * weight).sum(), own)
    torch.testing.assert_close(*grads)


def test_gradients(make, generator):
    group = finite_group("D2", dtype=torch.float64)
    turned = RowTurns.of(basis_turns(group, 7), group_products(group))
    blocks = make(7, 8)
    x = torch.randn(CLOUDS * 8, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: grouped_bmm(x, blocks, turned), (x,))
    assert torch.autograd.gradcheck(lambda x: grouped_bmm(x, blocks), (x,))


def test_precision_is_that_of_the_features(make):
    blocks = make(6, 7)
    out = grouped_bmm(torch.randn(CLOUDS * 7, 3, dtype=torch.bfloat16), blocks)
    assert out.dtype == torch.bfloat16
