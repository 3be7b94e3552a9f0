"""`python -m poolscore.jobs.loop.tied WORD…`: a program that does not outlive the loop that started it.

The loop holds the other end of this process's standard input, which ends when the loop does, whatever it died of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

NOT_STARTED = 127  # exit code, as shells have it


def end_with_the_loop() -> None:
    """From now on this process, and all that it starts, is killed once the loop is gone. It must lead its group."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """The program's exit code; of one that was killed, 128 and the signal."""
    end_with_the_loop()
    try:
        code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", flush=True)
        return NOT_STARTED
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
