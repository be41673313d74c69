# %% [markdown]
# # Look at reconstructions
#
# Pre-training hides most of a clip and learns to reconstruct it. This looks at what the model of `videomae quickstart`
# makes of a clip: not much after half a minute, which the error shows, too.

# %%
import numpy as np
from PIL import Image

from videomae import AutoImageProcessor, VideoMAEForPreTraining, VideoReader, read_manifest, reconstruct, tube_mask

model = VideoMAEForPreTraining.from_pretrained("quickstart/run/pretrain/model").eval()
processor = AutoImageProcessor.from_pretrained("quickstart/run/pretrain/model")
config = model.config
print("tubelets along time, height and width:", config.grid)

# %% [markdown]
# A clip is every `clip_stride`-th frame; its pixels are normalised to (1, T, C, H, W).

# %%
video = read_manifest("quickstart/videos.csv").split("test").samples[0].file
with VideoReader(video) as reader:
    frames = reader.frames_at(np.arange(config.num_frames) * int(config.clip_stride))
pixel_values = processor(list(frames), return_tensors="pt").pixel_values
print(frames.shape, tuple(pixel_values.shape))

# %% [markdown]
# ## More hidden, more error
#
# A model that was trained with `norm_pix_loss` predicts each tubelet up to its brightness and contrast. `predicted`
# gives it those of the visible part, which is all that one may know; `with_statistics` the true ones, as in papers.

# %%
found = {
    ratio: reconstruct(model, pixel_values, tube_mask(config.grid, ratio, batch_size=1)) for ratio in (0.25, 0.5, 0.9)
}
for ratio, reconstruction in found.items():
    print(f"{ratio:.0%} hidden: loss {reconstruction.loss:.3f}, error by slot {reconstruction.error_by_slot.round(3)}")

# %%
rows = [np.concatenate([found[0.5].rows[name][slot] for slot in range(4)], axis=1) for name in found[0.5].rows]
sheet = Image.fromarray(np.concatenate(rows))
sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST)
