"""Run `specpolicy` as `python -m specpolicy`."""

import sys

from specpolicy.cli import main

if __name__ == "__main__":
    sys.exit(main())
