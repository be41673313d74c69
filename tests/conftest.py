"""Set up before any test imports PyTorch."""

import os

# Several workers of pytest-xdist share the processors: threads of each would wait for those of the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
