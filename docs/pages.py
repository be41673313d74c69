"""Pages of the site that are made when it is built: of recipes, commands and public names, and of files beside docs/.

A hook of MkDocs, named in mkdocs.yml. What it writes cannot fall behind the code.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import textwrap
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import videomae
from videomae.cli import COMMANDS
from videomae.settings import builtin_recipes, with_required

ROOT = Path(__file__).parents[1]
BESIDE = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
ROOMS = {  # of docs/architecture.md that have public names, in the order in which people need them
    "inference": "Use of a model",
    "pipeline": "From a folder to a report",
    "training": "Training",
    "models": "Models and masks",
    "config": "Configuration",
    "auto": "Names of transformers",
    "video": "Videos, clips, processors",
    "data": "Data sets",
    "errors": "Errors",
}
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
NOT_MEASURED = "not measured here"
RECIPE_COLUMNS = ("recipe", "source", "hardware", "result", "measured here")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of commands and of public names into the navigation."""
    made: dict[str, list[Any]] = {
        "Commands": [{name: f"commands/{name}.md"} for name in COMMANDS],
        "Python": [{title: f"api/{room}.md"} for room, title in ROOMS.items()],
        "Notebooks": [f"notebooks/{file.stem}.md" for file in NOTEBOOKS],
    }
    for section in config.nav or ():
        for title, pages in section.items():
            pages[1:1] = made.get(title, [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {
        "recipes.md": recipes_page(),
        "benchmarks.md": benchmarks_page(),
        "commands/index.md": commands_page(),
        "api/index.md": names_page(),
    }
    pages |= {f"commands/{name}.md": command_page(name) for name in COMMANDS}
    pages |= {f"api/{room}.md": room_page(room) for room in ROOMS}
    pages |= {f"notebooks/{file.stem}.md": notebook_page(file) for file in NOTEBOOKS}
    pages |= {page: (ROOT / file).read_text("utf-8").replace("](docs/", "](") for page, file in BESIDE.items()}
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


# Recipes


class Recipe(NamedTuple):
    """What the comment at the head of a recipe says, and the whole file."""

    purpose: str
    source: str
    command: str
    hardware: str
    result: str
    text: str


def read_recipe(text: str) -> Recipe:
    """Read the head: sentences on what it is for, then a line or more for each of four words.

    Raises:
        ValueError: if one of them is missing.
    """
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    head = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
    said = re.split(r"^(source|command|hardware|result) +", head, flags=re.MULTILINE)
    words = {name: " ".join(value.split()) for name, value in zip(said[1::2], said[2::2], strict=True)}
    if missing := {"source", "command", "hardware", "result"} - words.keys():
        raise ValueError(f"the head of a recipe must state {', '.join(sorted(missing))}:\n{head}")
    return Recipe(purpose=" ".join(said[0].split()), text=text, **words)


def recipes_page() -> str:
    """Return the index of recipes: a table for each command, and below it all of each recipe."""
    recipes = {name: read_recipe(file.read_text("utf-8")) for name, file in sorted(builtin_recipes().items())}
    parts = [
        "# Recipes\n\nA recipe is a TOML file with the settings of a run, its source, and what came of it. "
        "`--recipe NAME` takes it, options of the command line go before it, and a file of your own may stand in place "
        "of a name.\n",
    ]
    for command in ("pretrain", "finetune", "distill"):
        mine = {name: recipe for name, recipe in recipes.items() if name.startswith(command)}
        parts += [
            f"## videomae {command}\n",
            _table(RECIPE_COLUMNS, list(itertools.starmap(_recipe_row, mine.items()))),
        ]
        for name, recipe in mine.items():
            whole = textwrap.indent(f"```toml\n{recipe.text}```", "    ")
            parts += [
                f"### {name}\n\n{recipe.purpose}\n\nSource: {recipe.source}\n\n`{recipe.command}`\n",
                f'??? note "All of it"\n\n{whole}\n',
            ]
    return "\n".join(parts)


def _recipe_row(name: str, recipe: Recipe) -> tuple[str, ...]:
    return (
        f"[{name}](#{name})",
        re.split(", (?:scripts|its|after|appendix)|:", recipe.source)[0],
        recipe.hardware.partition(";")[0],
        recipe.result.partition(";")[0],
        "no" if NOT_MEASURED in recipe.result else "yes",
    )


# Benchmarks


def benchmarks_page() -> str:
    """Return what the scripts in benchmarks/ measure, as each says itself."""
    documents = {file.name: ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "" for file in BENCHMARKS}
    rows = [(f"[{name}](#{name.removesuffix('.py')})", text.partition("\n\n")[0]) for name, text in documents.items()]
    parts = [
        "# Benchmarks\n\nScripts that print what they measure on your machine, where others are compared in turns, so "
        "that a busy moment meets all. What was measured here stands where it is of use, such as for "
        "[small data](small-data.md), [recipes](recipes.md) and [export](export.md).\n",
        _table(("in benchmarks/", "what it measures"), [(name, " ".join(what.split())) for name, what in rows]),
    ]
    for name, text in documents.items():
        parts += [f"## {name} {{#{name.removesuffix('.py')}}}\n\n```text\n{text}\n```\n"]
    return "\n".join(parts)


# Notebooks


def notebook_page(file: Path) -> str:
    """Return the cells of a notebook, which is Python with a line `# %%` before each, as a page."""
    _, *cells = re.split(r"^# %%", file.read_text("utf-8"), flags=re.MULTILINE)
    parts = []
    for cell in cells:
        if cell.startswith(" [markdown]"):
            parts += ["\n".join(line.removeprefix("#").removeprefix(" ") for line in cell.splitlines()[1:])]
        elif cell.strip():
            parts += [f"```python\n{cell.strip()}\n```\n"]
    return "\n".join([*parts[:1], f"As a file: [{file.name}]({file.name}).\n", *parts[1:]])


# Commands and their settings


class Option(NamedTuple):
    """A setting as the command line knows it."""

    name: str
    kind: str
    default: str
    help: str


def commands_page() -> str:
    """Return the list of commands."""
    rows = [(f"[{name}]({name}.md)", command.purpose) for name, command in COMMANDS.items()]
    return (
        "# Commands\n\nEach page is made from the dataclass of the command's settings, as `--help` is. A setting of "
        "training is also a key of a [recipe](../recipes.md): `--optim.lr 3e-4` is `[optim] lr = 3e-4`. The order is "
        "default, then recipe, then command line. `--print-config` shows what results.\n\n"
        + _table(("videomae", "what for"), rows)
        + "\nExit codes: 0 all went well, 1 it ran but some inputs failed (they are named), 2 it could not run (one "
        "line says why), 3 a fault of this package, 130 interrupted, 143 stopped by SIGTERM with everything saved. "
        "`VIDEOMAE_DEBUG=1` shows the traceback of 2 and 3.\n"
    )


def command_page(name: str) -> str:
    """Return what a command is for, and its settings by group."""
    settings_type = getattr(importlib.import_module(f"videomae.commands.{name}"), COMMANDS[name].settings)
    groups: dict[str, list[Option]] = defaultdict(list)
    for group, option in options(settings_type):
        groups[group].append(option)
    positional = [option.name for option in groups[""] if not option.name.startswith("--")]
    parts = [f"# videomae {name}\n\n{inspect.getdoc(settings_type)}\n"]
    parts += [f"```text\nvideomae {' '.join([name, *positional])} [OPTIONS]\n```\n"]
    for group, found in groups.items():
        if group:
            parts += [f"## {group}\n"]
        rows = [(f"`{option.name}`<br>{option.kind}{option.default}", option.help) for option in found]
        parts += [_table(("setting, values, default", "what for"), rows)]
    return "\n".join(parts)


def options(settings_type: type, default: Any = None, prefix: str = "") -> Iterator[tuple[str, Option]]:
    """Yield the settings of a dataclass, and of those in it, each with the group that it belongs to."""
    default = with_required(settings_type, None) if default is None else default
    hints = typing.get_type_hints(settings_type, include_extras=True)
    docs = _field_docs(settings_type)
    for field in dataclasses.fields(settings_type):
        hint, marks = hints[field.name], ()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *marks = typing.get_args(hint)
        value = getattr(default, field.name)
        if dataclasses.is_dataclass(hint):
            inline = any(getattr(mark, "name", None) == "" for mark in marks)
            yield from options(hint, value, prefix if inline else f"{prefix}{field.name}.")
            continue
        is_positional = any("Positional" in repr(mark) for mark in marks)
        required = field.default is field.default_factory is dataclasses.MISSING
        word = next((m for mark in marks if (m := getattr(mark, "metavar", None))), field.name.upper())
        shown = word if is_positional else f"--{prefix}{field.name}".replace("_", "-")
        help = docs.get(field.name) or next(m for mark in marks if (m := getattr(mark, "help", None)))
        yield (
            prefix.rstrip("."),
            Option(shown, _kind(hint), ", required" if required else _shown(value), " ".join(help.split())),
        )


def _field_docs(settings_type: type) -> dict[str, str]:
    """Return the texts below the fields of a dataclass and of those it is made on."""
    docs: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(settings_type.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise(definition.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    docs[name] = said
    return docs


def _kind(hint: Any) -> str:
    """Say what a setting takes, in the words of the command line."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin is tuple:
        return f"{_kind(inner[0])} ..." if inner[-1] is ... else " ".join(map(_kind, inner))
    if inner:  # a union
        return " or ".join(_kind(choice) for choice in inner if choice is not type(None))
    return {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}[hint]


def _shown(value: Any) -> str:
    """Return what stands behind the kind of a setting that has a default."""
    if value is None or value == ():
        return ""
    words = value if isinstance(value, tuple) else (value,)
    return f", **{' '.join(_WORDS.get(type(word), str)(word) for word in words)}**"


_WORDS: dict[type, Callable[[Any], str]] = {bool: lambda value: "yes" if value else "no", float: "{:.4g}".format}


# Public names


def names_page() -> str:
    """Return the table of all public names."""
    parts = [
        "# Python\n\nWhat `videomae` exports; all else may change without notice. Importing the package costs nothing: "
        "a name loads its module when it is first used. Pixels are (B, T, C, H, W), a mask is True where something is "
        "hidden, times are in seconds (see the [glossary](../glossary.md)).\n"
    ]
    for room, title in ROOMS.items():
        rows = [(f"[`{name}`][{module}.{name}]", _summary(module, name)) for name, module in _names(room).items()]
        parts += [f"## {title}\n", _table(("name", "what it is"), rows)]
    return "\n".join(parts)


def room_page(room: str) -> str:
    """Return the reference of a room's public names."""
    return f"# {ROOMS[room]}\n\n" + "\n".join(f"::: {module}.{name}\n" for name, module in _names(room).items())


def _names(room: str) -> Mapping[str, str]:
    """Return the public names of a room, and their modules."""
    modules = {name: videomae.__dict__["_MODULE_OF"][name] for name in videomae.__all__}
    assert {module.split(".")[1] for module in modules.values()} == ROOMS.keys(), "a room of public names has no title"
    return {name: module for name, module in modules.items() if module.split(".")[1] == room}


def _summary(module: str, name: str) -> str:
    """Return the first line of a docstring, without importing what it documents."""
    file = ROOT.joinpath("src", *module.split(".")).with_suffix(".py")
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise ValueError(f"{file} defines no class or function {name}.")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"
