"""python -m pdmd."""

import signal
import sys
from contextlib import suppress

from pdmd.warm import ask


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
        print("pdmd: stopped", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    asked = ask(sys.argv[1:])
    status = main(alone=True) if asked is None else asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that it could stop
    sys.exit(status)
