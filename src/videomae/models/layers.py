"""The transformer block of VideoMAE's encoder and decoder.

Shapes: B clips, N tokens, K tokens that are kept, H heads, D width, d = D / H.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from videomae.models.flash import activate_kernel, flash_attention

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


@dataclasses.dataclass
class Trace:
    """What a forward pass shows of its inside; a list that is None stays so.

    Attributes:
        hidden_states: input of the first and output of every block, each (B, N, D).
        attentions: attention weights of every block, each (B, H, N, N).
    """

    hidden_states: list[Tensor] | None = None
    attentions: list[Tensor] | None = None

    def add_hidden_state(self, x: Tensor) -> None:
        """Keep a (B, N, D) tensor if hidden states are wanted."""
        if self.hidden_states is not None:
            self.hidden_states.append(x)

    def outputs(self) -> dict[str, tuple[Tensor, ...] | None]:
        """Return both as the fields of a model's output."""
        return {
            "hidden_states": None if self.hidden_states is None else tuple(self.hidden_states),
            "attentions": None if self.attentions is None else tuple(self.attentions),
        }


NO_TRACE = Trace()


class Blocks(nn.ModuleList):
    """A stack of blocks, run in order; the encoder and the decoder are one each, and so is a slice of one.

    Args:
        blocks: each a ``Block``.
    """

    def __init__(self, blocks: Iterable[nn.Module] = ()) -> None:
        super().__init__(blocks)
        self.gradient_checkpointing = False
        self.checkpoint_every = 1
        self.run_checkpointed: Callable[..., Tensor] = partial(checkpoint, use_reentrant=False)

    @classmethod
    def make(cls, depth: int, *, drop_path: float = 0.0, **block: Any) -> Self:
        """Make new blocks.

        Args:
            depth: number of blocks.
            drop_path: rate of stochastic depth at the last block, rising linearly from 0 at the first.
            block: what every ``Block`` is made with.
        """
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        return cls(Block(drop_path=rate, **block) for rate in rates)

    @property
    def layer(self) -> "Blocks":
        """The blocks, as ``encoder.layer[i]`` of transformers."""
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; ``encoder.layer = encoder.layer[:6]`` leaves out the other blocks, as in transformers."""
        if name == "layer":
            self._modules = nn.ModuleList(value)._modules
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor, *, keep_last: int | None = None, trace: Trace = NO_TRACE) -> Tensor:
        """Run all blocks.

        Args:
            x: (B, N, D) tokens.
            keep_last: if given, the last block computes only this many last tokens (K); the others are still seen.
            trace: receives hidden states and attention weights where it has room for them.

        Returns:
            (B, N, D) tokens, or (B, K, D).
        """
        save_memory = self.gradient_checkpointing and self.training and trace.attentions is None
        for i, block in enumerate(self):
            trace.add_hidden_state(x)
            kept = keep_last if i == len(self) - 1 else None
            recomputed = save_memory and i % self.checkpoint_every == 0
            run = partial(self.run_checkpointed, block) if recomputed else block
            x = run(x, kept, trace.attentions)
        trace.add_hidden_state(x)
        return x


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to what came in."""

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        mlp_width: int,
        activation: str,
        eps: float,
        qv_bias: bool,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        attention: str,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, num_heads, qv_bias=qv_bias, dropout=attention_dropout, implementation=attention)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_width, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, keep_last: int | None = None, attentions: list[Tensor] | None = None) -> Tensor:
        """Map (B, N, D) tokens to (B, N, D), or to the last ``keep_last`` of them."""
        attended = self.attn(self.norm1(x), keep_last, attentions)
        x = (x if keep_last is None else x[:, -keep_last:]) + self.drop_path(self.dropout(attended))
        return x + self.drop_path(self.dropout(self.mlp(self.norm2(x))))


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value are one matrix product, a key has no bias."""

    def __init__(self, width: int, num_heads: int, *, qv_bias: bool, dropout: float, implementation: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.implementation = activate_kernel(implementation)
        self.query, self.key, self.value = (PartOf("qkv") for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qv_bias else None
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, keep_last: int | None = None, attentions: list[Tensor] | None = None) -> Tensor:
        """Let each of the tokens, or of the last ``keep_last``, look at all of them: (B, N, D) to (B, K, D).

        Raises:
            RuntimeError: if flash attention is chosen where PyTorch has no such kernel.
        """
        query, key, value = self.query_key_value(x, keep_last)  # (B, H, K or N, d)
        dropout = self.dropout if self.training else 0.0
        if attentions is not None or self.implementation == "eager":
            scaled = query * query.shape[-1] ** -0.5  # before the product, which may overflow in float16
            weights = (scaled @ key.transpose(-2, -1)).softmax(-1)  # (B, H, K, N)
            if attentions is not None:
                attentions.append(weights)
            attended = F.dropout(weights, dropout) @ value
        elif self.implementation == "sdpa":
            attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        else:
            attended = flash_attention(query, key, value, dropout)
        return self.proj(attended.transpose(1, 2).flatten(2))  # (B, K, D)

    def query_key_value(self, x: Tensor, keep_last: int | None) -> Iterable[Tensor]:
        """Project (B, N, D) to query (B, H, K, d), key (B, H, N, d) and value (B, H, N, d)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)  # (B, N, D) each
        if keep_last is not None:
            query = query[:, -keep_last:]
        if self.q_bias is not None and self.v_bias is not None:
            query, value = query + self.q_bias, value + self.v_bias
        return (p.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for p in (query, key, value))


class PartOf(nn.Module):
    """Stands where transformers has a layer that is a part of another one here, and tells those who would adapt it."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def extra_repr(self) -> str:
        """Show what to adapt instead."""
        return f"it is a part of {self.layer!r}: target that"


class CrossBlock(nn.Module):
    """Pre-norm block whose tokens look at the encoder's, not at each other (CrossMAE, arXiv 2401.14391, section 3).

    What it looks at is a mixture of its own, with learned weights, of what the encoder's blocks made.

    Args:
        width: D of the tokens.
        num_states: S, hidden states of the encoder.
        state_width: their width, E.
        num_heads: attention heads.
        mlp_width: width of the MLP.
        activation: of the MLP.
        eps: of the LayerNorms.
        attention: as ``attn_implementation``; "eager" is "sdpa" here.
    """

    def __init__(
        self,
        *,
        width: int,
        num_states: int,
        state_width: int,
        num_heads: int,
        mlp_width: int,
        activation: str,
        eps: float,
        attention: str,
    ) -> None:
        super().__init__()
        self.mixture = nn.Parameter(torch.zeros(num_states))
        self.state_norm = nn.LayerNorm(state_width, eps=eps)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = CrossAttention(width, state_width, num_heads, implementation=attention)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_width, activation=activation)

    def forward(self, x: Tensor, states: Tensor) -> Tensor:
        """Map (B, K, D) tokens to (B, K, D), looking at hidden states (S, B, N, E)."""
        seen = self.state_norm(torch.tensordot(self.mixture, states, dims=1))  # (B, N, E)
        x = x + self.attn(self.norm1(x), seen)
        return x + self.mlp(self.norm2(x))


class CrossAttention(nn.Module):
    """Multi-head attention of some tokens to others, which may have another width."""

    def __init__(self, width: int, seen_width: int, num_heads: int, *, implementation: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.implementation = activate_kernel(implementation)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(seen_width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Let (B, K, D) tokens look at (B, N, E) others: to (B, K, D)."""
        inputs = (self.q(x), *self.kv(seen).chunk(2, dim=-1))
        query, key, value = (p.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for p in inputs)  # (B, H, K or N, d)
        if self.implementation.startswith("flash"):
            attended = flash_attention(query, key, value, 0.0)
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))  # (B, K, D)


class AttentivePooler(nn.Module):
    """One learned query that looks at all tokens, and an MLP: (B, N, D) to (B, D)."""

    def __init__(self, width: int, num_heads: int, *, mlp_width: int, activation: str, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.zeros(width))
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_width, activation=activation)

    def forward(self, tokens: Tensor) -> Tensor:
        """Make one feature of each clip's tokens."""
        query = self.query.expand(len(tokens), 1, -1)
        inputs = (query, *self.key_value(tokens).chunk(2, dim=-1))
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in inputs)  # (B, H, 1 or N, d)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, H, 1, d)
        pooled = self.query + self.proj(attended.flatten(1))  # (B, D)
        return pooled + self.mlp(self.norm(pooled))


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden: int, *, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a residual branch per clip and scale up the ones that are kept."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero whole clips of (B, N, D) with probability ``rate``."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep) / keep

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate}"
