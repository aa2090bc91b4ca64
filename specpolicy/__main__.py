"""`python -m specpolicy` does what `specpolicy` does."""

import sys

from specpolicy.cli import main

if __name__ == "__main__":
    sys.exit(main())
