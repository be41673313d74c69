"""Settings from three places, the later wins: the default of a field, a recipe (TOML), the command line.

Settings are dataclasses, nested ones are tables of the recipe: ``[optim] lr = 3e-4`` is ``--optim.lr 3e-4``. What a run
used is written as TOML again, which is a recipe for the same run.
"""

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from videomae.config import nearest

S = TypeVar("S")

# How settings came about and what to do with them, not what they are: never stored.
_NOT_STORED = ("recipe", "print_config", "dry_run")
_NOT_GIVEN = Path("<not given>")


def parse_settings(settings_type: type[S], arguments: Sequence[str], *, prog: str) -> S:
    """Read settings from the command line, on top of the recipe that ``--recipe`` names.

    Args:
        settings_type: a dataclass; one without ``TASK`` and a field ``recipe`` is read from the command line alone.
        arguments: the words after the subcommand. With ``--print-config`` those that a run needs may be left out: these
            settings are None then.
        prog: what the help calls the command.

    Raises:
        ValueError: if there is no such recipe, or it does not fit the settings.
        SystemExit: from the command line's own errors, and after ``--help``.
    """
    import tyro

    names = [field.name for field in dataclasses.fields(settings_type)]  # type: ignore[arg-type]
    recipe = _named_recipe(arguments) if "recipe" in names and hasattr(settings_type, "TASK") else None
    prints = "--print-config" in arguments and "print_config" in names
    if recipe is None and not prints:
        return tyro.cli(settings_type, args=arguments, prog=prog)
    default = with_required(settings_type, _NOT_GIVEN if prints else tyro.MISSING)
    default = default if recipe is None else with_recipe(default, recipe)
    return _without(_NOT_GIVEN, tyro.cli(settings_type, args=arguments, prog=prog, default=default))


def with_required(settings_type: type[S], value: Any) -> S:
    """Return settings at their defaults, with ``value`` wherever a setting has none, also in nested ones."""
    hints = typing.get_type_hints(settings_type)
    required = {
        field.name: with_required(hints[field.name], value) if dataclasses.is_dataclass(hints[field.name]) else value
        for field in dataclasses.fields(settings_type)  # type: ignore[arg-type]
        if not _has_default(field)
    }
    return settings_type(**required)


def from_recipe(settings_type: type[S], recipe: str | Path) -> S:
    """Return the settings of a recipe; what a run needs besides, such as its data, is None."""
    return with_recipe(with_required(settings_type, None), recipe)


def task_of_recipe(recipe: str | Path) -> str | None:
    """Return which command a recipe is for, "pretrain" or another; None where it does not say.

    Raises:
        ValueError: if there is no such recipe, or it is not TOML.
    """
    return _parsed(*_read_recipe(recipe)).get("task")


def with_recipe(settings: S, recipe: str | Path) -> S:
    """Return the settings with the values of a recipe in place.

    Args:
        settings: what the recipe does not name stays as it is here.
        recipe: the name of a built-in recipe, or a TOML file such as the ``settings.toml`` of a run.

    Raises:
        ValueError: if there is no such recipe, it is not TOML, is for another task, or a key or value does not fit.
    """
    text, where = _read_recipe(recipe)
    content = _parsed(text, where)
    task = content.pop("task", None)
    if task is not None and task != (own := getattr(settings, "TASK", None)):
        raise ValueError(f"{where} is a recipe for `videomae {task}`, not for `videomae {own}`.")
    return _replaced(settings, content, where, "")


def builtin_recipes() -> dict[str, Any]:
    """Return the recipes of this package: name to file."""
    folder = resources.files("videomae").joinpath("recipes")
    return {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}


def to_toml(settings: Any) -> str:
    """Write settings as TOML; a field that is None is left out, as TOML has no word for it."""
    tables: dict[str, list[str]] = {}
    for name, value in flatten(settings).items():
        table, _, key = name.rpartition(".")
        if value is not None and name not in _NOT_STORED:
            tables.setdefault(table, []).append(f"{key} = {_toml_value(value)}")
    task = getattr(settings, "TASK", None)
    head = [f'task = "{task}"'] if task else []
    parts = ["\n".join(head + tables.pop("", []))]
    parts += [f"[{table}]\n" + "\n".join(lines) for table, lines in tables.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def flatten(settings: Any) -> dict[str, Any]:
    """Return every setting under its dotted name, such as "optim.lr"."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{field.name}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[field.name] = value
    return flat


def without_optional(settings: S) -> S:
    """Return the settings with None wherever a field may be None: what a stored TOML leaves out was None."""
    hints = typing.get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = without_optional(value)
        elif types.NoneType in typing.get_args(hints[field.name]):
            changes[field.name] = None
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def with_absolute_paths(settings: S) -> S:
    """Return the settings with every path absolute; ``init``, too, where it is a path and not an id on the Hub."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = with_absolute_paths(value)
        elif isinstance(value, Path):
            changes[field.name] = value.absolute()
        elif field.name == "init" and value is not None and Path(value).exists():
            changes[field.name] = str(Path(value).absolute())
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def changed_settings(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ: dotted name to (old, new)."""
    before, after = flatten(old), flatten(new)
    names = [name for name in after if name not in _NOT_STORED]
    return {name: (before[name], after[name]) for name in names if before[name] != after[name]}


def _named_recipe(arguments: Sequence[str]) -> str | None:
    """Find ``--recipe NAME`` or ``--recipe=NAME``; the last one counts."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == "--recipe" and i + 1 < len(arguments):
            found = arguments[i + 1]
        elif argument.startswith("--recipe="):
            found = argument.removeprefix("--recipe=")
    return None if found == "None" else found


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not TOML: {str(error).rstrip('.')}.") from error


def _read_recipe(recipe: str | Path) -> tuple[str, str]:
    """Return the text of a recipe, and what to call it in an error."""
    known = builtin_recipes()
    if str(recipe) in known:
        return known[str(recipe)].read_text(encoding="utf-8"), f"the recipe {recipe!r}"
    path = Path(recipe)
    if not path.is_file():
        raise ValueError(
            f"there is no recipe {str(recipe)!r}{nearest(str(recipe), known)}: name a TOML file, or one of "
            f"{', '.join(sorted(known))}."
        )
    return path.read_text(encoding="utf-8", errors="surrogateescape"), str(path)  # it may name files of any bytes


def _without(mark: Any, settings: S) -> S:
    """Return the settings with None in place of a mark."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _without(mark, value)
        elif value == mark:
            changes[field.name] = None
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _replaced(settings: S, content: Mapping[str, Any], where: str, prefix: str) -> S:
    hints = typing.get_type_hints(type(settings))
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    changes = {}
    for key, value in content.items():
        if key not in names:
            raise ValueError(f"{where}: there is no setting {prefix + key!r}{nearest(key, names)}.")
        current = getattr(settings, key)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            changes[key] = _replaced(current, value, where, f"{prefix}{key}.")
        else:
            changes[key] = _converted(value, hints[key], f"{where}: {prefix + key}")
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def _converted(value: Any, hint: Any, where: str) -> Any:
    """Bring a TOML value into the type of a field, or raise a ValueError that names it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _converted(value, next(choice for choice in inner if choice is not types.NoneType), where)
    if origin is Literal and value in inner:
        return value
    if origin is tuple and isinstance(value, list) and (inner[-1] is ... or len(inner) == len(value)):
        kinds = [inner[0]] * len(value) if inner[-1] is ... else inner
        return tuple(_converted(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = f"one of {', '.join(map(repr, inner))}" if origin is Literal else getattr(hint, "__name__", str(hint))
    raise ValueError(f"{where} must be {expected}, got {value!r}.")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml_value, value))}]"
    # A JSON string is a TOML basic string, but for the one control character that JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
