"""What tests of `videomae train` ask of plans, and videos of any number of classes."""

from videomae.video.synthetic import write_motion_videos


def reason(plan, what):
    return next(choice.reason for choice in plan.choices if choice.what == what)


def write_classes(folder, *, classes, per_class):
    names = [f"class_{i}" for i in range(classes)]
    for i, file in enumerate(
        write_motion_videos(folder, per_class=-(-classes * per_class // 6), num_frames=8, size=16)
    ):
        if i < classes * per_class:
            (folder / names[i % classes]).mkdir(exist_ok=True)
            file.rename(folder / names[i % classes] / f"{i}.mp4")
        else:
            file.unlink()
    return folder
