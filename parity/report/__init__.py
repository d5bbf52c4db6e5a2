"""The answer: in comes all that was found, out goes a report to ask, to keep, and to read.

Read `plain` (anybody's values as JSON and text), `saved` (reports read again), `source_lines` (that a cause comes
from), `wording` (numbers, names, sentences),
`answer` (what is said first, whatever it is drawn on), `figures` (what a page draws of a layer), `looks` (and of
attention), `terminal`, `page`, `markdown` and `sarif` (which draw it), `comparing` (two beside each other), `digests`,
`report` (the object), `about` (what was asked, what pictures show), `where` (it ran).
"""

from parity.report.about import options_asked, peak_memory, top5
from parity.report.comparing import drawn_beside
from parity.report.digests import (
    digest_of_files,
    digest_of_json,
    digest_of_map,
    digest_of_report,
    digest_of_weights,
    source_files,
)
from parity.report.markdown import as_markdown
from parity.report.page import as_html
from parity.report.plain import as_json
from parity.report.report import Report
from parity.report.sarif import as_sarif
from parity.report.saved import complete, load, read
from parity.report.source_lines import with_code
from parity.report.terminal import drawn
from parity.report.where import environment

__all__ = [
    "Report",
    "as_html",
    "as_json",
    "as_markdown",
    "as_sarif",
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
    "options_asked",
    "peak_memory",
    "read",
    "source_files",
    "top5",
    "with_code",
]
