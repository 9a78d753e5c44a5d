"""`python -m progressive_upsampling`: the same as the command `progressive-upsampling`."""

from __future__ import annotations

import sys

from .core.cli import main

if __name__ == "__main__":
    sys.exit(main())
