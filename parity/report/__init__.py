"""The answer: in comes all that was found, out goes a report to ask, to keep as JSON, and to read.

Read `plain` (anybody's values as JSON and text), `report` (the object, its JSON and its tables), `about` (where the
comparison ran, what pictures show).
"""

from parity.report.about import environment, peak_memory, top5
from parity.report.plain import as_json
from parity.report.report import Report

__all__ = ["Report", "as_json", "environment", "peak_memory", "top5"]
