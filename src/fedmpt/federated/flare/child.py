"""Run as a script, not imported: `child.py PARENT COMMAND ...` becomes COMMAND, and is killed when PARENT dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # It died before it was watched.
        sys.exit(1)
    os.execvp(sys.argv[2], sys.argv[2:])
