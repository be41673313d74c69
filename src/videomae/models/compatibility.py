"""What transformers, accelerate and PEFT ask of a model by name, beside its forward pass.

Nothing here takes part in a computation: the methods answer questions and set switches.
"""

import inspect
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videomae.config import ATTENTION_IMPLEMENTATIONS, CONFIG_FIELDS, VideoMAEConfig, nearest
from videomae.hub import upload
from videomae.models.flash import activate_kernel
from videomae.models.layers import Attention, Blocks, CrossAttention

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from videomae.models.patches import PatchEmbed

# transformers' names of modules that are called otherwise here.
_OTHER_NAMES = {"embeddings": "patch_embed", "encoder": "blocks", "layernorm": "norm"}

DeviceMap = str | int | torch.device | dict[str, str | int | torch.device] | None


class TransformersMethods(nn.Module):
    """The methods and attributes that models of transformers share, for code that is written for those.

    Attributes:
        main_input_name: the argument of ``forward`` that holds the data.
        base_model_prefix: attribute that holds the encoder.
        accepts_loss_kwargs: False: the loss is a mean, which Trainer divides when it accumulates gradients.
    """

    config: VideoMAEConfig
    config_class: ClassVar[type[VideoMAEConfig]] = VideoMAEConfig
    main_input_name: ClassVar[str] = "pixel_values"
    base_model_prefix: ClassVar[str] = "videomae"
    input_modalities: ClassVar[str] = "video"
    accepts_loss_kwargs: ClassVar[bool] = False
    supports_gradient_checkpointing: ClassVar[bool] = True
    _no_split_modules: ClassVar[list[str]] = ["PatchEmbed", "Block"]
    _supports_sdpa: ClassVar[bool] = True
    _supports_flash_attn: ClassVar[bool] = True
    _tied_weights_keys: ClassVar[None] = None
    _keys_to_ignore_on_save: ClassVar[None] = None
    generation_config: ClassVar[None] = None
    _arguments: ClassVar[tuple[str, ...]] = ()
    _input_grads_hook: "RemovableHandle | None" = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._arguments = tuple(inspect.signature(cls.forward).parameters)[1:]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``forward``; an unknown argument that is not None is refused with the nearest right name.

        ``forward`` itself takes no ``**kwargs``: Trainer would read in its signature that it wants more of them.
        """
        for name in kwargs.keys() - self._arguments:
            if kwargs.pop(name) is not None:
                raise TypeError(f"forward() has no argument {name!r}{nearest(name, self._arguments)}.")
        return super().__call__(*args, **kwargs)

    @classmethod
    def _from_config(cls, config: VideoMAEConfig, **changes: Any) -> Self:
        """Make an untrained model, as ``AutoModel.from_config`` does."""
        dtype = changes.pop("torch_dtype", changes.pop("dtype", None))
        model = cls(VideoMAEConfig.of(config).replace(**changes))
        return model if dtype is None else model.to(dtype)

    def __getattr__(self, name: str) -> Any:
        """Find a module by transformers' name for it too, such as ``encoder.layer[0]`` for ``blocks[0]``."""
        return super().__getattr__(_OTHER_NAMES.get(name, name))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, a module by transformers' name for it too."""
        super().__setattr__(_OTHER_NAMES.get(name, name), value)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.parameters()).dtype

    @property
    def base_model(self) -> nn.Module:
        """The encoder; of an encoder, itself."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def name_or_path(self) -> str:
        """Where the model was loaded from."""
        return self.config.name_or_path

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return any(isinstance(module, Blocks) and module.gradient_checkpointing for module in self.modules())

    @property
    def is_activation_checkpointing(self) -> bool:
        """What ``is_gradient_checkpointing`` says, by its later name."""
        return self.is_gradient_checkpointing

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the parameters, on request without those of the patch embedding or without frozen ones."""
        left_out = {id(p) for p in self.get_input_embeddings().parameters()} if exclude_embeddings else set()
        return sum(
            p.numel() for p in self.parameters() if id(p) not in left_out and (p.requires_grad or not only_trainable)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Count the bytes of the parameters, and of the buffers unless those are left out."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    def get_input_embeddings(self) -> "PatchEmbed":
        """Return the module that makes tokens of pixels."""
        return cast("PatchEmbed", self.base_model.patch_embed)

    def get_output_embeddings(self) -> None:
        """Return None: no layer gives back words."""

    def tie_weights(self) -> None:
        """Do nothing: no two layers share their weights."""

    @classmethod
    def can_generate(cls) -> bool:
        """Return False: this is no language model."""
        return False

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute activations again in the backward pass instead of keeping them: less memory, a third more time.

        Args:
            gradient_checkpointing_kwargs: passed to ``torch.utils.checkpoint.checkpoint``; ``use_reentrant`` is False
                unless given.
            every_n_layers: every how many blocks one is computed again.
            offload: whether what is kept for that waits in the memory of the CPU.
        """
        run: Any = partial(checkpoint, **({"use_reentrant": False} | (gradient_checkpointing_kwargs or {})))
        for module in self.modules():
            if isinstance(module, Blocks):
                module.gradient_checkpointing, module.checkpoint_every = True, every_n_layers
                module.run_checkpointed = partial(_offloaded, run) if offload else run

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Do what ``gradient_checkpointing_enable`` does, by its later name."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def activation_checkpointing_disable(self) -> None:
        """Do what ``gradient_checkpointing_disable`` does, by its later name."""
        self.gradient_checkpointing_disable()

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations for the backward pass."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.gradient_checkpointing = False

    def enable_input_require_grads(self) -> None:
        """Have gradients computed for the tokens, which reentrant checkpointing of a frozen model needs."""

        def require_grad(module: nn.Module, inputs: Any, output: Tensor) -> None:
            output.requires_grad_(True)

        self.disable_input_require_grads()
        self._input_grads_hook = self.get_input_embeddings().register_forward_hook(require_grad)

    def disable_input_require_grads(self) -> None:
        """Undo ``enable_input_require_grads``."""
        if self._input_grads_hook is not None:
            self._input_grads_hook.remove()
            self._input_grads_hook = None

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose how attention is computed.

        Args:
            attn_implementation: as the config's.

        Raises:
            ValueError: for another one.
            RuntimeError: for a flash kernel that is not there; nothing is changed.
        """
        if attn_implementation not in ATTENTION_IMPLEMENTATIONS:
            raise ValueError(
                f"attn_implementation must be one of {', '.join(map(repr, ATTENTION_IMPLEMENTATIONS))}, "
                f"got {attn_implementation!r}."
            )
        activate_kernel(attn_implementation)
        self.config.attn_implementation = attn_implementation
        for module in self.modules():
            if isinstance(module, Attention | CrossAttention):
                module.implementation = attn_implementation

    def push_to_hub(self, repo_id: str, *, max_shard_size: int | str = "50GB", **options: Any) -> str:
        """Upload the model to the Hugging Face Hub.

        Args:
            repo_id: "organisation/name", or a name of one's own; made if needed.
            max_shard_size: bytes of one file, or such as "5GB".
            options: of `videomae.hub.upload`.

        Returns:
            The address of the upload.
        """
        save = partial(self.save_pretrained, max_shard_size=max_shard_size)
        return upload(save, repo_id, **({"commit_message": f"Upload {type(self).__name__}"} | options))


def asks_for_nothing(name: str, value: Any) -> bool:
    """Tell whether an option of transformers is left as it is by its value, and is no field of a configuration."""
    return name not in CONFIG_FIELDS and (value is None or value is False)


def place_model(
    model: TransformersMethods,
    device_map: DeviceMap,
    *,
    max_memory: dict[int | str, int | str] | None = None,
    offload_folder: str | Path | None = None,
    offload_buffers: bool = False,
) -> None:
    """Put a model on a device, or have accelerate share it out among several, the CPU and the disk."""
    shared = isinstance(device_map, dict) or device_map in ("auto", "balanced", "balanced_low_0", "sequential")
    if not shared:
        model.to(device_map)  # type: ignore[arg-type]
        return
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    if isinstance(device_map, str):
        blocks = model._no_split_modules
        if device_map != "sequential":
            low = device_map == "balanced_low_0"
            max_memory = get_balanced_memory(model, max_memory, no_split_module_classes=blocks, low_zero=low)
        device_map = infer_auto_device_map(model, max_memory, no_split_module_classes=blocks)
    if device_map == {"": "disk"}:  # accelerate looks for parts with this name
        parts = (*model.named_children(), *model.named_parameters(recurse=False))
        device_map = dict.fromkeys((name for name, _ in parts), "disk")
    dispatch_model(model, device_map, offload_dir=offload_folder, offload_buffers=offload_buffers)


def offloaded_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a model whose modules get them from accelerate when they are run."""
    weights: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(module)
        weights |= {key: parameter.detach().cpu() for key, parameter in module.named_parameters(name, recurse=False)}
        if hook is not None:
            hook.post_forward(module, None)
    return weights


def _offloaded(run: Any, *args: Any) -> Any:
    with torch.autograd.graph.save_on_cpu(pin_memory=torch.accelerator.is_available()):
        return run(*args)
