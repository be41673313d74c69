"""The layers of docs/architecture.md: imports go down only, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import videomae

SOURCE = Path(videomae.__file__).parent

# What each layer may import of this package, besides itself.
GROUND = {"config", "console", "errors", "files", "hub", "options", "packages", "processes", "settings"}
BELOW = {
    "errors": set(),
    "files": set(),
    "console": set(),
    "options": set(),
    "packages": {"errors"},
    "processes": set(),
    "hub": {"errors"},
    "config": {"errors", "files", "hub"},
    "settings": {"config", "errors", "files"},
    "models": GROUND,
    "video": GROUND,
    "auto": GROUND | {"models", "video"},
    "data": GROUND | {"video"},
    "training": GROUND | {"models", "video", "data"},
    "inference": GROUND | {"models", "video", "data"},
    "plots": GROUND | {"models", "video", "data", "training", "inference"},
    "pipeline": GROUND | {"models", "video", "data", "training", "inference", "plots"},
    "commands": GROUND | {"models", "video", "data", "training", "inference", "plots", "pipeline"},
    "cli": {"commands", "config", "errors", "settings"},
    "__main__": {"cli"},
    "__init__": set(),
}


def imported_layers(file):
    for node in ast.walk(ast.parse(file.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("videomae."))


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_down_only(file):
    layer = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert set(imported_layers(file)) - {layer} <= BELOW[layer]


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import videomae", {"torch", "numpy", "av", "huggingface_hub"}),
        ("import videomae.cli", {"torch", "numpy", "av", "tyro", "rich"}),
        ("import videomae; videomae.VideoMAEConfig()", {"torch", "av"}),
        ("import videomae; videomae.VideoReader", {"torch"}),
        ("import videomae.commands.predict, videomae.commands.convert, videomae.commands.quickstart", {"torch"}),
        ("import videomae.commands.pretrain, videomae.commands.finetune", {"torch", "accelerate"}),
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


def test_every_public_name_resolves():
    assert all(getattr(videomae, name) is not None for name in videomae.__all__)
    assert videomae.__version__
    with pytest.raises(AttributeError, match="has no attribute 'VideoMAEModels'"):
        videomae.VideoMAEModels  # noqa: B018
