"""Which parameters decay and how fast each layer learns, against values worked out by hand."""

import math

import pytest
import torch

from videomae.config import VideoMAEConfig
from videomae.errors import DataError
from videomae.models.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification
from videomae.training.optim import Ema, build_optimizer, layer_of, orthogonalized, parameter_groups
from videomae.training.schedule import Schedule
from videomae.training.settings import OptimSettings, RunSettings

CONFIG = VideoMAEConfig(
    image_size=16,
    patch_size=8,
    num_frames=4,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    decoder_hidden_size=8,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=16,
)


def names_by_group(model, **options) -> dict[tuple[float, float], set[str]]:
    """The names of the parameters by (weight decay, learning rate scale)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        (group["weight_decay"], round(group["lr_scale"], 6)): {names[id(p)] for p in group["params"]}
        for group in parameter_groups(model, depth=2, **options)
    }


def test_vectors_and_the_mask_token_do_not_decay():
    groups = names_by_group(VideoMAEForPreTraining(CONFIG.replace(use_mean_pooling=False)), weight_decay=0.05)
    assert set(groups) == {(0.05, 1.0), (0.0, 1.0)}
    assert all(name.endswith("weight") for name in groups[0.05, 1.0])
    assert "videomae.patch_embed.proj.weight" in groups[0.05, 1.0]
    free = groups[0.0, 1.0]
    assert {"mask_token", "videomae.norm.weight", "decoder.head.bias", "videomae.blocks.0.attn.q_bias"} <= free
    assert not any(".mlp." in name and name.endswith("weight") for name in free)


def test_parts_may_learn_faster_and_without_decay():
    model = VideoMAEForVideoClassification(CONFIG)
    groups = names_by_group(model, weight_decay=0.05, faster={"classifier.": 3.0})
    assert groups[0.0, 3.0] == {"classifier.weight", "classifier.bias"}
    assert sum(map(len, groups.values())) == len(list(model.parameters()))


def test_layers_learn_slower_towards_the_input():
    """Three steps of 0.5 lie between the head and the patch embedding of a model with two blocks (v1's numbering)."""
    groups = names_by_group(VideoMAEForVideoClassification(CONFIG), weight_decay=0.05, layer_decay=0.5)
    assert set(groups) == {(decay, scale) for decay in (0.05, 0.0) for scale in (0.125, 0.25, 0.5, 1.0)}
    assert groups[0.05, 0.125] == {"videomae.patch_embed.proj.weight"}
    assert groups[0.0, 0.125] == {"videomae.patch_embed.proj.bias"}
    assert all(name.startswith("videomae.blocks.0.") for name in groups[0.05, 0.25] | groups[0.0, 0.25])
    assert all(name.startswith("videomae.blocks.1.") for name in groups[0.05, 0.5] | groups[0.0, 0.5])
    assert groups[0.05, 1.0] == {"classifier.weight"}
    assert groups[0.0, 1.0] == {"classifier.bias", "fc_norm.weight", "fc_norm.bias"}
    assert layer_of("videomae.norm.weight", 2) == 3


def test_muon_takes_the_matrices_of_all_blocks_at_a_rate_of_its_own():
    model = VideoMAEForPreTraining(CONFIG)
    groups = parameter_groups(model, depth=2, weight_decay=0.05, layer_decay=0.5, muon_scale=20.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_muon = {names[id(p)] for group in groups if group["muon"] for p in group["params"]}
    assert of_muon == {
        f"{part}.{i}.{matrix}.weight"
        for part, depth in (("videomae.blocks", 2), ("decoder.blocks", CONFIG.decoder_num_hidden_layers))
        for i in range(depth)
        for matrix in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    scales = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scales["videomae.blocks.0.attn.qkv.weight"] == 20 * scales["videomae.blocks.0.norm1.weight"]
    assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 32, 8), (2, 8, 32)])
def test_muons_step_has_singular_values_of_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    near = torch.linalg.svdvals(u @ v)  # the nearest orthogonal ones point the same way
    assert torch.cosine_similarity(orthogonalized(matrices).flatten(1), (u @ v).flatten(1)).min() > 0.97
    torch.testing.assert_close(near, torch.ones_like(near))


def test_muon_moves_matrices_and_adamw_the_rest_as_it_would_alone():
    torch.manual_seed(0)
    models = [VideoMAEForVideoClassification(CONFIG) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    before = {name: parameter.detach().clone() for name, parameter in models[0].named_parameters()}
    clips, labels = torch.randn(2, 4, 3, 16, 16), torch.tensor([0, 1])
    for model, name in zip(models, ("muon", "adamw"), strict=True):
        settings = OptimSettings(name=name, lr=1e-3)
        scale = 20.0 if name == "muon" else None
        optimizer = build_optimizer(
            parameter_groups(model, depth=2, weight_decay=0.05, muon_scale=scale), settings, torch.device("cpu")
        )
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * group["lr_scale"]
        model(clips, labels=labels).loss.backward()
        optimizer.step()
    ours, theirs = (dict(model.named_parameters()) for model in models)
    matrix = "videomae.blocks.1.attn.proj.weight"
    assert torch.equal(ours["classifier.weight"], theirs["classifier.weight"])
    assert not torch.equal(ours[matrix], theirs[matrix])
    moved = torch.linalg.svdvals((ours[matrix] - before[matrix] * (1 - 0.02 * 0.05)).detach() / 0.02)
    assert moved.max() < 1.3


def test_muon_needs_a_rate_to_follow():
    frozen = make_plan({}, {"name": "muon", "lr": 0.0})
    with pytest.raises(ValueError, match=r"optim\.lr and optim\.muon_lr must be above 0, got 0 and 0\.02"):
        frozen.muon_scale(OptimSettings(name="muon", lr=0.0))


def test_frozen_parameters_are_in_no_group():
    model = VideoMAEForVideoClassification(CONFIG)
    model.videomae.requires_grad_(False)
    groups = names_by_group(model, weight_decay=0.05)
    assert set.union(*groups.values()) == {"classifier.weight", "classifier.bias", "fc_norm.weight", "fc_norm.bias"}


def test_the_average_of_the_weights_follows_them():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = Ema(model, 0.15)
    model.weight.data.fill_(5.0)
    ema.update()  # keeps a tenth
    with ema.swapped():
        assert model.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 5)
    assert model.weight.item() == 5.0
    ema.update()  # would keep 2 of 11: 0.15 is less
    assert ema.average["weight"].item() == pytest.approx(5 - 4 * 0.1 * 0.15)
    before = ema.average["weight"].clone(), int(ema.updates)
    model.weight.data.fill_(9.0)
    ema.update(torch.tensor(False))  # a step that was skipped
    assert (ema.average["weight"], int(ema.updates)) == before
    with pytest.raises(ValueError, match="between 0 and 1"):
        Ema(model, 1.0)


def test_the_average_soon_forgets_the_weights_before_training():
    """A decay of 0.9999 from the start would keep 74 % of them after 3,000 steps."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = Ema(model, 0.9999)
    model.weight.data.fill_(0.0)
    for _ in range(3000):
        ema.update()
    assert ema.average["weight"].item() < 1e-3


def test_the_average_goes_on_where_it_was():
    model = torch.nn.Linear(1, 1, bias=False)
    whole, stopped, resumed = (Ema(model, 0.9999) for _ in range(3))
    model.weight.data.add_(1.0)
    whole.update(), stopped.update()
    resumed.load_state_dict(stopped.state_dict())
    model.weight.data.add_(1.0)
    whole.update(), resumed.update()
    assert torch.equal(whole.average["weight"], resumed.average["weight"])


# ---- the plan


def make_plan(run=None, optim=None, *, num_videos=100, world_size=1) -> Schedule:
    run = {"epochs": 5, "batch_size": 10} | (run or {})
    optim = {"warmup_epochs": 1} | (optim or {})
    return Schedule.make(RunSettings(**run), OptimSettings(**optim), num_videos=num_videos, world_size=world_size)


def test_the_schedule_is_a_line_and_a_cosine():
    """v1: numpy's linspace from 0 to lr over the warm-up, then half a cosine over the other steps."""
    plan = make_plan(optim={"lr": 1.0, "min_lr": 0.1, "scale_lr": False})
    assert (plan.steps, plan.warmup_steps) == (50, 10)
    rates = [plan.learning_rate(step) for step in range(50)]
    expected = [i / 9 for i in range(10)] + [0.1 + 0.45 * (1 + math.cos(math.pi * i / 40)) for i in range(40)]
    assert rates == pytest.approx(expected)
    assert rates[9] == rates[10] == 1.0
    assert rates[30] == pytest.approx(0.55)


def test_the_learning_rate_grows_with_the_batch():
    plan = make_plan({"batch_size": 64}, {"lr": 1e-3, "min_lr": 1e-5}, num_videos=640)
    assert (plan.lr, plan.min_lr) == (2.5e-4, 2.5e-6)
    assert "learning rate 0.00025" in plan.describe()


@pytest.mark.parametrize(
    ("per_device", "world_size", "accumulation"), [(None, 1, 1), (None, 2, 1), (2, 1, 6), (3, 2, 2)]
)
def test_the_batch_is_the_same_on_any_number_of_devices(per_device, world_size, accumulation):
    plan = make_plan({"batch_size": 12, "per_device_batch": per_device}, world_size=world_size)
    assert (plan.batch_size, plan.accumulation) == (12, accumulation)
    assert (plan.steps_per_epoch, plan.lr) == (8, make_plan({"batch_size": 12}).lr)


def test_a_plan_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="got 10 for 4 x 1"):
        make_plan({"per_device_batch": 4})
    with pytest.raises(DataError, match=r"3 videos do not fill one step of run\.batch_size = 10"):
        make_plan(num_videos=3)
    with pytest.raises(ValueError, match=r"of which 60 are to warm up: set run\.epochs"):
        make_plan(optim={"warmup_epochs": 6})
