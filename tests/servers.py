"""`videomae serve` as a process of its own."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def started(model, *options):
    """Start a server with one decoding process; yield the process and the server's address."""
    command = [sys.executable, "-m", "videomae", "serve", str(model), "--port", "0", "--limits.workers", "1", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield server, re.search(r"http://\S+", server.stderr.readline())[0]
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
