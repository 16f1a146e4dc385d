"""The CPU kernels, compiled by numba on first use and cached on disk.

Each has a pure torch twin beside its caller; tests hold the two equal. All are
single-threaded and release the interpreter's lock, except the sparse products and Fourier
transforms over a batch of clouds. Arrays are laid out so that inner loops run along them.

**Equivariance:** of each kernel, that of the function that calls it.
"""
