"""Kernels compiled on first use and cached on disk: by numba for the CPU, and by Triton for a GPU
(``gpu_fourier``).

Each has a pure torch twin beside its caller; tests hold the two equal. Those for the CPU are
single-threaded and release the interpreter's lock, except the sparse products and Fourier
transforms over a batch of clouds. Arrays are laid out so that inner loops run along them.

**Equivariance:** of each kernel, that of the function that calls it.
"""
