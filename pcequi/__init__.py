"""pcequi: rotation-equivariant learning on point clouds, sampled in feature space."""

__version__ = "0.1.0"
