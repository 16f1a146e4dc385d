"""How fast this machine is, beside what would be used instead."""

from pcequi.bench.figures import EXPLANATIONS, bench_figures, memory_mib
from pcequi.bench.gpu import GPU_EXPLANATIONS, gpu_figures

__all__ = ["EXPLANATIONS", "GPU_EXPLANATIONS", "bench_figures", "gpu_figures", "memory_mib"]
