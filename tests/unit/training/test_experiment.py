"""A method of one's own trains like the built-in ones: the example of docs/new-training-method.md."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from training_runs import write_data
from videomae import VideoMAEModel
from videomae.settings import parse_settings
from videomae.training.experiment import run_experiment
from videomae.training.launch import launch
from videomae.training.metrics_log import read_metrics

FILE = Path(__file__).parents[3] / "docs" / "examples" / "contrastive.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("contrastive", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["contrastive"] = module  # the command line reads the settings' documentation from the source
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("contrastive"))


def settings(example, data, out, *options):
    recipe = data.parent / "recipe.toml"
    arguments = [str(data), "--out", str(out), "--recipe", str(recipe), "--run.batch-size", "12", *options]
    return parse_settings(example.ContrastiveSettings, arguments, prog="contrastive.py")


def test_the_example_learns_and_leaves_an_encoder(example, data, tmp_path):
    mild = ("--augment.randaugment-ops", "0", "--augment.erasing", "0", "--augment.flip", "0")
    options = ("--run.epochs", "120", "--optim.lr", "3e-3", *mild)
    result = run_experiment(example.Contrastive(settings(example, data, tmp_path / "run", *options)))
    losses = [line["loss"] for line in read_metrics(tmp_path / "run")]
    assert result.steps == 120
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert VideoMAEModel.from_pretrained(result.model).config.clip_stride == 2
    assert run_experiment(example.Contrastive(settings(example, data, tmp_path / "run", *options))).steps == 120


def test_the_example_has_a_dry_run_and_its_own_settings(example, data, tmp_path, capsys):
    assert launch(settings(example, data, tmp_path / "run", "--dry-run"), example.Contrastive) == 0
    assert "GFLOPs per clip forward" in capsys.readouterr().out
    assert launch(settings(example, data, tmp_path / "run", "--print-config"), example.Contrastive) == 0
    assert "temperature = 0.1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="temperature must be above 0"):
        example.Contrastive(settings(example, data, tmp_path / "run", "--temperature", "0"))


def test_the_contrastive_loss_is_that_of_its_definition(example):
    torch.manual_seed(0)
    features, labels = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 2])
    z = torch.nn.functional.normalize(features, dim=1)
    expected = []
    for i in range(4):  # the fifth has no other of its class
        others = [j for j in range(5) if j != i]
        total = torch.stack([(z[i] @ z[j] / 0.5).exp() for j in others]).sum()
        same = [j for j in others if labels[j] == labels[i]]
        expected.append(-torch.stack([((z[i] @ z[j] / 0.5).exp() / total).log() for j in same]).mean())
    loss = example.contrastive_loss(features, labels, temperature=0.5)
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert example.contrastive_loss(features[:1], labels[:1], temperature=0.5) == 0
