"""The rooms of docs/architecture.md: imports go down only, in no circle, and importing the package costs little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import videomae

SOURCE = Path(videomae.__file__).parent
FILES = {
    ".".join(("videomae", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in sorted(SOURCE.rglob("*.py"))
}

# What each room may import of this package, besides itself. A command is a room of its own.
GROUND = {"config", "console", "errors", "files", "hub", "options", "packages", "processes", "settings"}
BELOW = {
    "errors": set(),
    "files": set(),
    "console": {"files"},
    "options": set(),
    "packages": {"errors"},
    "processes": {"errors"},
    "hub": {"errors"},
    "config": {"errors", "files", "hub"},
    "settings": {"config", "errors", "files"},
    "models": GROUND,
    "video": GROUND,
    "auto": GROUND | {"models", "video"},
    "data": GROUND | {"video"},
    "training": GROUND | {"models", "video", "data"},
    "inference": GROUND | {"models", "video", "data"},
    "export": GROUND | {"models", "video", "data", "inference"},
    "serving": GROUND | {"models", "video", "inference"},
    "plots": GROUND | {"models", "video", "data", "training", "inference"},
    "pipeline": GROUND | {"models", "video", "data", "training", "inference", "plots"},
    "commands": GROUND | {"models", "video", "data", "training", "inference", "export", "plots", "pipeline", "serving"},
    "cli": {"commands", "config", "console", "errors", "processes", "settings"},
    "__main__": {"cli", "processes"},
}


def imported(file):
    """Return the modules of this package that a file imports, wherever in it, also for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("videomae"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("videomae.")}
    return found


def room(module):
    return [*module.split("."), "__init__"][1]


IMPORTS = {module: imported(file) for module, file in FILES.items() if module != "videomae"}


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_go_down_only(module):
    assert {room(other) for other in IMPORTS[module]} - {room(module)} <= BELOW[room(module)]


@pytest.mark.parametrize("module", [module for module in IMPORTS if room(module) == "commands"])
def test_a_command_imports_no_command(module):
    assert not {other for other in IMPORTS[module] if room(other) == "commands"} - {module}


def test_files_import_each_other_in_no_circle():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in sorted(IMPORTS.get(module, ())):
            visit(other)
        done.add(path.pop())

    for module in IMPORTS:
        visit(module)


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import videomae", {"torch", "numpy", "av", "huggingface_hub"}),
        ("import videomae.cli", {"torch", "numpy", "av", "tyro", "rich"}),
        ("import videomae; videomae.VideoMAEConfig()", {"torch", "av"}),
        ("import videomae; videomae.VideoReader", {"torch"}),
        ("import videomae.commands.predict, videomae.commands.convert, videomae.commands.quickstart", {"torch"}),
        ("import videomae.commands.serve", {"torch", "starlette", "uvicorn"}),
        ("import videomae.commands.doctor", {"torch", "av", "openvino", "onnxruntime"}),
        ("import videomae.serving.worker", {"torch", "starlette"}),
        ("from videomae.commands import distill, finetune, pretrain", {"torch", "accelerate"}),
        (
            "from videomae.commands import embed, probe, search, reconstruct, explain, train",
            {"torch", "pyarrow", "sklearn", "lancedb", "ray", "matplotlib"},
        ),
        ("import videomae; videomae.VideoMAEForVideoClassification, videomae.VideoMAEImageProcessor", {"torchvision"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement, unwanted):
    code = f"{statement}\nimport sys\nprint(' '.join(m for m in {unwanted!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
