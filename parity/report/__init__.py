"""The answer: in comes all that was found, out goes a report to ask, to keep, and to read.

Read `plain` (anybody's values as JSON and text), `saved` (reports read again), `wording` (numbers, names, sentences),
`answer` (what is said first, whatever it is drawn on), `terminal`, `page`, `markdown` and `sarif` (which draw it),
`comparing` (two beside each other), `digests`, `report` (the object),
`about` (where the comparison ran, what pictures show).
"""

from parity.report.about import environment, options_asked, peak_memory, top5
from parity.report.comparing import drawn_beside
from parity.report.digests import (
    digest_of_files,
    digest_of_json,
    digest_of_map,
    digest_of_report,
    digest_of_weights,
    source_files,
)
from parity.report.markdown import markdown
from parity.report.page import page
from parity.report.plain import as_json
from parity.report.report import Report
from parity.report.sarif import sarif
from parity.report.saved import EXIT_STATUS, complete, load, read
from parity.report.terminal import drawn

__all__ = [
    "EXIT_STATUS",
    "Report",
    "as_json",
    "complete",
    "digest_of_files",
    "digest_of_json",
    "digest_of_map",
    "digest_of_report",
    "digest_of_weights",
    "drawn",
    "drawn_beside",
    "environment",
    "load",
    "markdown",
    "options_asked",
    "page",
    "peak_memory",
    "read",
    "sarif",
    "source_files",
    "top5",
]
