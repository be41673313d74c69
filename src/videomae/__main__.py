"""``python -m videomae`` is the command ``videomae``."""

from videomae.cli import main

main()
