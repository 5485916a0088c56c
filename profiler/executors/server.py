"""Imported by the fork server only, first: it answers no Ctrl-C and ends with its parent."""

from __future__ import annotations

import os
import signal

from profiler.executors.orphans import PARENT, die_with_parent

#: The server's own process id, which its workers find here.
PID = os.getpid()

signal.signal(signal.SIGINT, signal.SIG_IGN)
die_with_parent(int(os.environ[PARENT]) if PARENT in os.environ else None)
