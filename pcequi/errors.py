"""Errors that a user of pcequi can act on.

Every message names the argument, its value and the remedy. Each class is also
the built-in exception that a caller would expect, so ``except ValueError``
keeps working for people who do not know pcequi's own hierarchy.
"""

import numbers


class PcequiError(Exception):
    """Base of all errors that pcequi raises on purpose.

    **Equivariance:** does not apply.
    """


class ArgumentError(PcequiError, ValueError):
    """An argument has a value that cannot work (range, choice, budget).

    **Equivariance:** does not apply.
    """


class ShapeError(PcequiError, ValueError):
    """A tensor has the wrong shape or dtype.

    **Equivariance:** does not apply.
    """


class DataError(PcequiError, ValueError):
    """Input data are unusable: NaN, empty, unsorted, a label out of range.

    **Equivariance:** does not apply.
    """


class FileError(PcequiError, OSError):
    """A file is missing, damaged or of an unknown format.

    **Equivariance:** does not apply.
    """


class MissingPackageError(PcequiError, ImportError):
    """An optional package is needed; the message says what to install.

    **Equivariance:** does not apply.
    """


class ScaleWarning(UserWarning):
    """The size of a cloud does not fit the radii of a network's levels.

    **Equivariance:** does not apply.
    """


def check_count(name: str, value: object, least: int = 1, *, none: bool = False) -> int | None:
    """Whether an argument is a whole number, large enough.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest value that works.
        none: whether None will do.

    Returns:
        The value as Python's own number, which JSON can hold.

    Raises:
        ArgumentError: it is no whole number, or too small.

    **Equivariance:** does not apply.
    """
    if value is None and none:
        return None
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        remedy = ", or None" if none else ""
        raise ArgumentError(
            f"`{name}` (={value!r}) must be a whole number, at least {least}{remedy}"
        )
    return int(value)
