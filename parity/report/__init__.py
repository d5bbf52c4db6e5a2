"""The answer: in comes all that was found, out goes a report to ask, to keep as JSON, and to read.

Read `report` (the object, its JSON and its tables), `about` (where the comparison ran, what pictures show).
"""

from parity.report.about import environment, peak_memory, top5
from parity.report.report import Report, only_finite

__all__ = ["Report", "environment", "only_finite", "peak_memory", "top5"]
