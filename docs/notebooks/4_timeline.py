# %% [markdown]
# # The timeline of a long video
#
# Windows slide over a video; their scores become events. Memory does not grow with the length, and a camera is read in
# the same way.

# %%
import numpy as np

from videomae import VideoClassifier, VideoReader, read_manifest, read_timeline
from videomae.inference.timeline import merge_events
from videomae.plots.timeline import draw_timeline, write_overlay, write_timeline
from videomae.video.encode import write_video

classify = VideoClassifier.from_pretrained("quickstart/run/model", device="cpu")
parts, truth = [], []
for sample in read_manifest("quickstart/videos.csv").split("test"):
    with VideoReader(sample.file) as reader:
        parts.append(reader.frames_at(range(reader.num_frames)))
        truth.append((sample.path.split("/")[-2], reader.duration))
write_video("long.mp4", np.concatenate(parts), fps=16)
print(truth)

# %% [markdown]
# A window should last about as long as the clips in training, here one second.

# %%
timeline = read_timeline(classify, "long.mp4", window=1.0, hop=0.5)
for event in timeline.events:
    print(f"{event.start:5.1f} s to {event.end:5.1f} s  {event.label}  {event.score:.2f}")

# %% [markdown]
# ## Other events of the same scores
#
# An event begins at `threshold` and ends below `exit_threshold`. The scores are kept, so that another choice decodes
# nothing anew.

# %%
windows = list(timeline.windows)
stricter = merge_events(windows, timeline.classes, hop=0.5, end=timeline.duration, threshold=0.8, min_length=1.0)
print(len(timeline.events), "events,", len(stricter), "with a threshold of 0.8 and a second at least")

# %% [markdown]
# ## Keep it
#
# A table for programs, a picture, and the video with its events drawn on it.

# %%
write_timeline(timeline, "timeline.json")
write_overlay("long.mp4", timeline, "overlay.mp4")
draw_timeline(timeline, title="long.mp4")
