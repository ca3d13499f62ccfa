"""python -m pdmd."""

import os
import signal
import sys
from contextlib import suppress

from pdmd.leaving import leave, stopped


def main(alone: bool = False) -> int:
    """Run the command line; Ctrl-C while it is imported is one line, too.

    Args:
        alone: nothing comes after it in this process.
    """
    with suppress(AttributeError, ValueError):  # a stream that is none, or closed
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        from pdmd.cli import main as run
        from pdmd.training.stop import own_process

        if alone:
            own_process()
        return run()
    except KeyboardInterrupt:
        return stopped()


def asked() -> int | None:
    """Have a warm process run the command line, if there is one; its exit status."""
    try:
        from pdmd.warm import ask

        return ask(sys.argv[1:])
    except KeyboardInterrupt:
        return stopped()


if __name__ == "__main__":
    status = asked() if "PDMD_WARM" in os.environ else None
    status = main(alone=True) if status is None else status
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that it could stop
    leave(status)
