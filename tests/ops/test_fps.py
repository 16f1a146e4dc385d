"""Farthest-point sampling against a slow reference that is written differently."""

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.ops import fps as module
from pcequi.ops.fps import NOISE, TIE, ZERO, farthest_point_sampling


def reference(x, num, key):
    """Picks by the rules of the docstring, with a whole distance matrix and loops."""
    square = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    spread = (x - x.mean(0)).square().sum(1)
    tie = TIE

    def best(values, rows):
        top = max(float(values[r]) for r in rows)
        tied = [r for r in rows if float(values[r]) >= top * (1 - tie)]
        high = max(float(key[r]) for r in tied)
        return next(r for r in tied if float(key[r]) >= high - tie * float(key.abs().max()))

    picks = [best(spread, range(len(x)))]
    while len(picks) < num:
        left = [r for r in range(len(x)) if r not in picks]
        nearest = square[:, picks].min(1).values
        if max(float(nearest[r]) for r in left) <= ZERO * float(spread.max()):
            picks.append(left[0])
        else:
            picks.append(best(nearest, left))
    return torch.tensor(picks), square[:, picks].min(1).values.sqrt()


def clouds():
    generator = torch.Generator().manual_seed(3)
    lattice = torch.cartesian_prod(*[torch.arange(3, dtype=torch.float64)] * 3)
    yield "generic", torch.randn(40, 5, dtype=torch.float64, generator=generator)
    yield "lattice", lattice
    yield "copies", torch.randn(8, 4, dtype=torch.float64, generator=generator).repeat(4, 1)
    yield "one row", torch.ones(1, 3, dtype=torch.float64)
    yield "one place", torch.ones(6, 3, dtype=torch.float64)


@pytest.fixture(params=list(clouds()), ids=lambda pair: pair[0])
def rows(request):
    return request.param[1]


@pytest.fixture(params=("numba", "torch"))
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(module, "HAS_NUMBA", False)
    elif not module.HAS_NUMBA:
        pytest.skip("numba is not installed")


def test_picks_and_distances_equal_the_reference(rows, backend):
    key = torch.randn(len(rows), dtype=rows.dtype, generator=torch.Generator().manual_seed(1))
    for num in {1, len(rows) // 2 or 1, len(rows)}:
        index, assignment, distance = farthest_point_sampling(rows, num, key=key)
        expected, least = reference(rows, num, key)
        assert index.tolist() == expected.tolist()
        torch.testing.assert_close(distance, least, atol=1e-7, rtol=1e-7)
        own = (rows - rows[index[assignment]]).norm(dim=1)
        torch.testing.assert_close(own, least, atol=1e-7, rtol=1e-7)
        assert assignment[index].tolist() == list(range(num))


def test_exact_count_and_no_repeats(rows, backend):
    index, _, _ = farthest_point_sampling(rows, len(rows))
    assert sorted(index.tolist()) == list(range(len(rows)))


def test_copies_are_picked_only_when_nothing_else_is_left(backend):
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    index, _, distance = farthest_point_sampling(x.repeat(4, 1), 8)
    assert sorted((index % 8).tolist()) == list(range(8))
    assert distance.max() == 0


def test_the_largest_key_wins_a_tie(backend):
    square = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    for winner in range(4):
        key = torch.zeros(4, dtype=torch.float64)
        key[winner] = 1
        assert farthest_point_sampling(square, 1, key=key)[0].item() == winner


def test_a_row_between_two_picks_stays_with_the_earlier(backend):
    line = torch.tensor([[-1.0], [1.0], [0.0]], dtype=torch.float64)
    for nudge in (-1e-13, 0.0, 1e-13):
        line[2] = nudge
        index, assignment, _ = farthest_point_sampling(line, 2)
        assert index[assignment[2]] == index[0]


def test_picks_do_not_depend_on_the_order_of_the_rows(backend, generator):
    x = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    key = x @ x.new_tensor([1.0, 0.3, -0.2, 0.7])
    index, _, _ = farthest_point_sampling(x, 12, key=key)
    order = torch.randperm(50, generator=generator)
    moved, _, _ = farthest_point_sampling(x[order], 12, key=key[order])
    assert order[moved].tolist() == index.tolist()


def test_tolerance_stops_at_the_first_count_that_covers(backend, generator):
    x = torch.randn(60, 3, dtype=torch.float64, generator=generator)
    index, _, distance = farthest_point_sampling(x, 60, tolerance=1.0)
    assert distance.max() <= 1.0 and 1 < len(index) < 60
    _, _, before = farthest_point_sampling(x, len(index) - 1)
    assert before.max() > 1.0


def test_float32_and_torch_twin_agree(generator):
    if not module.HAS_NUMBA:
        pytest.skip("numba is not installed")
    from pcequi.ops.compiled import fps as kernels

    for dtype in (torch.float32, torch.float64):
        x = torch.randn(70, 6, generator=generator, dtype=torch.float64).to(dtype)
        key = x[:, 0].contiguous()
        for turned in (x[:, None], torch.stack([x, x.flip(1)], 1)):
            arrays = x.numpy(), turned.contiguous().numpy()
            args = (*arrays, 20, key.numpy(), TIE, ZERO, NOISE, 0.0)
            compiled = kernels.fps(*args)
            plain = module._fps_torch(x, turned, 20, key, 0.0)
            for a, b in zip(compiled, plain, strict=True):
                torch.testing.assert_close(torch.from_numpy(a), b)


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
@pytest.mark.parametrize("lattice", [False, True])
def test_blocks_that_are_passed_over_change_nothing(dim, lattice, generator):
    if not module.HAS_NUMBA:
        pytest.skip("numba is not installed")
    from pcequi.ops.compiled import fps as kernels

    rows = torch.rand(500, dim, generator=generator, dtype=torch.float64)
    if lattice:
        rows = (8 * rows).round()
    rows = rows[rows[:, 0].argsort(stable=True)].contiguous()
    key = torch.randn(500, generator=generator, dtype=torch.float64)
    turned = torch.stack([rows, -rows], 1)
    args = rows.numpy(), turned.numpy(), 200, key.numpy(), TIE, ZERO, NOISE, 0.0
    plain = module._fps_torch(rows, turned, 200, key, 0.0)
    for a, b in zip(kernels.fps(*args), plain, strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b)


@pytest.mark.parametrize("num", [0, 5])
def test_an_impossible_count_is_refused(num):
    with pytest.raises(ArgumentError, match=rf"`num` \(={num}\) must be between 1 and .* \(=4\)"):
        farthest_point_sampling(torch.zeros(4, 2), num)


def test_the_key_decides_where_all_rows_agree(backend):
    x = torch.full((6, 3), 0.7, dtype=torch.float64)
    key = torch.tensor([0.0, 1, 5, 2, 3, 4], dtype=torch.float64)
    assert farthest_point_sampling(x, 2, key=key)[0][0] == 2


def test_arguments_that_do_not_fit_are_named(backend):
    x = torch.rand(50, 3)
    with pytest.raises(ArgumentError, match=r"`tolerance` \(=-1\) must be 0 or more"):
        farthest_point_sampling(x, 3, tolerance=-1)
    with pytest.raises(ShapeError, match=r"`key` \(=\[3\]\) must be one a row, \[50\]"):
        farthest_point_sampling(x, 3, key=x[:3, 0])
    with pytest.raises(ShapeError, match=r"`turned` .* must be \[50, K, 3\]"):
        farthest_point_sampling(x, 3, turned=x[:, None, :2])
    with pytest.raises(ShapeError, match="float16"):
        farthest_point_sampling(x.half(), 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_rows_whose_distances_overflow_are_refused(backend, value, generator):
    x = torch.randn(200, 3, generator=generator)
    x[5, 1] = value
    with pytest.raises(DataError, match="`x` .* too large for squares of distances"):
        farthest_point_sampling(x, 4)
    with pytest.raises(DataError, match="`x` .* too large"):
        farthest_point_sampling(x[6:], 4, turned=x[:194, None].repeat(1, 2, 1))
    index, _, _ = farthest_point_sampling(x.double().nan_to_num(0, 0), 4)
    assert len(index.unique()) == 4


def test_keys_that_do_not_compare_are_refused(backend, generator):
    x = torch.randn(200, 3, generator=generator)
    with pytest.raises(DataError, match="`key` has entries that are NaN or infinite"):
        farthest_point_sampling(x, 4, key=torch.full((200,), torch.nan))


def test_the_kernel_picks_rows_where_nothing_compares():
    if not module.HAS_NUMBA:
        pytest.skip("numba is not installed")
    from pcequi.ops.compiled import fps as kernels

    x = torch.full((200, 3), torch.nan)
    limits = TIE, ZERO, NOISE, 0.0
    index, _, _ = kernels.fps(x.numpy(), x[:, None].numpy(), 4, x[:, 0].numpy(), *limits)
    assert (index >= 0).all() and (index < 200).all()


@pytest.mark.backend
def test_clouds_of_a_batch_are_sampled_as_alone(generator):
    sizes, group = (9, 0, 14, 6), 3
    x = torch.randn(sum(sizes), 4, dtype=torch.float64, generator=generator)
    turned = torch.stack([x, x.roll(1, 1), x.roll(2, 1)], 1)
    key = torch.randn(len(x), dtype=torch.float64, generator=generator)
    batch = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    together = farthest_point_sampling(x, 5, key=key, turned=turned, batch=batch)
    start = picks = 0
    for size in (9, 14, 6):
        rows = slice(start, start + size)
        own = {"key": key[rows], "turned": turned[rows]}
        index, assignment, distance = farthest_point_sampling(x[rows], 5, **own)
        assert torch.equal(together[0][picks : picks + 5], index + start)
        assert torch.equal(together[1][rows], assignment + picks * group)
        assert torch.equal(together[2][rows], distance)
        start, picks = start + size, picks + 5
    loose = farthest_point_sampling(x, 5, tolerance=100.0, batch=batch)
    assert loose[0].shape == (3,) and torch.equal(loose[1].unique(), torch.arange(3))


def test_batches_that_do_not_fit_are_refused(generator):
    x, batch = torch.randn(8, 3, generator=generator), torch.arange(8) // 4
    with pytest.raises(ArgumentError, match=r"`num` \(=5\) must be between 1 and .*rows \(=4\)"):
        farthest_point_sampling(x, 5, batch=batch)
    with pytest.raises(DataError, match="`batch` is not sorted"):
        farthest_point_sampling(x, 2, batch=batch.flip(0))
    for wrong in (batch[:5], batch.float()):
        with pytest.raises(ShapeError, match=r"`batch` .* must be whole numbers, \[points\] \(=8"):
            farthest_point_sampling(x, 2, batch=wrong)
    with pytest.raises(ShapeError, match=r"`key` \(=\[9\]\) must have the rows of `x` \(=?8"):
        farthest_point_sampling(x, 2, key=torch.zeros(9), batch=batch)
    with pytest.raises(ArgumentError, match="`num`"):
        farthest_point_sampling(x[:0], 2, batch=batch[:0])
