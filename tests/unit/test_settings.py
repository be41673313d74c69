"""Default, recipe, command line: the later wins, and nothing is swallowed."""

import dataclasses
from pathlib import Path

import pytest

from videomae.commands import pretrain
from videomae.settings import builtin_recipes, changed_settings, parse_settings, to_toml, with_recipe
from videomae.training.distillation import DistillSettings
from videomae.training.finetuning import FinetuneSettings
from videomae.training.pretraining import PretrainSettings

TASKS = {"pretrain": PretrainSettings, "finetune": FinetuneSettings, "distill": DistillSettings}


def parse(*arguments, task="pretrain"):
    return parse_settings(TASKS[task], ["videos", "--out", "run", *arguments], prog="videomae")


def recipe(tmp_path, text) -> str:
    file = tmp_path / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_the_command_line_goes_before_the_recipe_and_that_before_the_default(tmp_path):
    file = recipe(tmp_path, "[optim]\nlr = 2\nweight_decay = 0.1\n[augment]\nscales = [1, 0.5]\n")
    settings = parse("--recipe", file, "--optim.lr", "0.5")
    assert (settings.optim.lr, settings.optim.weight_decay, settings.optim.warmup_epochs) == (0.5, 0.1, 40)
    assert settings.augment.scales == (1.0, 0.5)
    assert (settings.data.path, settings.out) == (Path("videos"), Path("run"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlearning_rate = 1", r"no setting 'optim\.learning_rate'"),
        ("[optim]\nwarm_up_epochs = 1", r"did you mean 'warmup_epochs'"),
        ("[optims]\nlr = 1", "did you mean 'optim'"),
        ("[optim]\nlr = 'high'", r"optim\.lr must be float, got 'high'"),
        ("[run]\nepochs = 1.5", r"run\.epochs must be int, got 1\.5"),
        ("[run]\ncompile = 1", r"run\.compile must be bool, got 1"),
        ("[run]\nfinal = 'bests'", r"run\.final must be one of 'best', .*got 'bests'"),
        ("[optim]\nbetas = [0.9]", r"optim\.betas must be tuple"),
        ("task = 'finetune'", "for `videomae finetune`, not for `videomae pretrain`"),
        ("lr = ", "is not TOML"),
    ],
)
def test_a_faulty_recipe_names_its_fault(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parse("--recipe", recipe(tmp_path, text))


def test_an_unknown_recipe_or_option_is_refused_with_the_nearest_name(capsys):
    with pytest.raises(ValueError, match="did you mean 'pretrain-ucf101-base'"):
        parse("--recipe=pretrain-ucf11-base")
    with pytest.raises(SystemExit):
        parse("--optim.warmup-epoch", "3")
    assert "--optim.warmup-epochs" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_every_recipe_loads_and_says_where_it_comes_from(name):
    settings = parse("--recipe", name, task=name.split("-")[0])
    assert settings != parse(task=name.split("-")[0])
    text = builtin_recipes()[name].read_text(encoding="utf-8")
    assert all(f"# {word} " in text for word in ("source", "command", "hardware", "result"))


def test_settings_are_printed_without_data_and_out(tmp_path, capsys):
    for arguments in (["--recipe", "pretrain-tiny"], []):
        settings = parse_settings(PretrainSettings, [*arguments, "--print-config", "--run.seed", "3"], prog="videomae")
        assert pretrain.main(settings) == 0
        shown = capsys.readouterr().out
        assert "seed = 3" in shown
        assert "path =" not in shown
        assert "out =" not in shown
        again = parse("--recipe", recipe(tmp_path, shown))
        assert (again.data.path, again.run.seed) == (Path("videos"), 3)
    with pytest.raises(SystemExit):
        parse_settings(PretrainSettings, ["--recipe", "pretrain-tiny"], prog="videomae")


def test_stored_settings_are_a_recipe_for_the_same_run(tmp_path):
    settings = parse("--recipe", "finetune-ucf101-base", "--augment.mean", "0.5", "0.5", "0.5", task="finetune")
    file = recipe(tmp_path, to_toml(settings))
    assert changed_settings(parse("--recipe", file, task="finetune"), settings) == {}
    changed = dataclasses.replace(settings, optim=dataclasses.replace(settings.optim, lr=1.0))
    assert changed_settings(settings, changed) == {"optim.lr": (5e-4, 1.0)}
    again = parse_settings(FinetuneSettings, ["--recipe", file], prog="videomae")
    assert with_recipe(again, file).out == Path("run")
