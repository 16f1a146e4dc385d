"""What the tests of both yardsticks ask."""

import pytest
import torch


@pytest.fixture
def check_alike():
    """Whether two networks with the same weights give the same logits and gradients, none of
    them zero."""

    def check(model, plain, pos):
        logits, expected = model(pos), plain(pos)
        torch.testing.assert_close(logits, expected)
        logits.square().sum().backward()
        expected.square().sum().backward()
        pairs = list(zip(model.parameters(), plain.parameters(), strict=True))
        assert all(parameter.grad.abs().max() > 0 for parameter, _ in pairs)
        torch.testing.assert_close([a.grad for a, _ in pairs], [b.grad for _, b in pairs])

    return check
