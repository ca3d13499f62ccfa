"""python -m pdmd."""

import sys

from pdmd.cli import main

sys.exit(main())
