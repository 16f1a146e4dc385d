"""Transforms are told apart by what they do, and told the same in every process."""

import functools
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from pcequi.datasets.describe import describe


def closing_over(value):
    return lambda data: (data, value)


def with_default(value):
    def function(data, scale=value, *, shift=0):
        return data * scale + shift

    return function


def with_keyword(value):
    def function(data, *, shift=value):
        return data + shift

    return function


def with_attribute(value):
    def function(data):
        return data * function.factor

    function.factor = value
    return function


def wrapped(function):
    @functools.wraps(function)
    def outer(data):
        return function(data)

    return outer


OTHERS = [
    (lambda data: data + 1, lambda data: data + 2),
    (lambda data: data + 1, lambda data: data - 1),
    (lambda data: data.x, lambda data: data.y),
    (lambda data: [d + 1 for d in data], lambda data: [d + 2 for d in data]),
    (lambda data: lambda: lambda: lambda: 1, lambda data: lambda: lambda: lambda: 2),
    (closing_over(1), closing_over(2)),
    (closing_over(closing_over(1)), closing_over(closing_over(2))),
    (closing_over(np.zeros(3)), closing_over(np.ones(3))),
    (with_default(1), with_default(2)),
    (with_keyword(1), with_keyword(2)),
    (wrapped(wrapped(with_default(1))), wrapped(wrapped(with_default(2)))),
    (functools.lru_cache(closing_over(1)), functools.lru_cache(closing_over(2))),
    (with_attribute(1), with_attribute(2)),
    (closing_over(torch.ones(2).bfloat16()), closing_over(2 * torch.ones(2).bfloat16())),
    (closing_over(torch.eye(2).to_sparse()), closing_over(torch.ones(2, 2).to_sparse())),
    (closing_over(np.array([1, "a"], object)), closing_over(np.array([1, "b"], object))),
]


@pytest.mark.parametrize(("one", "other"), OTHERS)
@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: functools.partial(f, 1), lambda f: [[f]]])
def test_other_functions_are_told_apart(one, other, wrap):
    assert describe(wrap(one)) == describe(wrap(one)) != describe(wrap(other))


def test_the_same_function_made_twice_is_the_same():
    assert describe(closing_over([1, {"a": 2}])) == describe(closing_over([1, {"a": 2}]))
    assert describe(with_default({3, 4})) == describe(with_default({4, 3}))


def test_what_refers_to_itself_or_to_much_comes_to_an_end():
    def again(data):
        return again(data) if data else None

    items = [1]
    items.append(items)
    log = logging.getLogger("pcequi.tests")
    for value in (again, items, closing_over(np), closing_over(log), closing_over(sys)):
        assert len(describe(value)) < 1_000_000


def test_values_that_tell_nothing_are_told_by_their_type():
    assert "object" in describe(closing_over(object())) and "0x" not in describe(object())
    assert describe(closing_over(object())) != describe(closing_over(iter([])))
    assert describe("at 0x1234abcd") != describe("at 0x4321abcd"), "words are kept as they are"


SCRIPT = """
import functools, operator, re
from pcequi.datasets.describe import describe

class Plain:
    pass

def outer(names, thing):
    def inner(data, default=thing, *, more=frozenset(names)):
        return [d for d in data if d in {"one", "two", "three"} and (lambda: names)()]
    return inner

function = outer({"alpha", "beta", "gamma", "delta"}, Plain())
found = [function, functools.partial(function, Plain()), {Plain(): 1}, iter([]), print, len, Plain]
print(describe([*found, functools.lru_cache(function), re.compile("a"), operator.add, {"x", "y"}]))
"""


def test_a_description_is_the_same_in_another_process():
    told = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT + "#" * (int(seed) * 5000)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1] and "0x" not in told[0] and "alpha" in told[0]
