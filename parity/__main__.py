"""`python -m parity`: the same as the console script."""

import sys

from parity.cli import console

sys.exit(console())
