"""python -m pdmd."""

import sys

from pdmd.cli import main
from pdmd.stop import own_process

own_process()
sys.exit(main())
