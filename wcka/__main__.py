"""Run the command line: ``python -m wcka``."""

import sys

try:
    from .cli import main

    status = main()
except KeyboardInterrupt:  # while the command line itself loads
    print("wcka: interrupted", file=sys.stderr)
    status = 130
sys.exit(status)
