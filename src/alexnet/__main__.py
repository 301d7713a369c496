"""`python -m alexnet` is the command `alexnet`."""

from __future__ import annotations

import sys

from alexnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
