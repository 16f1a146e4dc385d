"""Which optional backends can be used: the one place that probes for them."""

import os


def _importable(module: str, switch: str) -> bool:
    if os.environ.get(switch, "") not in ("", "0"):
        return False
    try:
        __import__(module)
    except (ImportError, OSError):  # OSError: a build against another torch
        return False
    return True


HAS_TORCH_CLUSTER = _importable("torch_cluster", "PCEQUI_NO_TORCH_CLUSTER")
HAS_NUMBA = _importable("numba", "PCEQUI_NO_NUMBA")
