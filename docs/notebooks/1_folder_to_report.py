# %% [markdown]
# # From a folder to a report
#
# What `videomae train` does, in Python: look at the videos, learn within a budget of time, measure, report. It begins
# with the videos that `videomae quickstart` made.

# %%
from pathlib import Path

from videomae import DataSettings, TrainSettings, VideoClassifier, check, read_manifest, train

manifest = read_manifest("quickstart/videos.csv")
print(len(manifest), "videos of", len(manifest.classes), "classes, in the splits", manifest.splits)

# %% [markdown]
# ## What is wrong with them?
#
# Every video is decoded. A finding has a severity, what it is about, and what to do.

# %%
report = check(manifest, near_duplicates=False)
for finding in report.findings:
    print(finding.severity, finding.title, len(finding.items), "-", finding.advice)
print("sound:", report.is_sound)

# %% [markdown]
# ## Learn, in 20 seconds
#
# Each decision is said with its reason. With so few and short videos a small convolutional network learns them first,
# and a transformer learns from it. Take some minutes for figures that mean something.

# %%
settings = TrainSettings(DataSettings(Path("quickstart/videos.csv")), out=Path("own"), budget="20s", num_workers=0)
result = train(settings, say=print)

# %% [markdown]
# ## How good is it?
#
# The interval says how far the figure may be from that of endless test videos; simple means, without learning from
# motion, stand beside it.

# %%
low, high = result.evaluation.interval
print(f"{result.evaluation.top1:.1%} of {result.evaluation.num_videos} test videos are right ({low:.1%} to {high:.1%})")
print(result.comparison.describe())
print("the report:", result.report)

# %%
classify = VideoClassifier.from_pretrained(result.model)
test = manifest.split("test")
for sample in test.samples[:3]:
    print(
        sample.path, [(prediction.label, round(prediction.score, 3)) for prediction in classify(sample.file, top_k=2)]
    )
