# %% [markdown]
# # Fine-tune with transformers' Trainer
#
# Models and processors have the names, arguments and outputs of transformers, so that code for it runs with its import
# line changed: here `Trainer` fine-tunes what `videomae quickstart` has pre-trained. Needs transformers.

# %%
import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from videomae import AutoImageProcessor, VideoMAEForVideoClassification, VideoReader, read_manifest

CHECKPOINT = "quickstart/run/pretrain/model"
manifest = read_manifest("quickstart/videos.csv")
processor = AutoImageProcessor.from_pretrained(CHECKPOINT)
model = VideoMAEForVideoClassification.from_pretrained(
    CHECKPOINT,
    id2label=dict(enumerate(manifest.classes)),
    label2id={name: i for i, name in enumerate(manifest.classes)},
)

# %% [markdown]
# A checkpoint of pre-training averages all tokens here, whatever its configuration says.

# %%


class Clips(torch.utils.data.Dataset):
    """The first clip of each video of a split."""

    def __init__(self, split: str) -> None:
        self.samples = manifest.split(split).samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        sample = self.samples[index]
        with VideoReader(sample.file) as reader:
            frames = reader.frames_at(np.arange(model.config.num_frames) * int(model.config.clip_stride))
        return {"pixel_values": processor(list(frames), return_tensors="pt").pixel_values[0], "labels": sample.label}


def accuracy(predicted):
    """Return the fraction that is right."""
    return {"accuracy": float(np.mean(predicted.predictions.argmax(1) == predicted.label_ids))}


# %%
arguments = TrainingArguments(
    "trainer", max_steps=6, per_device_train_batch_size=8, learning_rate=5e-4, logging_steps=2, report_to="none",
    remove_unused_columns=False, use_cpu=True, disable_tqdm=True, save_strategy="no",
)  # fmt: skip
trainer = Trainer(model, arguments, train_dataset=Clips("train"), eval_dataset=Clips("test"), compute_metrics=accuracy)
trainer.train()
print(trainer.evaluate())

# %% [markdown]
# What is saved loads in transformers, and in every command here.

# %%
model.save_pretrained("trainer/model")
processor.save_pretrained("trainer/model")
