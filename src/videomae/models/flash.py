"""FlashAttention, by the kernels that PyTorch calls: its own, which is FlashAttention 2, or one that is installed.

Shapes: B clips, N tokens, K tokens that look, H heads, d their width.
"""

import torch
from torch import Tensor
from torch.nn import attention
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# By ``attn_implementation``: PyTorch's name of the kernel, and the package that brings it.
KERNELS = {"flash_attention_3": ("FA3", "flash_attn_interface"), "flash_attention_4": ("FA4", "flash-attn-4")}


def activate_kernel(implementation: str) -> str:
    """Make a kernel the one that PyTorch calls for flash attention in this process, if need be.

    Args:
        implementation: as ``attn_implementation``. "flash_attention_2" is PyTorch's own kernel, whatever is installed;
            "flash_attention_3" (Hopper) and "flash_attention_4" (Blackwell) are those of their packages. The others do
            not choose a kernel.

    Returns:
        The implementation.

    Raises:
        RuntimeError: if this PyTorch cannot call the kernel, or its package is not installed.
    """
    if not implementation.startswith("flash"):
        return implementation
    kernel, package = KERNELS.get(implementation, (None, ""))
    active = getattr(attention, "current_flash_attention_impl", lambda: None)()
    if kernel == active:
        return implementation
    if not hasattr(attention, "activate_flash_attention_impl"):
        raise RuntimeError(
            f"attn_implementation={implementation!r} needs a PyTorch that can call other kernels than its own, and "
            f"{torch.__version__} cannot: install a newer one, or take 'flash_attention_2' or 'sdpa'."
        )
    if kernel is None:
        attention.restore_flash_attention_impl()
        return implementation
    try:
        attention.activate_flash_attention_impl(kernel)
    except (ImportError, RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"attn_implementation={implementation!r} needs the package {package} and a GPU that it is made for "
            f"({error}): install it, or take 'flash_attention_2' or 'sdpa'."
        ) from error
    return implementation


def flash_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attention by the FlashAttention kernel that is active in PyTorch, never by another method.

    Args:
        query: (B, H, K, d), of a dtype the device has a flash kernel for (CUDA: float16, bfloat16).
        key: (B, H, N, d).
        value: (B, H, N, d).
        dropout: of the attention weights; the CPU kernel has none.

    Raises:
        RuntimeError: if PyTorch has no flash kernel for the device, dtype or head width.
    """
    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    except RuntimeError as error:
        if "No available kernel" not in str(error) and "No viable backend" not in str(error):
            raise
        raise RuntimeError(
            f"PyTorch has no FlashAttention kernel for {query.dtype} on {query.device.type} with heads "
            f"{query.shape[-1]} wide and dropout {dropout}: use float16 or bfloat16 on a CUDA device, "
            "or attn_implementation='sdpa'."
        ) from error
