"""Trainer, accelerate, PEFT, pipelines, exporters and quantisers do with our models what they do with transformers'."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.utils import _apply_to_tensors
from torch.nn import functional as F

import videomae
from support import SMALL
from videos import moving_square, write_video

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries

SIZES = SMALL | {"image_size": 16}
CLASSES = ["VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"]
LABELS = {"id2label": {0: "jump", 1: "run", 2: "sit"}, "label2id": {"jump": 0, "run": 1, "sit": 2}}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pre-trained model of transformers, as the task guide starts from."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    model = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**SIZES, use_mean_pooling=False))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def make(name, **fields):
    model = getattr(videomae, name)(videomae.VideoMAEConfig(**SIZES, **(LABELS | fields)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs(name, batch=3):
    generator = torch.Generator().manual_seed(1)
    values = {"pixel_values": torch.randn(batch, 4, 3, 16, 16, generator=generator)}
    if name == "VideoMAEForPreTraining":
        values["bool_masked_pos"] = videomae.random_mask((2, 2, 2), 0.7, batch_size=batch, generator=generator)
    return values


class Clips(torch.utils.data.Dataset):
    def __init__(self, number=24, pretraining=False):
        generator = torch.Generator().manual_seed(2)
        self.pixels = torch.randn(number, 4, 3, 16, 16, generator=generator)
        self.labels = torch.randint(3, (number,), generator=generator)
        self.masks = videomae.random_mask((2, 2, 2), 0.7, batch_size=number, generator=generator)
        self.pretraining = pretraining

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        target = {"bool_masked_pos": self.masks[index]} if self.pretraining else {"labels": self.labels[index]}
        return {"pixel_values": self.pixels[index]} | target


class WeightedTrainer(transformers.Trainer):
    """The example of Trainer's documentation: a loss with a weight for each class."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.get("logits")
        loss = F.cross_entropy(logits.view(-1, 3), labels.view(-1), weight=torch.tensor([1.0, 2.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


def accuracy(predicted):
    assert predicted.predictions.shape == (6, 3)
    return {"accuracy": float(np.mean(predicted.predictions.argmax(1) == predicted.label_ids))}


def trainer(model, folder, kind=transformers.Trainer, **changes):
    settings = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 10,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 5,
        "save_steps": 5,
        "gradient_checkpointing": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "remove_unused_columns": False,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    } | changes.pop("settings", {})
    parts = {"train_dataset": Clips(), "eval_dataset": Clips(6), "compute_metrics": accuracy} | changes
    return kind(model=model, args=transformers.TrainingArguments(output_dir=str(folder), **settings), **parts)


def logged(done, key="loss"):
    return [entry[key] for entry in done.state.log_history if key in entry]


def load_both(base):
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(base, **LABELS)
    theirs.config.use_mean_pooling = True
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(base, config=theirs.config)
    with torch.no_grad():
        theirs.classifier.weight.normal_(std=0.2)
    theirs.save_pretrained(base / "classifier")
    ours = videomae.VideoMAEForVideoClassification.from_pretrained(base / "classifier")
    return ours, theirs


CASES = {
    "plain": {},
    "weighted": {"kind": WeightedTrainer},
    "smoothed": {"settings": {"label_smoothing_factor": 0.1}},
    "accumulated": {"settings": {"gradient_accumulation_steps": 2}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_task_guides_flow_gives_the_losses_of_transformers(case, base, tmp_path):
    ours, theirs = load_both(base)
    runs = []
    for name, model in (("ours", ours), ("theirs", theirs)):
        done = trainer(model, tmp_path / name, **copy.deepcopy(CASES[case]))
        done.train()
        runs.append(done)
    assert len(logged(runs[0])) == 10
    np.testing.assert_allclose(logged(runs[0]), logged(runs[1]), atol=1e-5)
    np.testing.assert_allclose(logged(runs[0], "eval_loss"), logged(runs[1], "eval_loss"), atol=1e-5)
    assert logged(runs[0], "eval_accuracy") == logged(runs[1], "eval_accuracy")


def test_what_trainer_saves_reloads_here_and_goes_on_to_transformers(base, tmp_path):
    model, _ = load_both(base)
    done = trainer(model, tmp_path / "run")
    done.train()
    done.save_model(tmp_path / "saved")
    expected = model.eval()(**inputs("classifier")).logits.detach()
    back = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved", config=model.config)
    torch.testing.assert_close(back(**inputs("classifier")).logits.detach(), expected)
    model.config.save_pretrained(tmp_path / "run")
    for step in ("checkpoint-5", "checkpoint-10"):
        stored = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path / "run" / step)
        assert stored.config.id2label == LABELS["id2label"]
    best = done.state.best_model_checkpoint
    best = videomae.VideoMAEForVideoClassification.from_pretrained(best)
    torch.testing.assert_close(best(**inputs("classifier")).logits.detach(), expected)
    back.save_pretrained(tmp_path / "hf")
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path / "hf")
    torch.testing.assert_close(theirs(**inputs("classifier")).logits.detach(), expected, atol=1e-5, rtol=1e-5)


KEYWORDS = {
    "removed columns": {"remove_unused_columns": True},
    "bf16": {"bf16": True, "bf16_full_eval": True},
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
    "reentrant": {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "by epoch": {"eval_strategy": "epoch", "save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1},
    "best": {"save_strategy": "best", "save_total_limit": 1},
    "nothing saved": {"save_strategy": "no", "load_best_model_at_end": False},
}


@pytest.mark.parametrize("case", KEYWORDS)
def test_trainers_settings_give_the_losses_of_transformers(case, base, tmp_path):
    class Named(Clips):
        def __getitem__(self, index):
            return super().__getitem__(index) | ({"path": f"{index}.mp4"} if case == "removed columns" else {})

    losses = []
    for name, model in zip(("ours", "theirs"), load_both(base), strict=True):
        done = trainer(model, tmp_path / name, settings=KEYWORDS[case], train_dataset=Named(), eval_dataset=Named(6))
        done.train()
        losses.append(logged(done) + logged(done, "eval_loss"))
    np.testing.assert_allclose(losses[0], losses[1], atol=0.02 if case == "bf16" else 1e-5)


def test_trainer_predicts_with_and_without_labels(base, tmp_path):
    ours, theirs = (trainer(model, tmp_path) for model in load_both(base))
    found, expected = ours.predict(Clips(6)), theirs.predict(Clips(6))
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-5)
    assert found.metrics["test_accuracy"] == expected.metrics["test_accuracy"]
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=1e-5)
    ours.compute_metrics = None
    unlabelled = [{"pixel_values": clip["pixel_values"]} for clip in Clips(6)]
    np.testing.assert_allclose(ours.predict(unlabelled).predictions, expected.predictions, atol=1e-5)


def test_trainer_uploads_its_checkpoints(base, tmp_path, monkeypatch):
    uploaded, hub = [], MagicMock()
    hub.create_repo.return_value.repo_id = "me/model"
    hub.upload_folder.side_effect = lambda folder_path, **options: uploaded.append(os.listdir(folder_path)) or hub
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: hub)
    model, _ = load_both(base)
    done = trainer(model, tmp_path / "run", settings={"push_to_hub": True, "hub_model_id": "me/model", "max_steps": 5})
    model.config.save_pretrained(tmp_path / "run")
    done.train()
    done.push_to_hub(blocking=True)
    assert {"config.json", "model.safetensors"} <= set(uploaded[-1])
    loaded = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(loaded(**inputs("")).logits, model.eval()(**inputs("")).logits)


def test_trainer_resumes_from_its_checkpoint(base, tmp_path):
    model, _ = load_both(base)
    whole = trainer(copy.deepcopy(model), tmp_path / "run")
    whole.train()
    resumed = trainer(model, tmp_path / "run")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    np.testing.assert_allclose(logged(resumed), logged(whole), atol=1e-6)


def test_trainer_trains_a_model_of_peft(base, tmp_path):
    model, _ = load_both(base)
    settings = peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["classifier"])
    adapted = peft.get_peft_model(model, settings)
    done = trainer(adapted, tmp_path, settings={"label_names": ["labels"]})
    done.train()
    assert len(logged(done)) == 10
    assert logged(done)[-1] != logged(done)[0]
    saved = next(tmp_path.glob("checkpoint-*"))
    assert (saved / "adapter_model.safetensors").exists()
    fresh, _ = load_both(base)
    assert peft.PeftModel.from_pretrained(fresh, saved)(**inputs("classifier")).logits.isfinite().all()


def test_pretraining_under_trainer_is_evaluated_and_agrees(base, tmp_path):
    seen = []

    def measure(predicted):
        seen.append([np.asarray(part).shape for part in (predicted.predictions, predicted.label_ids)])
        return {"spread": float(predicted.predictions.std())}

    runs = []
    for package in (videomae, transformers):
        model = package.VideoMAEForPreTraining.from_pretrained(base)
        settings = {"label_names": ["bool_masked_pos"], "metric_for_best_model": "loss"}
        parts = {"train_dataset": Clips(pretraining=True), "eval_dataset": Clips(6, pretraining=True)}
        done = trainer(model, tmp_path / package.__name__, settings=settings, compute_metrics=measure, **parts)
        done.train()
        runs.append(done)
    assert seen[0] == [(6, 5, 384), (6, 8)]
    for key in ("loss", "eval_loss", "eval_spread"):
        np.testing.assert_allclose(logged(runs[0], key), logged(runs[1], key), atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_outputs_are_what_libraries_rebuild(name):
    """A dict by type, made anew from a mapping (accelerate), from pairs (DataParallel) and empty (FSDP)."""
    outputs = make(name)(**inputs(name), output_hidden_states=True)
    assert isinstance(outputs, dict)
    assert outputs.get("attentions") is None
    assert outputs.attentions is None
    first = next(iter(outputs))
    assert outputs[0] is outputs[first] is getattr(outputs, first)
    converted = accelerate.utils.convert_outputs_to_fp32(
        lambda: accelerate.utils.recursively_apply(torch.Tensor.bfloat16, outputs)
    )()
    for rebuilt in (
        converted,
        type(outputs)((key, outputs[key]) for key in outputs),
        copy.deepcopy(type(outputs)({key: value for key, value in outputs.items() if key == first})),
        torch.utils._pytree.tree_map(lambda tensor: tensor, outputs),
        dataclasses.replace(outputs),
        outputs.__class__(**outputs),
        _apply_to_tensors(lambda tensor: tensor, outputs),  # FSDP's
    ):
        assert type(rebuilt) is type(outputs)
        assert getattr(rebuilt, first).dtype == torch.float32
        torch.testing.assert_close(rebuilt[first], outputs[first], atol=0.05, rtol=0.05)
    assert converted.hidden_states[0].dtype == torch.float32
    assert outputs[:2] == outputs.to_tuple()[:2]
    for rebuilt in (pickle.loads(pickle.dumps(outputs)), copy.deepcopy(outputs), copy.copy(outputs)):
        assert type(rebuilt) is type(outputs)
        assert repr(rebuilt) == repr(outputs)
        assert repr(outputs).startswith(f"{type(outputs).__name__}({first}=tensor(")
    gathered = accelerate.Accelerator(cpu=True).gather_for_metrics(outputs)
    assert type(gathered) is type(outputs)
    assert isinstance(outputs, transformers.utils.ModelOutput)
    theirs = getattr(transformers.modeling_outputs, type(outputs).__name__, transformers.utils.ModelOutput)
    assert isinstance(outputs, theirs)


def test_outputs_do_without_transformers():
    """A process in which it is not loaded reads what one with it has written, and does not load it."""
    outputs = videomae.models.outputs.ImageClassifierOutput(logits=torch.ones(1, 2))
    program = (
        "import pickle, sys; outputs = pickle.load(sys.stdin.buffer); "
        "print(type(outputs).__name__, outputs.__class__ is type(outputs), 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(outputs), capture_output=True, check=True, env=os.environ
    )
    assert done.stdout.decode().split() == ["ImageClassifierOutput", "True", "False"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [str(write_video(folder / f"{seed}.mp4", moving_square(30, 32, 48, seed=seed))) for seed in (0, 1, 2)]


def close(answers, expected):
    """Tell whether a pipeline's answers are the same: lists of lists of labels with their scores."""
    rows = [(row["label"], pytest.approx(row["score"], abs=1e-5)) for video in expected for row in video]
    return [(row["label"], row["score"]) for video in answers for row in video] == rows


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"batch_size": 2}, {"function_to_apply": "sigmoid"}])
def test_a_pipeline_of_transformers_classifies_files(options, clips, tmp_path):
    model = make("VideoMAEForVideoClassification", output_hidden_states=True)
    processor = videomae.VideoMAEImageProcessor(size=16, crop_size=16)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    theirs = transformers.pipeline(
        "video-classification",
        model=transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path),
        image_processor=transformers.VideoMAEImageProcessor.from_pretrained(tmp_path),
    )
    ours = transformers.pipeline("video-classification", model=model, image_processor=processor)
    assert close(ours(clips, **options), theirs(clips, **options))
    assert close([ours(clips[0], top_k=1)], [theirs(clips[0], top_k=1)])
    ours.save_pretrained(tmp_path / "saved")
    again = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again(**inputs("")).logits, model(**inputs("")).logits)


def test_a_pipeline_of_transformers_takes_the_video_processor(clips):
    model = make("VideoMAEForVideoClassification")
    processor = videomae.VideoMAEVideoProcessor(size=16, crop_size=16)
    pipeline = transformers.pipeline("video-classification", model=model, video_processor=processor)
    pixels = processor(clips, num_frames=4, return_tensors="pt").pixel_values
    expected = model(pixels).logits.softmax(-1).max(-1)
    for video, score, label in zip(pipeline(clips), expected.values, expected.indices, strict=True):
        assert video[0] == {"label": model.config.id2label[int(label)], "score": pytest.approx(float(score), abs=1e-5)}


@pytest.mark.parametrize("name", CLASSES)
def test_dataparallel_gathers_outputs(name, monkeypatch):
    """Its gather on two stand-ins, with the copying between devices replaced by a concatenation."""
    from torch.nn.parallel import scatter_gather

    class Stack:
        @staticmethod
        def apply(device, axis, *tensors):
            return torch.cat([tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in tensors])

    monkeypatch.setattr("torch.nn.parallel._functions.Gather", Stack)
    monkeypatch.setattr(scatter_gather, "Gather", Stack, raising=False)
    model = make(name)
    outputs = [model(**inputs(name)), model(**inputs(name))]
    gathered = scatter_gather.gather(outputs, "cpu")
    assert type(gathered) is type(outputs[0])
    for key, value in outputs[0].items():
        assert torch.is_tensor(gathered[key])
        assert len(gathered[key]) == (2 if value.dim() == 0 else 6)
        assert getattr(gathered, key) is gathered[key]


@pytest.mark.parametrize("name", CLASSES)
def test_a_traced_model_gives_the_same_values(name):
    model, arguments = make(name), tuple(inputs(name).values())
    traced = torch.jit.trace(model, arguments, strict=False)
    torch.testing.assert_close(dict(traced(*arguments)), dict(model(*arguments)))


def test_forward_promises_what_it_takes():
    import inspect

    for name in CLASSES:
        kinds = {p.kind for p in inspect.signature(getattr(videomae, name).forward).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
        with pytest.raises(TypeError, match=r"'pixel_value' \(did you mean 'pixel_values'\?\)"):
            make(name)(pixel_value=torch.zeros(1))
    assert videomae.VideoMAEModel.main_input_name == "pixel_values"
    assert not videomae.VideoMAEForVideoClassification.accepts_loss_kwargs


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("target", [".*qkv", ".*fc[12]", r".*patch_embed\.proj", r".*attn\.proj"])
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_learn_and_merge_to_the_same_outputs(name, target, dora):
    model = make(name)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=target, use_dora=dora))
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=0.1)
    outputs = adapted(**inputs(name))
    outputs[0].float().square().sum().backward()
    for key, parameter in adapted.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.any(), key
    with torch.no_grad():
        merged = adapted.eval().merge_and_unload()(**inputs(name))
    for key, value in outputs.items():
        torch.testing.assert_close(merged[key], value.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_adapters_of_all_linear_layers_merge_to_the_same_outputs(name):
    adapted = peft.get_peft_model(make(name), peft.LoraConfig(r=2, target_modules="all-linear"))
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        outputs = adapted(**inputs(name))
        merged = adapted.merge_and_unload()(**inputs(name))
    for key, value in outputs.items():
        torch.testing.assert_close(merged[key], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "targets", [["query", "value"], ["key"], ["query", "value", "fc1"], r".*blocks\.\d+\.attn\.query"]
)
def test_adapters_of_query_and_value_are_refused_with_what_to_adapt_instead(targets):
    """Query, key and value are one matrix here; PEFT shows the module that it cannot adapt."""
    with pytest.raises(ValueError, match=r"it is a part of 'qkv': target that"):
        peft.get_peft_model(make("VideoMAEForVideoClassification"), peft.LoraConfig(r=2, target_modules=targets))


def test_adapters_of_a_sequence_classifier_train():
    """PEFT hands its model a number of arguments of language models, each of them None."""
    settings = peft.LoraConfig(r=2, target_modules=["qkv"], task_type="SEQ_CLS")
    adapted = peft.get_peft_model(make("VideoMAEForVideoClassification"), settings)
    adapted(**inputs(""), labels=torch.tensor([0, 1, 2])).loss.backward()
    trained = [key for key, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert any("classifier" in key for key in trained)
    assert all(adapted.get_parameter(key).grad is not None for key in trained)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("way", ["cpu", "disk", "map"])
@torch.no_grad()
def test_offloaded_models_give_the_same_outputs(name, way, tmp_path):
    model = make(name)
    expected = model(**inputs(name))
    model.save_pretrained(tmp_path / "model")
    if way == "cpu":
        accelerate.cpu_offload(model, "cpu")
    elif way == "disk":
        accelerate.disk_offload(model, str(tmp_path / "disk"), "cpu")
    else:
        places = {child: "disk" if i == 0 else "cpu" for i, (child, _) in enumerate(model.named_children())}
        places |= {key: "cpu" for key, _ in model.named_parameters(recurse=False)}
        model = type(model).from_pretrained(
            tmp_path / "model", device_map=places, offload_folder=tmp_path / "offloaded"
        )
        assert model.hf_device_map == places
    model.save_pretrained(tmp_path / "saved")
    for offloaded in (model, type(model).from_pretrained(tmp_path / "saved")):
        outputs = offloaded(**inputs(name))
        for key, value in expected.items():
            torch.testing.assert_close(outputs[key], value)


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_weights_that_accelerate_loads_into_an_empty_model_give_the_same_outputs(name, tmp_path):
    model = make(name)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with accelerate.init_empty_weights():
        empty = type(model)(model.config)
    loaded = accelerate.load_checkpoint_and_dispatch(empty, str(tmp_path / "pytorch_model.bin"), device_map="auto")
    for key, value in model(**inputs(name)).items():
        torch.testing.assert_close(loaded.eval()(**inputs(name))[key], value)


@pytest.mark.parametrize(
    "options", [{"device_map": {"": "disk"}}, {"device_map": "auto", "max_memory": {"cpu": 20_000}}]
)
@torch.no_grad()
def test_all_of_a_model_may_stay_on_the_disk(options, tmp_path):
    model = make("VideoMAEForPreTraining")
    model.save_pretrained(tmp_path / "model")
    options |= {"offload_folder": tmp_path / "offloaded", "offload_buffers": True}
    loaded = type(model).from_pretrained(tmp_path / "model", **options)
    assert all(parameter.is_meta for parameter in loaded.videomae.parameters())
    arguments = inputs("VideoMAEForPreTraining")
    torch.testing.assert_close(loaded(**arguments).logits, model(**arguments).logits)


@torch.no_grad()
def test_a_configuration_of_transformers_is_taken(tmp_path):
    model = make("VideoMAEForVideoClassification")
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    loaded = videomae.VideoMAEForVideoClassification.from_pretrained(tmp_path, config=config)
    torch.testing.assert_close(loaded(**inputs("")).logits, model(**inputs("")).logits)
    assert videomae.AutoModel.from_config(config).config.grid == model.config.grid
    with pytest.raises(TypeError, match=r"make it one by VideoMAEConfig\.of\(\)"):
        videomae.VideoMAEModel(config)


@torch.no_grad()
def test_device_maps_of_one_place_are_that_place(tmp_path):
    model = make("VideoMAEModel")
    model.save_pretrained(tmp_path)
    expected = model(**inputs("")).last_hidden_state
    for device_map in ("auto", "cpu", torch.device("cpu"), {"": "cpu"}, "sequential"):
        loaded = videomae.VideoMAEModel.from_pretrained(tmp_path, device_map=device_map)
        torch.testing.assert_close(loaded(**inputs("")).last_hidden_state, expected)


@torch.no_grad()
def test_hooks_on_modules_fire():
    model, fired = make("VideoMAEForPreTraining"), []
    for key, module in model.named_modules():
        if key in ("videomae", "videomae.patch_embed.proj", "videomae.blocks.1.attn.qkv", "decoder.blocks.1.attn.qkv"):
            module.register_forward_hook(lambda *_, key=key: fired.append(key))
    model(**inputs("VideoMAEForPreTraining"))
    assert sorted(fired) == [
        "decoder.blocks.1.attn.qkv",
        "videomae",
        "videomae.blocks.1.attn.qkv",
        "videomae.patch_embed.proj",
    ]


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_dynamic_int8_comes_close(name):
    model = make(name)
    expected = model(**inputs(name))
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    outputs = quantised(**inputs(name))
    for key, value in expected.items():
        assert F.cosine_similarity(outputs[key].flatten(), value.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_int8_of_torchao_comes_close(name):
    torchao = pytest.importorskip("torchao.quantization")
    model = make(name)
    expected = model(**inputs(name))
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    outputs = model(**inputs(name))
    for key, value in expected.items():
        assert F.cosine_similarity(outputs[key].flatten(), value.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dynamo", [True, False])
@torch.no_grad()
def test_onnx_gives_the_same_values_for_any_number_of_clips(name, dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, few, many = make(name), inputs(name), inputs(name, batch=5)
    file = str(tmp_path / "model.onnx")
    names = {"input_names": list(few), "output_names": list(model(**few))}
    if dynamo:
        fixed = {"num_masked": int(few["bool_masked_pos"][0].sum())} if len(few) == 2 else {}
        batch = torch.export.Dim("batch", min=1, max=64)
        shapes = {key: {0: batch} for key in few} | dict.fromkeys(fixed)
        torch.onnx.export(model, (), file, kwargs=few | fixed, dynamic_shapes=shapes, dynamo=True, **names)
    elif name == "VideoMAEForPreTraining":  # this exporter makes the number of clips a part of the program
        torch.onnx.export(model, tuple(few.values()), file, dynamo=False, **names)
        many = few
    else:
        axes = {key: {0: "batch"} for key in few}
        torch.onnx.export(model, tuple(few.values()), file, dynamic_axes=axes, dynamo=False, **names)
    found = runtime.InferenceSession(file).run(None, {key: value.numpy() for key, value in many.items()})
    for value, expected in zip(found, model(**many).to_tuple(), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-4)
