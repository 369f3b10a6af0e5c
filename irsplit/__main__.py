"""python -m irsplit"""

import sys

from irsplit.cli import main

if __name__ == "__main__":
    sys.exit(main())
