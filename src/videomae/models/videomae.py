"""VideoMAE (Tong et al., 2022): the encoder, the masked autoencoder that pre-trains it, and the classifier.

Shapes: B clips, T frames, C channels, H x W pixels; N tubelets, V visible, M masked, K that the decoder predicts;
D width, E the encoder's where it differs, S hidden states, P values per tubelet, L classes. A mask is True where a
tubelet is masked.

The options of ``forward`` are not keyword-only, as elsewhere: torch.onnx's older exporter passes all by position.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from videomae.config import VideoMAEConfig
from videomae.models.layers import AttentivePooler, Blocks, CrossBlock
from videomae.models.losses import classification_loss, pixel_targets, reconstruction_loss
from videomae.models.outputs import BaseModelOutput, ImageClassifierOutput, VideoMAEForPreTrainingOutput
from videomae.models.patches import PatchEmbed, PositionTable
from videomae.models.pretrained import PretrainedModel


class VideoMAEModel(PretrainedModel):
    """The encoder: a vanilla ViT over tubelets.

    Args:
        config: sizes and choices.
    """

    task: ClassVar[str] = "encoder"

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbed(config)
        self.position = PositionTable(config, config.hidden_size)
        self.blocks = encoder_blocks(config)
        self.norm = None if config.use_mean_pooling else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.reset_parameters()

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        num_masked: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Encode clips.

        Args:
            pixel_values: (B, T, C, H, W) normalised float pixels.
            bool_masked_pos: (B, N) bool, True = masked; every clip must hide the same number. None shows all.
            num_masked: M, so that nothing has to be counted: needed by ``torch.export`` and full-graph compilation.
            output_attentions: whether to return attention weights (computed eagerly, whatever the implementation).
            output_hidden_states: whether to return the input of the first and the output of every block.
            return_dict: whether to return a ``BaseModelOutput``; a tuple of its fields otherwise.

        Returns:
            The tokens (B, V, D), after the final LayerNorm where the model has one, and what was asked for.

        Raises:
            ValueError: if the clips or the mask do not fit the model.
            TypeError: for a mask that is not bool, and for unknown arguments.
        """
        trace = self.new_trace(output_hidden_states, output_attentions)
        visible = None
        if bool_masked_pos is not None:
            visible, _ = self.split_mask(pixel_values, bool_masked_pos, num_masked)
        tokens = self.patch_embed(pixel_values, visible) + self.position(visible)  # (B, V, D)
        tokens = self.blocks(tokens, trace=trace)
        tokens = tokens if self.norm is None else self.norm(tokens)
        return self.finish(BaseModelOutput(last_hidden_state=tokens, **trace.outputs()), return_dict)


class VideoMAEForPreTraining(PretrainedModel):
    """The masked autoencoder: the encoder sees what is visible, a light decoder predicts what is hidden.

    Args:
        config: sizes and choices.
    """

    task: ClassVar[str] = "pretraining"

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config)
        self.is_cross = config.decoder_attention == "cross"
        if not self.is_cross:
            self.encoder_to_decoder = nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        self.decoder = CrossDecoder(config) if self.is_cross else Decoder(config)
        self.reset_parameters()

    def _init_weights(self, module: nn.Module) -> None:
        """Draw those of a module alone: xavier-uniform linears and a truncated normal mask token (v1)."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if module is self:
            nn.init.trunc_normal_(self.mask_token, std=self.config.initializer_range)

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor,
        decoder_masked_pos: Tensor | None = None,
        num_masked: int | None = None,
        num_decoder_masked: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_logits: bool = True,
    ) -> VideoMAEForPreTrainingOutput | tuple[Any, ...]:
        """Reconstruct the hidden tubelets of clips and measure the error.

        Args:
            pixel_values: (B, T, C, H, W) pixels, normalised with the config's ``pixel_statistics``.
            bool_masked_pos: (B, N) bool, True = hidden from the encoder; every clip must hide the same number.
            decoder_masked_pos: (B, N) bool, True = the decoder drops it (VideoMAE V2's dual masking). The decoder then
                predicts the K others, and those count that the encoder did not see. None predicts the M hidden ones.
            num_masked: M, so that nothing has to be counted: needed by ``torch.export`` and full-graph compilation.
            num_decoder_masked: N - K, likewise.
            output_attentions: whether to return the encoder's attention weights.
            output_hidden_states: whether to return the encoder's hidden states.
            return_dict: whether to return a ``VideoMAEForPreTrainingOutput``; a tuple of its fields otherwise.
            output_logits: False returns no predictions, (0, M or K, P): a training loop that wants the loss alone need
                not copy them.

        Returns:
            The loss (scalar, float32), the predictions (B, M or K, P), and what was asked for.

        Raises:
            ValueError: if the clips or the masks do not fit the model.
            TypeError: for a mask that is not bool, and for unknown arguments.
        """
        visible, predicted = self.split_mask(pixel_values, bool_masked_pos, num_masked)
        num_masked, loss_mask = predicted.shape[1], None
        if decoder_masked_pos is not None:
            predicted, _ = self.split_mask(pixel_values, decoder_masked_pos, num_decoder_masked, "decoder_masked_pos")
            loss_mask = bool_masked_pos.gather(1, predicted)  # (B, K)
        if not predicted.shape[1]:
            raise ValueError("bool_masked_pos hides nothing: there is nothing to reconstruct.")
        shows_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        shown = {"output_attentions": output_attentions, "output_hidden_states": self.is_cross or shows_states}
        encoded = self.videomae(pixel_values, bool_masked_pos, num_masked=num_masked, **shown, return_dict=True)
        if self.is_cross:
            logits = self.decoder(torch.stack(encoded.hidden_states), self.mask_token, predicted)  # (B, K, P)
        else:
            tokens = self.encoder_to_decoder(encoded.last_hidden_state)  # (B, V, D)
            logits = self.decoder(tokens, self.mask_token, visible, predicted)  # (B, K, P)
        loss = reconstruction_loss(logits, pixel_targets(pixel_values, predicted, self.config), loss_mask)
        logits = logits if output_logits else logits.detach()[:0]
        states = encoded.hidden_states if shows_states else None
        output = VideoMAEForPreTrainingOutput(
            loss=loss, logits=logits, hidden_states=states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)


class Decoder(nn.Module):
    """Predict pixels from encoded visible tubelets and mask tokens in the place of the others."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.position = PositionTable(config, config.decoder_hidden_size)
        self.blocks = decoder_blocks(config)
        self.norm = nn.LayerNorm(config.decoder_hidden_size, eps=config.output_norm_eps)
        self.head = nn.Linear(config.decoder_hidden_size, config.pixels_per_tubelet)

    def forward(self, tokens: Tensor, mask_token: Tensor, visible: Tensor, predicted: Tensor) -> Tensor:
        """Decode.

        Args:
            tokens: (B, V, D) encoded visible tubelets.
            mask_token: (1, 1, D), what stands for a tubelet to predict.
            visible: (B, V) positions of the tokens.
            predicted: (B, K) positions to predict.

        Returns:
            (B, K, P).
        """
        seen, queries = tokens + self.position(visible), mask_token + self.position(predicted)
        decoded = self.blocks(torch.cat([seen, queries], dim=1), keep_last=predicted.shape[1])  # (B, K, D)
        return self.head(self.norm(decoded))


class CrossDecoder(nn.Module):
    """Predict pixels from mask tokens that look at visible tubelets only (CrossMAE, arXiv 2401.14391).

    As they do not look at each other, any part of the hidden tubelets can be predicted alone.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.position = PositionTable(config, config.decoder_hidden_size)
        self.blocks = nn.ModuleList(
            CrossBlock(
                width=config.decoder_hidden_size,
                num_states=config.num_hidden_layers + 1,
                state_width=config.hidden_size,
                num_heads=config.decoder_num_attention_heads,
                mlp_width=config.decoder_intermediate_size,
                activation=config.hidden_act,
                eps=config.layer_norm_eps,
                attention=config.attn_implementation,
            )
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.decoder_hidden_size, eps=config.output_norm_eps)
        self.head = nn.Linear(config.decoder_hidden_size, config.pixels_per_tubelet)

    def forward(self, states: Tensor, mask_token: Tensor, predicted: Tensor) -> Tensor:
        """Decode.

        Args:
            states: (S, B, V, E) hidden states of the encoder: the input of its first and the output of every block.
            mask_token: (1, 1, D), what stands for a tubelet to predict.
            predicted: (B, K) positions to predict.

        Returns:
            (B, K, P).
        """
        queries = mask_token + self.position(predicted)  # (B, K, D)
        for block in self.blocks:
            queries = block(queries, states)
        return self.head(self.norm(queries))


class VideoMAEForVideoClassification(PretrainedModel):
    """The encoder with a linear classifier on the mean of its tokens, or on what a learned query makes of them.

    Args:
        config: sizes and choices; ``num_labels=0`` leaves the classifier out.
    """

    task: ClassVar[str] = "classification"

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.output_norm_eps) if config.use_mean_pooling else None
        self.pooler = attentive_pooler(config) if config.attentive_pooling else None
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.reset_parameters()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classify clips.

        Args:
            pixel_values: (B, T, C, H, W) normalised float pixels.
            labels: what ``classification_loss`` takes: (B,) classes or (B, L) soft targets. None computes no loss.
            output_attentions: whether to return attention weights (computed eagerly, whatever the implementation).
            output_hidden_states: whether to return the input of the first and the output of every block.
            return_dict: whether to return an ``ImageClassifierOutput``; a tuple of its fields otherwise.

        Returns:
            The loss (scalar, float32; only with labels), the logits (B, L), and what was asked for.

        Raises:
            ValueError: if clips or labels do not fit the model.
            TypeError: for unknown arguments.
        """
        shown = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        encoded = self.videomae(pixel_values, **shown, return_dict=True)
        logits = self.classifier(self.head_dropout(self.pool(encoded.last_hidden_state)))
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        output = ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.finish(output, return_dict)

    def pool(self, tokens: Tensor) -> Tensor:
        """Make one feature of a clip's tokens, (B, N, D) to (B, D), in the way that the configuration says."""
        if self.fc_norm is None:
            return tokens[:, 0]
        if self.pooler is None:
            return self.fc_norm(tokens.mean(dim=1))
        return self.pooler(self.fc_norm(tokens))


def encoder_blocks(config: VideoMAEConfig) -> Blocks:
    """Make the encoder's stack of blocks."""
    return Blocks.make(
        config.num_hidden_layers,
        drop_path=config.drop_path,
        width=config.hidden_size,
        num_heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        **_shared_choices(config),
    )


def attentive_pooler(config: VideoMAEConfig) -> AttentivePooler:
    """Make what pools the encoder's tokens."""
    return AttentivePooler(
        config.hidden_size,
        config.num_attention_heads,
        mlp_width=config.intermediate_size,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
    )


def decoder_blocks(config: VideoMAEConfig) -> Blocks:
    """Make the decoder's stack of blocks."""
    return Blocks.make(
        config.decoder_num_hidden_layers,
        width=config.decoder_hidden_size,
        num_heads=config.decoder_num_attention_heads,
        mlp_width=config.decoder_intermediate_size,
        **_shared_choices(config),
    )


def _shared_choices(config: VideoMAEConfig) -> dict[str, Any]:
    return {
        "activation": config.hidden_act,
        "eps": config.layer_norm_eps,
        "qv_bias": config.qv_bias,
        "dropout": config.hidden_dropout_prob,
        "attention_dropout": config.attention_probs_dropout_prob,
        "attention": config.attn_implementation,
    }


MODELS: dict[str, type[PretrainedModel]] = {
    model.task: model for model in (VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification)
}
