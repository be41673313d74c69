"""What all models share: initial weights, loading and saving, and the small steps around ``forward``."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from videomae.config import VideoMAEConfig, nearest
from videomae.errors import CheckpointError, MismatchError
from videomae.hub import UPLOAD_OPTIONS, split_hub_options
from videomae.models.compatibility import (
    DeviceMap,
    TransformersMethods,
    asks_for_nothing,
    offloaded_weights,
    place_model,
)
from videomae.models.layers import Attention, AttentivePooler, CrossBlock, Trace
from videomae.models.masking import check_mask, count_masked, split_indices
from videomae.models.outputs import ModelOutput
from videomae.models.patches import PositionTable
from videomae.models.weight_files import save_hf, save_v1
from videomae.models.weight_names import Tensors, to_our_names
from videomae.models.weights import Checkpoint, checkpoint_of, count_blocks, open_checkpoint

log = logging.getLogger(__name__)

Output = TypeVar("Output", bound=ModelOutput)

_DECODER = ("decoder.", "encoder_to_decoder.", "mask_token")
_HEAD = ("fc_norm.", "pooler.", "classifier.")

# (task of the checkpoint, of the model): what may be left over, what may start untrained. All else is an error.
_ALLOWED: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("pretraining", "encoder"): (_DECODER, ()),
    ("pretraining", "classification"): ((*_DECODER, "videomae.norm."), _HEAD),
    ("classification", "encoder"): (_HEAD, ()),
    ("encoder", "classification"): (("videomae.norm.",), _HEAD),
}


class PretrainedModel(TransformersMethods):
    """Base of the models.

    Attributes:
        config: sizes and choices.
        task: "encoder", "pretraining" or "classification".
    """

    task: ClassVar[str]
    loading_info: dict[str, Any]

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        if not isinstance(config, VideoMAEConfig):
            raise TypeError(
                f"config must be a VideoMAEConfig of videomae, got {type(config)}: make it one by VideoMAEConfig.of()."
            )
        config.validate()
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *,
        config: VideoMAEConfig | str | Path | None = None,
        state_dict: Tensors | None = None,
        dtype: torch.dtype | str | None = None,
        device: DeviceMap = None,
        device_map: DeviceMap = None,
        max_memory: dict[int | str, int | str] | None = None,
        offload_folder: str | Path | None = None,
        offload_buffers: bool = False,
        use_safetensors: bool | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Self:
        """Load a checkpoint of any family: Hugging Face, VideoMAE v1 and v2, MMAction2, a training run's.

        The weights are memory-mapped and the model is never initialised at random first. Every tensor is accounted
        for: one that is missing, left over or of another shape is an error that names it. The one exception is
        what the task implies: a decoder is dropped, and a classifier is new, when a pre-trained checkpoint is loaded
        for classification (it then pools by mean, whatever the pre-training config says).

        Args:
            pretrained_model_name_or_path: a directory, a weights file, or the id of a model on the Hugging Face Hub;
                None where ``config`` and ``state_dict`` are given.
            config: used instead of the stored or inferred one.
            state_dict: weights, by the names of any family, used instead of the stored ones.
            dtype: of the parameters: a torch dtype or its name, "auto" for the stored one; None is float32.
                ``torch_dtype`` is another name for it.
            device: where to put the model; None is the CPU.
            device_map: likewise, or "auto", "balanced", "sequential" or a dict of modules' places, which accelerate
                carries out ("disk" needs ``offload_folder``).
            max_memory: what accelerate may use of each device.
            offload_folder: for weights that stay on the disk.
            offload_buffers: whether buffers stay there too.
            use_safetensors: True loads safetensors only, False pickles only, None safetensors where there are any.
            ignore_mismatched_sizes: start the classifier untrained where its size differs from the stored one.
            output_loading_info: whether to return, beside the model, which names were missing and left over.
            options: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download`` and
                ``subfolder`` choose what is fetched; ``low_cpu_mem_usage``, ``trust_remote_code``, ``weights_only``
                and options of transformers that are None or False change nothing here; everything else overrides a
                field of the configuration, for example ``num_frames=32``, ``image_size=(256, 320)``,
                ``num_labels=10`` or ``attn_implementation="eager"``. Another ``num_channels`` starts every channel from
                the mean of the trained ones.

        Returns:
            The model, in evaluation mode; with ``output_loading_info`` a pair of it and a dict.

        Raises:
            CheckpointError: if the checkpoint cannot be read.
            MismatchError: if it does not fit; a CheckpointError and a RuntimeError.
            TypeError: for an option that is neither.
        """
        hub_options, overrides = split_hub_options(options)
        overrides = {name: value for name, value in overrides.items() if not asks_for_nothing(name, value)}
        if (older := overrides.pop("torch_dtype", None)) is not None:
            dtype = older
        if isinstance(config, str | Path):
            config = VideoMAEConfig.from_pretrained(config, **hub_options)
        config = None if config is None else VideoMAEConfig.of(config)
        if state_dict is not None:
            if config is None and pretrained_model_name_or_path is not None:
                config = VideoMAEConfig.from_pretrained(pretrained_model_name_or_path, **hub_options)
            checkpoint = checkpoint_of(state_dict, source="the state dict")
        elif pretrained_model_name_or_path is None:
            raise ValueError("without a path or id, from_pretrained() needs config and state_dict.")
        else:
            checkpoint = open_checkpoint(pretrained_model_name_or_path, use_safetensors=use_safetensors, **hub_options)
        model = cls.from_checkpoint(
            checkpoint,
            config=config,
            dtype=dtype,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            **overrides,
        )
        model.config._name_or_path = str(pretrained_model_name_or_path or "")
        place = device if device_map is None else device_map
        if place is not None:
            offload: Any = {"offload_folder": offload_folder, "offload_buffers": offload_buffers}
            place_model(model, place, max_memory=max_memory, **offload)
        return cast(Any, (model, model.loading_info)) if output_loading_info else model

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        config: VideoMAEConfig | None = None,
        dtype: torch.dtype | str | None = None,
        ignore_mismatched_sizes: bool = False,
        **overrides: Any,
    ) -> Self:
        """Make a model of a checkpoint that is open already; arguments and errors as for ``from_pretrained``."""
        if cls.task == "classification" and checkpoint.task != "classification":
            overrides = {"use_mean_pooling": True} | overrides
        if config is None:
            config = checkpoint.resolve_config(task=cls.task, **overrides)
        else:
            config = config.replace(**overrides)
        checkpoint = checkpoint.with_channels(config.num_channels)
        _check_depth(checkpoint, config, cls.task)
        with torch.device("meta"):
            model = cls(config)
        model.fill(checkpoint, dtype=_resolve_dtype(dtype, checkpoint), ignore_mismatched_sizes=ignore_mismatched_sizes)
        return model.eval()

    def fill(self, checkpoint: Checkpoint, *, dtype: torch.dtype, ignore_mismatched_sizes: bool = False) -> None:
        """Give a model that was made on the meta device the weights of a checkpoint.

        Args:
            checkpoint: as ``open_checkpoint`` returns it.
            dtype: of the parameters.
            ignore_mismatched_sizes: as in ``from_pretrained``.

        Raises:
            MismatchError: if a tensor is missing, left over or of another shape.
        """
        expected = self.named_weights()
        found, untrained = match_tensors(checkpoint, expected, self.task, ignore_mismatched_sizes)
        weights = {name: tensor.to(dtype) for name, tensor in found.items()}
        weights |= {name: torch.empty_like(expected[name], dtype=dtype, device="cpu") for name in untrained}
        whole = nn.ModuleDict({"videomae": self}) if self.task == "encoder" else self
        whole.load_state_dict(weights, assign=True)
        for name, module in self.named_modules():
            if isinstance(module, PositionTable):
                module.reset_parameters()
                module.to(dtype)
            elif any(weight.rpartition(".")[0] == name for weight in untrained):
                self._init_weights(module)
        self.loading_info = {
            "missing_keys": {name for name in untrained if name not in checkpoint.tensors},
            "unexpected_keys": set(checkpoint.tensors) - set(expected),
            "mismatched_keys": {
                (name, tuple(checkpoint.tensors[name].shape), tuple(expected[name].shape))
                for name in untrained
                if name in checkpoint.tensors
            },
            "error_msgs": [],
        }
        if untrained:
            log.warning("untrained, to be fine-tuned: %s", ", ".join(untrained))

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Tensors | None = None,
        save_function: Callable[..., Any] = torch.save,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        safe_serialization: bool = True,
        *,
        family: str = "hf",
        **hub_options: Any,
    ) -> None:
        """Write the model.

        Args:
            save_directory: for "hf" a directory, which gets config.json and model.safetensors and loads in
                transformers too; for "v1" a .pth file for the scripts of VideoMAE v1 and v2.
            is_main_process: False writes nothing.
            state_dict: written instead of the model's own weights.
            save_function: takes the tensors and a path, where they are not safetensors.
            push_to_hub: whether to upload the model too, as ``repo_id`` or under the directory's name.
            max_shard_size: bytes of one file, or such as "5GB".
            safe_serialization: False writes pytorch_model.bin.
            family: "hf" or "v1".
            hub_options: ``repo_id`` and the options of ``push_to_hub``.

        Raises:
            TypeError: for an option that is neither.
            ValueError: for another family, or "v1" of a bare encoder, which v1 has no file for.
        """
        for name, value in hub_options.items():
            if name not in UPLOAD_OPTIONS and not asks_for_nothing(name, value):
                raise TypeError(f"save_pretrained() has no argument {name!r}{nearest(name, UPLOAD_OPTIONS)}.")
        if not is_main_process:
            return
        self.config.validate()
        weights = self.named_weights() if state_dict is None else to_our_names(state_dict, source="the state dict")[1]
        if any(tensor.is_meta for tensor in weights.values()):
            weights = to_our_names(offloaded_weights(self), source="the offloaded model")[1]
        if family == "hf":
            content = self.config.to_dict()
            content.pop("torch_dtype", None)  # the older name of dtype
            content |= {"architectures": [type(self).__name__], "dtype": str(self.dtype).removeprefix("torch.")}
            save_hf(
                Path(save_directory),
                weights,
                content,
                max_shard_size=max_shard_size,
                save_function=None if safe_serialization else save_function,
            )
        elif family == "v1" and self.task != "encoder":
            if self.task == "pretraining" and self.config.use_mean_pooling:
                raise ValueError(
                    "v1 needs the encoder's final LayerNorm, which a model with use_mean_pooling=True has not: "
                    "pre-train with use_mean_pooling=False."
                )
            if self.config.attentive_pooling or self.config.decoder_attention != "self":
                raise ValueError("v1 has neither attentive pooling nor a cross decoder: save this model as 'hf'.")
            save_v1(Path(save_directory), weights, task=self.task)
        else:
            raise ValueError(
                f"a model for {self.task!r} is saved as 'hf' or (not a bare encoder) as 'v1', got {family!r}."
            )
        if push_to_hub:
            repo_id = hub_options.pop("repo_id", Path(save_directory).name)
            self.push_to_hub(repo_id, max_shard_size=max_shard_size, **hub_options)

    def named_weights(self) -> Tensors:
        """Return the parameters as they are called in a checkpoint, the encoder's under "videomae."."""
        beginning = "videomae." if self.task == "encoder" else ""
        return {beginning + name: tensor for name, tensor in self.state_dict().items()}

    def reset_parameters(self) -> None:
        """Draw initial weights; on the meta device there is nothing to draw."""
        if self.device.type != "meta":
            self.init_weights()

    def init_weights(self, module: nn.Module | None = None) -> None:
        """Draw the initial weights of the model, or of one of its modules and what is in it."""
        (self if module is None else module).apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw those of a module alone: truncated normal linears, zero biases, PyTorch's own convolution."""
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm | nn.Conv3d | PositionTable):
            module.reset_parameters()
        elif isinstance(module, CrossBlock):
            nn.init.normal_(module.mixture, std=len(module.mixture) ** -0.5)
        elif isinstance(module, AttentivePooler):
            nn.init.trunc_normal_(module.query, std=self.config.initializer_range)
        elif isinstance(module, Attention) and module.q_bias is not None and module.v_bias is not None:
            nn.init.zeros_(module.q_bias)
            nn.init.zeros_(module.v_bias)

    def new_trace(self, output_hidden_states: bool | None, output_attentions: bool | None) -> Trace:
        """Make room for what a forward pass is asked to show; None takes the config's default."""
        hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        return Trace([] if hidden else None, [] if attentions else None)

    def split_mask(
        self, pixel_values: Tensor, mask: Tensor, num_masked: int | None, name: str = "bool_masked_pos"
    ) -> tuple[Tensor, Tensor]:
        """Check a mask and return its False and its True positions, (B, N - M) and (B, M).

        A given ``num_masked`` is compared with masks on the CPU. Elsewhere, and in a compiled or exported program, it
        is believed: counting would wait for the device, or depend on the data.
        """
        check_mask(mask, batch_size=pixel_values.shape[0], num_tubelets=self.config.num_tubelets, name=name)
        static = torch.compiler.is_exporting() or mask.device.type == "meta"
        if num_masked is None and static:
            raise ValueError(f"the number of masked tubelets of {name} must be given where it cannot be counted.")
        if num_masked is None or (mask.device.type == "cpu" and not torch.compiler.is_compiling() and not static):
            found = count_masked(mask, name=name)
            if num_masked not in (None, found):
                raise ValueError(f"{name} hides {found} tubelets per clip, but num_masked says {num_masked}.")
            num_masked = found
        return split_indices(mask, num_masked)

    def finish(self, output: Output, return_dict: bool | None) -> Output | tuple[Any, ...]:
        """Return an output as it is, or as a tuple; None takes the config's default."""
        as_output = self.config.return_dict if return_dict is None else return_dict
        return output if as_output else output.to_tuple()


def match_tensors(
    checkpoint: Checkpoint, expected: Tensors, task: str, ignore_mismatched_sizes: bool
) -> tuple[Tensors, list[str]]:
    """Compare a checkpoint with what a model expects.

    Args:
        checkpoint: the tensors there are.
        expected: the tensors there should be, by our names; only names and shapes are looked at.
        task: of the model.
        ignore_mismatched_sizes: whether a classifier of another size counts as untrained.

    Returns:
        The tensors to load, and the names of those that start untrained.

    Raises:
        MismatchError: if a tensor is missing, left over or of another shape.
    """
    if task == "pretraining" and checkpoint.task != "pretraining":
        raise CheckpointError(
            f"{checkpoint.source} has no decoder, so it cannot be pre-trained further: load it for classification or "
            "as VideoMAEModel."
        )
    found = checkpoint.tensors
    may_drop, may_be_new = _ALLOWED.get((checkpoint.task, task), ((), ()))
    if task == checkpoint.task == "classification":
        may_be_new = tuple(part for part in ("pooler.", "classifier.") if not any(n.startswith(part) for n in found))
    mismatched = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    if ignore_mismatched_sizes:
        may_be_new = (*may_be_new, *(name for name in mismatched if name.startswith("classifier.")))
    untrained = [name for name in expected if name.startswith(may_be_new) and (name not in found or name in mismatched)]
    wrong = [
        *(f"missing {name}" for name in expected if name not in found and name not in untrained),
        *(f"left over {name}" for name in found if name not in expected and not name.startswith(may_drop)),
        *(
            f"{name} is {tuple(found[name].shape)} where the model has {tuple(expected[name].shape)}"
            for name in mismatched
            if name not in untrained
        ),
        *(
            f"{name} is {tensor.dtype}, which is no floating-point number"
            for name, tensor in found.items()
            if name in expected and name not in untrained and not tensor.is_floating_point()
        ),
    ]
    if wrong:
        advice = ""
        sizes_only = all(line.startswith(("classifier.weight is", "classifier.bias is")) for line in wrong)
        if sizes_only and not ignore_mismatched_sizes:
            advice = ". For other classes pass ignore_mismatched_sizes=True: the classifier then starts untrained"
        raise MismatchError(
            f"{checkpoint.source} does not fit the model: {'; '.join(wrong[:8])}"
            + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
            + advice
            + "."
        )
    return {name: found[name] for name in expected if name not in untrained}, untrained


def _check_depth(checkpoint: Checkpoint, config: VideoMAEConfig, task: str) -> None:
    """Raise a MismatchError, before any is made, if there are other blocks than the configuration says."""
    depths = {"videomae.blocks.": config.num_hidden_layers}
    if task == "pretraining":
        depths["decoder.blocks."] = config.decoder_num_hidden_layers
    for beginning, number in depths.items():
        found = count_blocks(checkpoint.tensors, beginning)
        if found and found != number:
            raise MismatchError(
                f"{checkpoint.source} does not fit the model: it has {found} blocks {beginning}*, and the "
                f"configuration {number}. Correct config.json, or fetch both again."
            )


def _resolve_dtype(dtype: torch.dtype | str | None, checkpoint: Checkpoint) -> torch.dtype:
    if dtype == "auto":
        return checkpoint.dtype
    resolved: Any = torch.float32 if dtype is None else dtype
    if isinstance(resolved, str):
        resolved = getattr(torch, resolved.removeprefix("torch."), None)
    if not isinstance(resolved, torch.dtype) or not resolved.is_floating_point:
        raise ValueError(f"dtype must be 'auto' or a floating-point torch dtype or its name, got {dtype!r}.")
    return resolved
