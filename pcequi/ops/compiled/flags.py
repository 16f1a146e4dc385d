"""How the compiler may treat floating-point arithmetic."""

__all__ = ["REORDER"]

# Sums may be reordered, so that loops use vector registers; NaN and infinity
# keep their meaning.
REORDER = {"reassoc", "contract", "arcp", "nsz"}
