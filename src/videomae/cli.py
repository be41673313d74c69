"""The command ``videomae``: one subcommand per task, nothing else."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from videomae.config import nearest
from videomae.errors import VideoMAEError

# Subcommand: its module in videomae.commands, its settings, and its purpose. A module is imported when it is needed.
COMMANDS = {
    "quickstart": ("quickstart", "QuickstartSettings", "see it work: make videos, train a small model, predict"),
    "train": ("train", "TrainSettings", "from a folder of videos to a trained, measured model and a report"),
    "predict": ("predict", "PredictSettings", "say what videos show"),
    "check": ("check", "CheckSettings", "look at every video of a data set and say what to do about it"),
    "prepare": ("prepare", "PrepareSettings", "re-encode a data set to small files for fast random access"),
    "pretrain": ("pretrain", "PretrainSettings", "learn from unlabelled videos by reconstructing what is hidden"),
    "finetune": ("finetune", "FinetuneSettings", "train a classifier, from a checkpoint or from random weights"),
    "evaluate": ("evaluate", "EvaluateSettings", "measure a model on labelled videos"),
    "embed": ("embed", "EmbedSettings", "write features of videos"),
    "search": ("search", "SearchSettings", "find the clips that are most like a given one"),
    "probe": ("probe", "ProbeSettings", "train simple classifiers on features"),
    "reconstruct": ("reconstruct", "ReconstructSettings", "hide most of a clip and look at what a model makes of it"),
    "explain": ("explain", "ExplainSettings", "show where in a clip a classifier finds what it says"),
    "convert": ("convert", "ConvertSettings", "write a checkpoint of one family as another"),
}

EXIT_OK, EXIT_PARTLY_FAILED, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand and end the process with its exit code.

    0: all went well. 1: it ran, but some inputs failed. 2: it could not run; one line says why (set VIDEOMAE_DEBUG=1
    for the traceback). 130: interrupted.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand and return its exit code."""
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        sys.stdout.write(overview())
        return EXIT_OK
    if command == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"videomae {version('videomae')}\n")
        return EXIT_OK
    if command not in COMMANDS:
        return _fail(f"there is no command {command!r}{nearest(command, COMMANDS)}: see `videomae --help`")
    from videomae.settings import parse_settings

    name, settings_name, _ = COMMANDS[command]
    try:
        task = import_module(f"videomae.commands.{name}")
        settings = parse_settings(getattr(task, settings_name), rest, prog=f"videomae {command}")
        return int(task.main(settings))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (VideoMAEError, ValueError, OSError) as error:
        if os.environ.get("VIDEOMAE_DEBUG"):
            raise
        return _fail(str(error))


def overview() -> str:
    """Return the help that lists all subcommands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {purpose}" for command, (_, _, purpose) in COMMANDS.items()]
    return "usage: videomae COMMAND ...\n\n" + "\n".join(lines) + "\n\n`videomae COMMAND --help` tells its options.\n"


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return EXIT_ERROR
