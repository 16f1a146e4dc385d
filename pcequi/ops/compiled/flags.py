"""How the compiler may treat floating-point arithmetic."""

__all__ = ["REORDER"]

# Sums may be reordered, so that loops use vector registers; NaN and infinity
# keep their meaning in comparisons (``math.isfinite`` is a difference, which is reordered too).
REORDER = {"reassoc", "contract", "arcp", "nsz"}

# Functions that only kernels call are inlined (``forceinline``). Where a call stays a call, the
# process that compiles a kernel links it to the function as it was compiled by itself, and those
# that load the kernel from numba's cache have the copy that was compiled within it; with sums
# that may be reordered the two differ in the last bits.
