"""The releases of torch: in come a candidate and releases, out goes what is the same on all of them, and what moved.

Read `pairs` (which releases there are), `rows` (what is kept of one), `environments` (where one is looked at), `row`
(what is done there), `testing` (the equivalence suite there), `running` (one after the other, and none twice),
`comparing` (two neighbours), `rendering` (the page and its picture).
"""

from parity.releases.comparing import neighbours
from parity.releases.pairs import PAIRS, newest, picked
from parity.releases.rendering import drawn, exit_status, in_short, kept
from parity.releases.rows import rows_in
from parity.releases.running import Asked, run

__all__ = [
    "PAIRS",
    "Asked",
    "drawn",
    "exit_status",
    "in_short",
    "kept",
    "neighbours",
    "newest",
    "picked",
    "rows_in",
    "run",
]
