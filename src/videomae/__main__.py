"""``python -m videomae`` is the command ``videomae``."""

import sys

from videomae.processes import search_path

sys.path[:] = search_path()  # Python has put the current folder first, which may hold a stranger's videos and numpy.py

from videomae.cli import main  # noqa: E402 - what it imports must not come from there

main()
