"""Sparse products and coalescing against dense matrices, in value and gradient."""

import pytest
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.ops import coalesce_rows, grouped_spmm, sparse


@pytest.fixture(params=("numba", "torch"))
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(sparse, "HAS_NUMBA", False)
    elif not sparse.HAS_NUMBA:
        pytest.skip("numba is not installed")


def block(rows, cols, generator, dtype):
    dense = torch.randn(rows, cols, generator=generator, dtype=dtype)
    return dense * (torch.rand(rows, cols, generator=generator) < 0.5)


def as_groups(blocks):
    """Blocks as one CSR with local columns, one empty cloud allowed."""
    counts = torch.cat([(b != 0).sum(1) for b in blocks])
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    col = torch.cat([b.nonzero()[:, 1] for b in blocks])
    val = torch.cat([b[b != 0] for b in blocks])
    rows = torch.tensor([0] + [len(b) for b in blocks]).cumsum(0)
    columns = torch.tensor([0] + [b.shape[1] for b in blocks]).cumsum(0)
    return ptr, col, val, rows, columns


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_product_equals_the_dense_one(backend, dtype, generator):
    blocks = [block(r, c, generator, dtype) for r, c in ((4, 3), (0, 2), (5, 6))]
    x = torch.randn(11, 7, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(9, 7, generator=generator, dtype=dtype)
    out = grouped_spmm(x, *as_groups(blocks))
    expected = torch.block_diag(*blocks) @ x
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    (reference,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(gradient, reference)


def test_gradcheck(backend, generator):
    blocks = [block(3, 4, generator, torch.float64), block(2, 3, generator, torch.float64)]
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    groups = as_groups(blocks)
    assert torch.autograd.gradcheck(lambda x: grouped_spmm(x, *groups), (x,))
    assert torch.autograd.gradgradcheck(lambda x: grouped_spmm(x, *groups), (x,))


def test_derivatives_of_functions(backend, generator):
    blocks = [block(3, 4, generator, torch.float64), block(2, 3, generator, torch.float64)]
    groups, whole = as_groups(blocks), torch.block_diag(*blocks)
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    found = torch.func.grad(lambda x: grouped_spmm(x, *groups).pow(2).sum())(x)
    torch.testing.assert_close(found, 2 * whole.T @ whole @ x)
    _, tangent = torch.func.jvp(lambda x: grouped_spmm(x, *groups), (x,), (x + 1,))
    torch.testing.assert_close(tangent, whole @ (x + 1))


def test_many_features_are_mapped_over(backend, generator):
    blocks = [block(3, 4, generator, torch.float64), block(2, 3, generator, torch.float64)]
    groups, whole = as_groups(blocks), torch.block_diag(*blocks)
    x = torch.randn(7, 5, 2, generator=generator, dtype=torch.float64)
    for dim in (0, 1, 2):
        found = torch.func.vmap(lambda x: grouped_spmm(x, *groups), dim)(x.movedim(1, dim))
        torch.testing.assert_close(found, torch.einsum("rs,svc->vrc", whole, x))
    nested = torch.func.vmap(torch.func.vmap(lambda x: grouped_spmm(x[:, None], *groups), 1), 1)
    torch.testing.assert_close(nested(x)[..., 0], torch.einsum("rs,svc->vcr", whole, x))
    eye = torch.eye(2, dtype=torch.float64)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        found = jacobian(lambda x: grouped_spmm(x, *groups))(x[:, 0])
        torch.testing.assert_close(found, torch.einsum("rs,cd->rcsd", whole, eye))
    with pytest.raises(ArgumentError, match="cannot be mapped over by vmap"):
        torch.func.vmap(lambda val: grouped_spmm(x[:, 0], groups[0], groups[1], val, *groups[3:]))(
            groups[2].expand(3, -1)
        )


def test_gradients_are_computed_many_at_once(backend, generator):
    blocks = [block(3, 4, generator, torch.float64), block(2, 3, generator, torch.float64)]
    groups, whole = as_groups(blocks), torch.block_diag(*blocks)
    x = torch.randn(7, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    eye = torch.eye(5, dtype=torch.float64)[:, :, None]
    (found,) = torch.autograd.grad(grouped_spmm(x, *groups), x, eye, is_grads_batched=True)
    torch.testing.assert_close(found[:, :, 0], whole)
    for strategy in ("reverse-mode", "forward-mode"):
        found = torch.autograd.functional.jacobian(
            lambda x: grouped_spmm(x, *groups), x.detach(), vectorize=True, strategy=strategy
        )
        torch.testing.assert_close(found[:, 0, :, 0], whole)
    found = torch.autograd.functional.hessian(
        lambda x: grouped_spmm(x, *groups).square().sum(), x.detach(), vectorize=True
    )
    torch.testing.assert_close(found[:, 0, :, 0], 2 * whole.T @ whole)


def test_half_precision_stays(backend, generator):
    groups = as_groups([block(6, 5, generator, torch.float32)])
    x = torch.randn(5, 3, generator=generator).bfloat16().requires_grad_()
    out = grouped_spmm(x, *groups)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("column", [-1, 4, 10**6])
def test_columns_outside_a_cloud_are_refused(backend, generator, column):
    blocks = [
        block(3, 4, generator, torch.float32).abs() + 1,
        block(2, 3, generator, torch.float32),
    ]
    ptr, col, val, rows, columns = as_groups(blocks)
    col[1] = column
    x = torch.randn(7, 2, generator=generator)
    with pytest.raises(ArgumentError, match="`col` has entries outside"):
        grouped_spmm(x, ptr, col, val, rows, columns)


@pytest.mark.parametrize("which", range(5))
def test_pointers_that_do_not_fit_are_refused(backend, generator, which):
    groups = list(as_groups([block(3, 4, generator, torch.float32) + 9]))
    groups[which] = groups[which][:-1]
    with pytest.raises(ShapeError, match="must"):
        grouped_spmm(torch.randn(4, 2, generator=generator), *groups)


def test_sixteen_bit_columns_give_the_same(backend, generator):
    ptr, col, val, rows, columns = as_groups([block(6, 5, generator, torch.float32)])
    x = torch.randn(5, 3, generator=generator)
    wide = grouped_spmm(x, ptr, col, val, rows, columns)
    assert torch.equal(wide, grouped_spmm(x, ptr, col.short(), val, rows, columns))


def test_coalesced_is_the_sum_of_the_entries(backend, generator):
    row = torch.randint(0, 6, (60,), generator=generator)
    col = torch.randint(0, 4, (60,), generator=generator)
    val = torch.randn(60, generator=generator, dtype=torch.float64)
    ptr, out_col, out_val = coalesce_rows(row, col, val, 7, 4)  # the last row stays empty
    dense = torch.zeros(7, 4, dtype=torch.float64).index_put_((row, col), val, accumulate=True)
    rebuilt = torch.zeros_like(dense)
    for r in range(7):
        here = slice(int(ptr[r]), int(ptr[r + 1]))
        assert len(out_col[here].unique()) == len(out_col[here])
        rebuilt[r, out_col[here]] = out_val[here]
    torch.testing.assert_close(rebuilt, dense)
    assert len(out_val) == len(torch.unique(row * 4 + col))


def test_nothing_to_coalesce(backend):
    none = torch.zeros(0, dtype=torch.long)
    ptr, col, val = coalesce_rows(none, none, torch.zeros(0), 3, 2)
    assert ptr.tolist() == [0, 0, 0, 0] and len(col) == len(val) == 0


@pytest.mark.parametrize("row, col, name", [(3, 0, "row"), (-1, 0, "row"), (0, 2, "col")])
def test_entries_outside_the_matrix_are_refused(backend, row, col, name):
    with pytest.raises(ArgumentError, match=f"`{name}` .* must be in"):
        coalesce_rows(torch.tensor([row]), torch.tensor([col]), torch.ones(1), 3, 2)


@pytest.mark.parametrize("name", ["row", "col", "val"])
def test_entries_of_unequal_numbers_are_refused(backend, name):
    entries = {"row": torch.zeros(3).long(), "col": torch.zeros(3).long(), "val": torch.ones(3)}
    entries[name] = entries[name].repeat(2)
    with pytest.raises(ShapeError, match="`(row|col)` .* one for each entry of `val`"):
        coalesce_rows(**entries, num_rows=2, num_cols=2)


def test_coordinates_that_are_no_whole_numbers_are_refused(backend):
    with pytest.raises(ShapeError, match="`col` .*float32.* must be whole numbers"):
        coalesce_rows(torch.tensor([0]), torch.tensor([0.5]), torch.ones(1), 2, 2)


def test_entries_outside_their_cloud_are_told_in_forks_too(monkeypatch):
    monkeypatch.setattr(sparse, "in_fork", lambda: True)
    x, ptr = torch.ones(6, 2), torch.tensor([0, 1, 2])
    ends = torch.tensor([0, 1, 2]), torch.tensor([0, 3, 6])
    for col in ([4, 0], [0, -1]):
        with pytest.raises(ArgumentError, match="`col`"):
            grouped_spmm(x, ptr, torch.tensor(col), torch.ones(2), *ends)


def test_sums_of_entries_are_differentiable(backend):
    row, col = torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0, 1, 2])
    val = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    _, _, total = coalesce_rows(row, col, val, 2, 3)
    total.square().sum().backward()
    assert val.grad.tolist() == [8.0, 4.0, 8.0, 8.0]


def test_coordinates_may_be_small_integers(backend):
    row, col = torch.tensor([70_000], dtype=torch.int32), torch.tensor([5], dtype=torch.int32)
    ptr, found, _ = coalesce_rows(row, col, torch.ones(1), 70_001, 70_000)
    assert found.tolist() == [5] and ptr[-2:].tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_in_16_bits(backend, dtype, generator):
    x = torch.randn(4, 3, generator=generator)
    ptr, col = torch.tensor([0, 2, 3]), torch.tensor([0, 3, 1])
    val, ends = (
        torch.tensor([0.5, 2.0, 1.0], dtype=dtype),
        (torch.tensor([0, 2]), torch.tensor([0, 4])),
    )
    wanted = grouped_spmm(x, ptr, col, val.float(), *ends)
    assert torch.equal(grouped_spmm(x, ptr, col, val, *ends), wanted)
