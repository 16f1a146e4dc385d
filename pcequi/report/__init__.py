"""The report of a run: one HTML file that needs nothing beside it, and no network.

**Equivariance:** does not apply; it shows figures about it.
"""

from pcequi.report.data import report_data
from pcequi.report.facts import code_commit, peak_memory
from pcequi.report.hardest import hardest_shapes, save_hardest
from pcequi.report.page import report_page, write_report

__all__ = [
    "code_commit",
    "hardest_shapes",
    "peak_memory",
    "report_data",
    "report_page",
    "save_hardest",
    "write_report",
]
