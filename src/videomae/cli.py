"""The command ``videomae``: one subcommand per file of `videomae.commands`, nothing else."""

import functools
import logging
import operator
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NamedTuple

from videomae.config import nearest
from videomae.console import NotesHandler, printable
from videomae.errors import VideoMAEError
from videomae.processes import safe_path, wait_passively


class Command(NamedTuple):
    """A subcommand, whose module is imported when it is asked for.

    Attributes:
        settings: name of the class of its settings in ``videomae.commands.NAME``.
        purpose: what it is for.
    """

    settings: str
    purpose: str


COMMANDS = {
    "quickstart": Command("QuickstartSettings", "see it work: make videos, train a small model, predict"),
    "train": Command("TrainSettings", "from a folder of videos to a trained, measured model and a report"),
    "predict": Command("PredictSettings", "say what videos show"),
    "check": Command("CheckSettings", "look at every video of a data set and say what to do about it"),
    "prepare": Command("PrepareSettings", "re-encode a data set to small files for fast random access"),
    "pretrain": Command("PretrainSettings", "learn from unlabelled videos by reconstructing what is hidden"),
    "finetune": Command("FinetuneSettings", "train a classifier, from a checkpoint or from random weights"),
    "distill": Command("DistillSettings", "train a small classifier on a few hundred videos, from random weights"),
    "evaluate": Command("EvaluateSettings", "measure a model on labelled videos"),
    "embed": Command("EmbedSettings", "write features of videos"),
    "search": Command("SearchSettings", "find the clips that are most like a given one"),
    "probe": Command("ProbeSettings", "train simple classifiers on features"),
    "reconstruct": Command("ReconstructSettings", "hide most of a clip and look at what a model makes of it"),
    "explain": Command("ExplainSettings", "show where in a clip a classifier finds what it says"),
    "serve": Command("ServeSettings", "answer requests about videos over HTTP, with a page to look at"),
    "convert": Command("ConvertSettings", "write a checkpoint of one family as another"),
    "export": Command("ExportSettings", "write a model for OpenVINO, ONNX Runtime or torch.export, and verify it"),
    "doctor": Command("DoctorSettings", "say what is installed, and what this machine can do"),
    "bench": Command("BenchSettings", "measure this machine: its peak, what a model reaches, what limits a recipe"),
}

SHELLS = ("bash", "zsh", "fish")

EXIT_OK, EXIT_PARTLY_FAILED, EXIT_ERROR, EXIT_BUG, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand and end the process with its exit code.

    0: all went well. 1: it ran, but some inputs failed. 2: it could not run; one line says why. 3: a fault of this
    package, which one line says. 130: interrupted. VIDEOMAE_DEBUG=1 shows the traceback of 2 and 3.
    """
    logging.basicConfig(handlers=[NotesHandler()])
    wait_passively()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand and return its exit code."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        sys.stdout.write(overview())
        return EXIT_OK
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"videomae {version('videomae')}\n")
        return EXIT_OK
    if name == "--completion":
        return _print_completion(rest)
    if name not in COMMANDS:
        return _fail(f"there is no command {name!r}{nearest(name, COMMANDS)}: see `videomae --help`.")
    from videomae.settings import parse_settings

    try:
        with safe_path():
            command = import_module(f"videomae.commands.{name}")
            settings = parse_settings(getattr(command, COMMANDS[name].settings), rest, prog=f"videomae {name}")
            return int(command.main(settings))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        if os.environ.get("VIDEOMAE_DEBUG"):
            traceback.print_exc()
        return _fail(*_explained(error))


def overview() -> str:
    """Return the help that lists all subcommands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.purpose}" for name, command in COMMANDS.items()]
    return (
        "usage: videomae COMMAND ...\n\n" + "\n".join(lines) + "\n\n`videomae COMMAND --help` shows its options, "
        f"`videomae --version` the version,\n`videomae --completion {'|'.join(SHELLS)}` a script with which the shell "
        "completes them.\n"
    )


def _print_completion(words: Sequence[str]) -> int:
    """Print the script that lets a shell complete commands and options."""
    if len(words) != 1 or words[0] not in SHELLS:
        return _fail(f"--completion takes one of {', '.join(SHELLS)}, got {' '.join(words) or 'nothing'!r}.")
    import tyro

    # A choice between types is, for tyro, one between subcommands.
    commands: Any = functools.reduce(
        operator.or_,
        (
            Annotated[getattr(import_module(f"videomae.commands.{name}"), command.settings), tyro.conf.subcommand(name)]
            for name, command in COMMANDS.items()
        ),
    )
    with suppress(SystemExit):
        tyro.cli(commands, prog="videomae", args=["--tyro-print-completion", words[0]])
    return EXIT_OK


def _explained(error: Exception) -> tuple[str, int]:
    """Return what to say of an error, and the exit code: for a mistake of the user's, or a fault of this package."""
    if isinstance(error, VideoMAEError | ValueError | OSError) and str(error):
        return str(error), EXIT_ERROR
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is slow to import
        return "there is not enough memory: take smaller batches, fewer processes or a smaller model.", EXIT_ERROR
    return (
        f"this is a bug in videomae ({type(error).__name__}: {error}). Set VIDEOMAE_DEBUG=1 to see where, and report "
        "it with the command and the traceback.",
        EXIT_BUG,
    )


def _fail(message: str, code: int = EXIT_ERROR) -> int:
    sys.stderr.write(printable("error: " + " ".join(message.splitlines())) + "\n")
    return code
