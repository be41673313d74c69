# %% [markdown]
# # Features, search and a probe
#
# Features need no labels to be made. They tell which clips are alike, and how much of the classes a model knows without
# any further training. Needs the extras `features` and `search`.

# %%
from pathlib import Path

from videomae import VideoEmbedder, embed, probe, read_features, read_manifest, search

manifest = read_manifest("quickstart/videos.csv")
unreadable = embed(manifest, "features", "quickstart/run/model", device="cpu")
table = read_features("features")
print(table.schema.names, len(table), "rows;", len(unreadable), "videos could not be read")

# %% [markdown]
# Run again, and what is there stays: a run that was stopped goes on.
#
# ## A probe
#
# Nearest neighbours and logistic regression, trained on the split "train", tested on the split "test".

# %%
result = probe("features", k=3)
for name, score in (("nearest neighbours", result.knn), ("logistic regression", result.linear)):
    print(f"{name}: {score.top1:.1%} ({score.interval[0]:.1%} to {score.interval[1]:.1%})")

# %% [markdown]
# ## What is like this clip?

# %%
query = manifest.split("test").samples[0]
for match in search(query.file, "features", top_k=4):
    print(f"{match.similarity:.3f}  {Path(match.path).name}  {match.start:.1f} s to {match.end:.1f} s")

# %% [markdown]
# ## Finer than a clip
#
# A vector for each time slot of a clip, or for windows that slide over a video; `layer` looks inside the encoder.

# %%
embedder = VideoEmbedder.from_pretrained("quickstart/run/model", device="cpu")
for options in ({"per": "slot"}, {"per": "window", "window": 1.0, "hop": 0.5}, {"per": "token", "layer": 2}):
    features = embedder(query.file, **options)
    print(options, features.vectors.shape, features.starts[:3].round(2))
