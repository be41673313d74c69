import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from support import SMALL
from videomae import (
    CheckpointError,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    tube_mask,
)
from videomae.models.layers import DropPath
from videomae.models.patches import PatchEmbed, interpolate_table, sinusoid_table


def config(**fields):
    return VideoMAEConfig(**(SMALL | fields))


def clips(batch=2, **sizes):
    known = config(**sizes)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, known.num_frames, known.num_channels, *known.frame_size, generator=generator)


def mask(batch=2, ratio=0.75, grid=(2, 4, 4)):
    return tube_mask(grid, ratio, batch_size=batch, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_patch_embedding_is_the_convolution_at_the_chosen_tubelets():
    embed = PatchEmbed(config(image_size=(16, 32), patch_size=(8, 4)))
    pixel_values = torch.randn(2, 4, 3, 16, 32)
    whole = embed.proj(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)
    indices = torch.tensor([[0, 5, 31], [30, 2, 7]])
    torch.testing.assert_close(embed(pixel_values), whole)
    torch.testing.assert_close(embed(pixel_values, indices), whole.gather(1, indices[..., None].expand(-1, -1, 32)))


def test_the_position_table_is_the_published_formula():
    table = sinusoid_table((2, 3, 5), 6).double()
    for n, j in [(0, 0), (1, 3), (29, 4), (17, 5)]:
        angle = torch.tensor(n / 10000 ** (2 * (j // 2) / 6), dtype=torch.float64)
        torch.testing.assert_close(table[n, j], angle.sin() if j % 2 == 0 else angle.cos(), atol=1e-7, rtol=0)


def test_an_interpolated_table_keeps_its_values_on_its_own_grid():
    table = sinusoid_table((2, 4, 4), 8)
    torch.testing.assert_close(interpolate_table(table, (2, 4, 4), (2, 4, 4)), table)
    assert interpolate_table(table, (2, 4, 4), (4, 2, 6)).shape == (48, 8)


@pytest.mark.parametrize("name", ["tuple", "channels"])
def test_other_shapes_train(name):
    fields = {"tuple": {"image_size": (16, 48), "patch_size": (8, 16)}, "channels": {"num_channels": 5}}[name]
    model = VideoMAEForPreTraining(config(**fields))
    outputs = model(clips(**fields), mask(grid=model.config.grid, ratio=0.5))
    assert outputs.logits.shape[-1] == model.config.pixels_per_tubelet
    outputs.loss.backward()


def test_unknown_statistics_are_refused_only_where_raw_pixels_are_the_target():
    model = VideoMAEForPreTraining(config(num_channels=1, norm_pix_loss=False))
    with pytest.raises(ValueError, match="set image_mean and image_std"):
        model(clips(num_channels=1), mask())
    stated = config(num_channels=1, norm_pix_loss=False, image_mean=(0.4,), image_std=(0.2,))
    assert VideoMAEForPreTraining(stated)(clips(num_channels=1), mask()).loss.isfinite()


@pytest.mark.parametrize("shape", [(2, 5, 3, 32, 32), (2, 4, 1, 32, 32), (2, 4, 3, 30, 32), (2, 3, 4, 32, 32)])
def test_clips_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"got \(2, "):
        VideoMAEModel(config())(torch.randn(shape))


def test_unknown_arguments_are_refused_with_the_nearest_name():
    with pytest.raises(TypeError, match=r"'bool_mask_pos' \(did you mean 'bool_masked_pos'\?\)"):
        VideoMAEModel(config())(clips(), bool_mask_pos=mask())


def test_a_wrong_num_masked_is_refused():
    with pytest.raises(ValueError, match="hides 24 tubelets per clip, but num_masked says 20"):
        VideoMAEModel(config())(clips(), mask(), num_masked=20)


@torch.no_grad()
def test_outputs_can_be_read_by_attribute_key_and_position():
    outputs = VideoMAEForVideoClassification(config())(clips(), labels=torch.tensor([0, 1]), output_hidden_states=True)
    assert outputs.logits is outputs["logits"]
    assert outputs.logits is outputs[1]
    assert list(outputs) == ["loss", "logits", "hidden_states"]
    assert len(outputs.to_tuple()) == 3
    assert "attentions" not in outputs
    with pytest.raises(KeyError):
        outputs["attentions"]


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flash_attention_2"])
@torch.no_grad()
def test_attentions_come_back_whatever_the_implementation(implementation):
    model = VideoMAEModel(config(attn_implementation=implementation)).eval()
    outputs = model(clips(), output_attentions=True)
    assert [weights.shape for weights in outputs.attentions] == [(2, 2, 32, 32)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(2, 2, 32))
    torch.testing.assert_close(outputs.last_hidden_state, model(clips()).last_hidden_state)


def test_flash_attention_is_refused_where_there_is_no_kernel():
    model = VideoMAEModel(config(attn_implementation="flash_attention_2", attention_probs_dropout_prob=0.5)).train()
    with pytest.raises(RuntimeError, match=r"no FlashAttention kernel for torch\.float32 on cpu"):
        model(clips())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_flash_attention_on_cuda_agrees_and_refuses_float32():
    model = VideoMAEModel(config(hidden_size=128, attn_implementation="flash_attention_2")).eval().cuda()
    with pytest.raises(RuntimeError, match=r"no FlashAttention kernel for torch\.float32 on cuda"):
        model(clips().cuda())
    reference = copy.deepcopy(model).bfloat16()
    for block in reference.blocks:
        block.attn.implementation = "sdpa"
    pixel_values = clips().cuda().bfloat16()
    torch.testing.assert_close(model.bfloat16()(pixel_values)[0], reference(pixel_values)[0], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_gradient_checkpointing_gives_the_same_gradients(cls):
    model = cls(config(drop_path=0.2)).train()
    arguments = {"bool_masked_pos": mask()} if cls is VideoMAEForPreTraining else {"labels": torch.tensor([0, 1])}
    gradients = []
    for enable in (False, True):
        model.gradient_checkpointing_enable() if enable else model.gradient_checkpointing_disable()
        torch.manual_seed(3)
        model.zero_grad()
        model(clips(), **arguments).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_drop_path_drops_whole_clips_in_training_only():
    drop, ones = DropPath(0.5), torch.ones(1000, 2, 3)
    dropped = drop(ones)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped.flatten(1).std(1) == 0).all()
    assert 400 < (dropped[:, 0, 0] == 0).sum() < 600
    assert torch.equal(drop.eval()(ones), ones)


def test_drop_path_rises_linearly_over_the_blocks():
    model = VideoMAEModel(config(num_hidden_layers=5, drop_path=0.4))
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_attentive_pooling_is_the_attention_of_one_query_and_forgets_the_order_of_tokens():
    pooler = VideoMAEForVideoClassification(config(attentive_pooling=True)).eval().pooler
    width, heads = pooler.proj.in_features, pooler.num_heads
    tokens = torch.randn(2, 7, width)
    plain = torch.nn.MultiheadAttention(width, heads, bias=True, batch_first=True)
    key_value, proj = pooler.key_value, pooler.proj
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([torch.eye(width), key_value.weight]))
        plain.in_proj_bias.copy_(torch.cat([torch.zeros(width), key_value.bias]))
        plain.out_proj.weight.copy_(proj.weight)
        plain.out_proj.bias.copy_(proj.bias)
        attended = pooler.query + plain(pooler.query.expand(2, 1, -1), tokens, tokens)[0][:, 0]
        expected = attended + pooler.mlp(pooler.norm(attended))
        torch.testing.assert_close(pooler(tokens), expected)
        torch.testing.assert_close(pooler(tokens.flip(1)), expected)


def test_labels_may_be_classes_soft_targets_or_several():
    model = VideoMAEForVideoClassification(config(num_labels=3)).eval()
    logits = model(clips()).logits
    hard = torch.tensor([2, 0])
    soft = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(model(clips(), labels=hard).loss, F.cross_entropy(logits, hard))
    torch.testing.assert_close(model(clips(), labels=soft).loss, F.binary_cross_entropy_with_logits(logits, soft))
    model.config.problem_type = "single_label_classification"
    torch.testing.assert_close(model(clips(), labels=hard).loss, F.cross_entropy(logits, hard))
    torch.testing.assert_close(model(clips(), labels=soft).loss, -(soft * logits.log_softmax(-1)).sum(-1).mean())
    model.config.label_smoothing = 0.1
    smooth = F.one_hot(hard, 3) * 0.9 + 0.1 / 3
    torch.testing.assert_close(model(clips(), labels=hard).loss, F.cross_entropy(logits, smooth))
    model.config.problem_type = "multi_label_classification"
    several = torch.tensor([[1, 0, 1], [0, 0, 0]])
    expected = F.binary_cross_entropy_with_logits(logits, several.float())
    torch.testing.assert_close(model(clips(), labels=several).loss, expected)
    model.config.problem_type = "regression"
    torch.testing.assert_close(model(clips(), labels=soft).loss, F.mse_loss(logits, soft))


@pytest.mark.parametrize("labels", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2), torch.zeros(3).long()])
def test_labels_that_fit_no_loss_are_refused(labels):
    with pytest.raises(ValueError, match="labels must"):
        VideoMAEForVideoClassification(config(num_labels=3))(clips(), labels=labels)


def test_several_classes_per_clip_mean_the_same_loss_compiled_and_not():
    """Chosen by dtype and configuration alone: a value would have to be fetched from the device."""
    model = VideoMAEForVideoClassification(config(num_labels=3)).eval()
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    expected = F.binary_cross_entropy_with_logits(model(clips()).logits, labels)
    torch.testing.assert_close(model(clips(), labels=labels).loss, expected)
    torch.testing.assert_close(torch.compile(model, backend="eager")(clips(), labels=labels).loss, expected)


def test_one_output_is_regression_of_floats_and_no_class_at_all():
    model = VideoMAEForVideoClassification(config(num_labels=1)).eval()
    logits = model(clips()).logits
    torch.testing.assert_close(
        model(clips(), labels=torch.tensor([1.0, 3.0])).loss, (logits[:, 0] - torch.tensor([1.0, 3.0])).square().mean()
    )
    with pytest.raises(ValueError, match="one class leaves nothing to learn"):
        model(clips(), labels=torch.tensor([0, 0]))


def test_targets_are_float32_whatever_the_models_dtype():
    """In bfloat16 the loss of a near-still clip would be a small fraction of the true one."""
    still = torch.full((1, 4, 3, 32, 32), 0.5) + 1e-4 * clips(1)
    model = VideoMAEForPreTraining(config())
    expected = model(still, mask(1)).loss
    loss = model.bfloat16()(still, mask(1)).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_the_meta_device_gives_shapes_without_work(cls):
    with torch.device("meta"):
        model = cls(config())
        arguments = {} if cls is VideoMAEForVideoClassification else {"bool_masked_pos": mask().to("meta")}
        outputs = model(clips().to("meta"), **arguments, **({"num_masked": 24} if arguments else {}))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert outputs[-1].is_meta


@pytest.mark.parametrize("cls", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
@torch.no_grad()
def test_export_gives_the_same_outputs_for_new_inputs(cls):
    model = cls(config()).eval()
    pretraining = cls is VideoMAEForPreTraining
    arguments = {"bool_masked_pos": mask(), "num_masked": 24} if pretraining else {}
    exported = torch.export.export(model, (clips(),), arguments).module()
    if pretraining:
        arguments["bool_masked_pos"] = mask().flip(0)
    other = clips().flip(1)
    torch.testing.assert_close(exported(other, **arguments).logits, model(other, **arguments).logits)


@torch.no_grad()
def test_an_exported_pretraining_model_takes_any_batch(tmp_path):
    model = VideoMAEForPreTraining(config()).eval()
    batch = torch.export.Dim("batch", min=2)
    shapes = {"pixel_values": {0: batch}, "bool_masked_pos": {0: batch}, "num_masked": None}
    arguments = {"bool_masked_pos": mask(3), "num_masked": 24}
    exported = torch.export.export(model, (clips(3),), arguments, dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    arguments["bool_masked_pos"] = mask(5)
    torch.testing.assert_close(loaded(clips(5), **arguments).loss, model(clips(5), **arguments).loss)


def test_masks_that_leave_nothing_to_predict_are_refused():
    model = VideoMAEForPreTraining(config())
    with pytest.raises(ValueError, match="hides nothing: there is nothing to reconstruct"):
        model(clips(), torch.zeros(2, 32, dtype=torch.bool))
    with pytest.raises(ValueError, match="no tubelet is left for the loss"):
        model(clips(), mask(), mask())


def test_a_mask_of_the_wrong_kind_is_refused_also_when_its_number_is_given():
    with pytest.raises(TypeError, match="must be a bool tensor"):
        torch.export.export(VideoMAEModel(config()), (clips(), mask().int()), {"num_masked": 24})


def test_pixels_that_are_not_normalised_floats_are_refused():
    with pytest.raises(TypeError, match=r"normalised floats, got torch\.uint8: use the model's processor"):
        VideoMAEModel(config())(clips().byte())


@torch.no_grad()
def test_a_model_made_empty_can_be_initialised():
    model = VideoMAEForPreTraining(config()).to_empty(device="cpu")
    for initialise in (model.reset_parameters, model.init_weights):  # of torch's and of transformers' convention
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        initialise()
        assert model(clips(), mask()).loss.isfinite()
    model.decoder.head.weight.zero_()
    model.init_weights(model.decoder)
    assert model.decoder.head.weight.any()
    assert not model.decoder.blocks[0].attn.q_bias.any()


@torch.no_grad()
def test_dual_masking_can_be_exported():
    model = VideoMAEForPreTraining(config()).eval()
    arguments = {"bool_masked_pos": mask(), "num_masked": 24, "decoder_masked_pos": mask(ratio=0.5)}
    arguments["num_decoder_masked"] = 16
    exported = torch.export.export(model, (clips(),), arguments).module()
    torch.testing.assert_close(exported(clips(), **arguments).loss, model(clips(), **arguments).loss)


@torch.no_grad()
def test_a_full_graph_compiles_when_the_number_of_masked_tubelets_is_given():
    model = VideoMAEForPreTraining(config()).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    arguments = {"bool_masked_pos": mask(), "num_masked": 24}
    torch.testing.assert_close(compiled(clips(), **arguments).loss, model(clips(), **arguments).loss)
    classifier = VideoMAEForVideoClassification(config()).eval()
    compiled = torch.compile(classifier, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(clips()).logits, classifier(clips()).logits)


def test_export_without_the_number_of_masked_tubelets_says_what_is_missing():
    with pytest.raises(Exception, match="number of masked tubelets of bool_masked_pos must be given"):
        torch.export.export(VideoMAEModel(config()), (clips(), mask()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_half_precision_train(dtype):
    model = VideoMAEForPreTraining(config()).to(dtype)
    loss = model(clips(), mask()).loss
    loss.backward()
    assert model.mask_token.grad.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert VideoMAEForPreTraining(config())(clips(), mask()).loss.isfinite()


def test_initial_weights_are_those_of_v1():
    wide = config(hidden_size=256, num_attention_heads=4, intermediate_size=512)
    classifier = VideoMAEForVideoClassification(wide).videomae.blocks[0].mlp.fc1
    assert classifier.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not classifier.bias.any()
    pretraining = VideoMAEForPreTraining(wide)
    bound = (6 / (256 + 512)) ** 0.5
    assert pretraining.videomae.blocks[0].mlp.fc1.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert 0 < pretraining.mask_token.abs().max() < 0.1


def test_other_sizes_load_with_a_rebuilt_or_an_interpolated_table(tmp_path):
    VideoMAEForVideoClassification(config()).save_pretrained(tmp_path)
    load = VideoMAEForVideoClassification.from_pretrained
    larger = {"num_frames": 8, "image_size": (48, 32)}
    rebuilt = load(tmp_path, **larger)
    torch.testing.assert_close(rebuilt.videomae.position.table, sinusoid_table((4, 6, 4), 32))
    interpolated = load(tmp_path, **larger, position_embedding="interpolate")
    expected = interpolate_table(sinusoid_table((2, 4, 4), 32), (2, 4, 4), (4, 6, 4))
    torch.testing.assert_close(interpolated.videomae.position.table, expected)
    interpolated.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    assert again.config.position_grid == (2, 4, 4)
    torch.testing.assert_close(again.videomae.position.table, expected)
    assert again(clips(**larger)).logits.shape == (2, 2)


def test_another_number_of_classes_needs_a_word(tmp_path):
    VideoMAEForVideoClassification(config(num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"classifier.weight is \(3, 32\).*\(7, 32\).*ignore_mismatched_sizes=True"
    ):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=7)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert model(clips()).logits.shape == (2, 7)


def test_gradient_checkpointing_takes_the_arguments_of_transformers():
    model = VideoMAEForVideoClassification(config()).train()
    expected = torch.autograd.grad(model(clips()).logits.sum(), list(model.parameters()))
    for options in ({"use_reentrant": True}, {"use_reentrant": False}, None):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options, every_n_layers=2)
        assert model.is_gradient_checkpointing
        model.enable_input_require_grads()
        model.zero_grad()
        model(clips()).logits.sum().backward()
        for ours, their in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(ours.grad, their)
    model.disable_input_require_grads()
    model.activation_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_modules_are_found_by_the_names_of_transformers_too():
    model = VideoMAEForVideoClassification(config())
    assert model.base_model is model.videomae
    assert model.videomae.base_model is model.videomae
    assert model.videomae.encoder.layer[1] is model.videomae.blocks[1]
    assert model.videomae.embeddings is model.get_input_embeddings()
    assert model.get_output_embeddings() is None
    with pytest.raises(AttributeError, match="has no attribute 'blocks'"):
        model.encoder  # noqa: B018
    with torch.no_grad():
        clip = clips(batch=1)
        first = model.videomae(clip, output_hidden_states=True).hidden_states[1]
        model.videomae.encoder.layer = model.videomae.encoder.layer[:1]
        assert len(model.videomae.blocks) == 1
        assert not any(".layer." in name for name in model.state_dict())
        torch.testing.assert_close(model.videomae(clip).last_hidden_state, first)
        encoder = VideoMAEModel(config(use_mean_pooling=False))
        encoder.layernorm = nn.Identity()
        torch.testing.assert_close(encoder(clip)[0], encoder(clip, output_hidden_states=True).hidden_states[-1])
    assert model.get_memory_footprint(return_buffers=False) == 4 * model.num_parameters()
    model.set_attn_implementation("eager")
    assert {block.attn.implementation for block in model.videomae.blocks} == {"eager"}
    with pytest.raises(ValueError, match="must be one of 'eager'"):
        model.set_attn_implementation("flex")
    frozen = model.num_parameters(exclude_embeddings=True)
    assert frozen == model.num_parameters() - sum(p.numel() for p in model.videomae.patch_embed.parameters())
