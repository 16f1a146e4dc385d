"""How fast pcequi is on this machine, beside what would be used instead."""

from pcequi.bench.figures import EXPLANATIONS, bench_figures

__all__ = ["EXPLANATIONS", "bench_figures"]
