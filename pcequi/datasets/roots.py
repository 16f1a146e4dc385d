"""Where data sets live on disk."""

from __future__ import annotations

import os
from pathlib import Path

from pcequi.files import expanded, user_cache

__all__ = ["default_root"]


def default_root() -> Path:
    """The folder that data sets use when no ``root`` is given.

    The first that applies: the environment variable ``PCEQUI_DATASETS``; the
    top-level ``datasets/`` of the checkout that pcequi is imported from; and
    ``~/.cache/pcequi/datasets``. The folder need not exist yet.

    Returns:
        An absolute path.

    Raises:
        FileError: None applies: no home folder is known.

    **Equivariance:** does not apply.
    """
    chosen = os.environ.get("PCEQUI_DATASETS")
    if chosen:
        return expanded(chosen).absolute()
    checkout = Path(__file__).resolve().parents[2]
    # Beside an installed package lies site-packages, where a folder `datasets`
    # is somebody else's package: only a checkout has pyproject.toml next to it.
    if (checkout / "datasets").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "datasets"
    return user_cache("PCEQUI_DATASETS", "--root") / "datasets"
