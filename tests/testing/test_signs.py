"""Signs of eigenvectors are drawn anew, and everything else stays."""

import numpy as np
import pytest
import torch

from pcequi.testing.signs import random_signs


@pytest.fixture
def matrix(generator):
    return torch.randn(5, 6, 3, 3, generator=generator, dtype=torch.float64)


def test_decompositions_stay_decompositions(matrix):
    symmetric = matrix @ matrix.mT
    values, vectors = torch.linalg.eigh(symmetric)
    with random_signs(0):
        new_values, new = torch.linalg.eigh(symmetric)
        u, s, vh = torch.linalg.svd(matrix)
        tall = torch.linalg.svd(matrix.reshape(30, 9), full_matrices=True)
    assert torch.equal(values, new_values)
    assert not torch.equal(vectors, new) and torch.equal(vectors.abs(), new.abs())
    torch.testing.assert_close(u @ torch.diag_embed(s) @ vh, matrix)
    torch.testing.assert_close(tall[0][:, :9] * tall[1] @ tall[2], matrix.reshape(30, 9))
    assert torch.equal(torch.linalg.eigh(symmetric)[1], vectors), "outside nothing is changed"


def test_numpy_too(matrix):
    array = matrix.numpy()
    symmetric = array @ array.swapaxes(-1, -2)
    before = np.linalg.eigh(symmetric)
    with random_signs(1):
        after = np.linalg.eigh(symmetric)
        u, s, vh = np.linalg.svd(array)
        assert np.allclose(np.linalg.svd(array, compute_uv=False), s)
    assert np.array_equal(before[0], after[0]) and not np.array_equal(before[1], after[1])
    assert np.allclose(u * s[..., None, :] @ vh, array)
    assert np.array_equal(np.linalg.eigh(symmetric)[1], before[1])


def test_the_seed_decides(matrix):
    draws = []
    for seed in (3, 3, 4):
        with random_signs(seed):
            draws.append(torch.linalg.eigh(matrix @ matrix.mT)[1])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
