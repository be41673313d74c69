"""One pre-training step, ours against transformers: same weights, clips and masks; time, peak memory and loss.

    python benchmarks/pretrain_step.py [--preset base] [--batch 4] [--rounds 5]
    python benchmarks/pretrain_step.py --decoder cross
    python benchmarks/pretrain_step.py --preset nano --image-size 48 --patch-size 8 --tubelet-size 4 --batch 16

Each implementation lives in a process of its own, so that peak memory is its own; the two take turns, step by step, so
that a slow moment of the machine meets both. ``--decoder dual`` lets ours predict half of the tubelets (VideoMAE V2),
``cross`` a quarter of the hidden ones with mask tokens that look at visible ones only (CrossMAE): another loss, for the
same encoder. Needs transformers (`pip install -e '.[dev]'`).
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

SIZES = ("image_size", "patch_size", "num_frames", "tubelet_size")


DECODERS = ("exact", "dual", "cross")


def work(implementation: str, directory: Path, decoder: str, batch: int, pipe: Connection) -> None:
    """Take one optimiser step for each message, and answer with its seconds, its loss and the peak memory so far."""
    import torch

    import videomae
    from videomae.models.masking import partial_mask, running_cell_mask

    if implementation == "transformers":
        from transformers import VideoMAEForPreTraining
    else:
        from videomae import VideoMAEForPreTraining

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = VideoMAEForPreTraining.from_pretrained(directory).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    config = videomae.VideoMAEConfig.from_pretrained(directory)
    generator = torch.Generator().manual_seed(0)
    while pipe.recv():
        pixel_values = torch.randn(batch, config.num_frames, 3, *config.frame_size, generator=generator)
        mask = videomae.tube_mask(config.grid, 0.9, batch_size=batch, generator=generator)
        chosen = {}
        if implementation == "ours" and decoder == "dual":
            chosen["decoder_masked_pos"] = running_cell_mask(config.grid, batch_size=batch, generator=generator)
        elif implementation == "ours" and decoder == "cross":
            chosen["decoder_masked_pos"] = partial_mask(mask, 0.75, generator=generator)
        start = time.perf_counter()
        loss = model(pixel_values, bool_masked_pos=mask, **chosen).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send((seconds, loss.item(), (peak - before) / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="in place of the preset's")
    parser.add_argument("--decoder", choices=DECODERS, default=DECODERS[0], help="of ours")
    parser.add_argument("--batch", type=int, default=4, help="clips per step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each, after one untimed")
    arguments = parser.parse_args()

    import torch

    from videomae import VideoMAEConfig, VideoMAEForPreTraining

    with tempfile.TemporaryDirectory() as folder:
        sizes = {name: getattr(arguments, name) for name in SIZES if getattr(arguments, name)}
        config = VideoMAEConfig.preset(
            arguments.preset, **sizes, use_mean_pooling=False, layer_norm_eps=1e-12, output_norm_eps=1e-5
        )
        folders = {name: Path(folder) / name for name in ("ours", "transformers")}
        for name, place in folders.items():
            attention = "cross" if (name, arguments.decoder) == ("ours", "cross") else "self"
            torch.manual_seed(0)
            VideoMAEForPreTraining(config.replace(decoder_attention=attention)).save_pretrained(place)
        context = multiprocessing.get_context("spawn")
        pipes = {}
        for name, place in folders.items():
            pipes[name], theirs = context.Pipe()
            given = (name, place, arguments.decoder, arguments.batch, theirs)
            context.Process(target=work, args=given, daemon=True).start()
        steps: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pipes}
        for _ in range(arguments.rounds + 1):
            for name, pipe in pipes.items():
                pipe.send(True)
                steps[name].append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(False)

    print(f"{'':14}{'median s/step':>14}{'peak MiB':>10}   losses")
    for name, taken in steps.items():
        seconds = statistics.median(second for second, _, _ in taken[1:])
        print(f"{name:14}{seconds:14.3f}{taken[-1][2]:10.0f}   {' '.join(f'{loss:.6f}' for _, loss, _ in taken)}")
    paired = [theirs[0] / ours[0] for ours, theirs in zip(steps["ours"], steps["transformers"], strict=True)][1:]
    difference = max(abs(a[1] - b[1]) for a, b in zip(steps["ours"], steps["transformers"], strict=True))
    memory = steps["ours"][-1][2] / steps["transformers"][-1][2]
    print(
        f"speed: {statistics.median(paired):.2f}x (each round: {', '.join(f'{ratio:.2f}' for ratio in paired)}), "
        f"memory: {memory:.2f}x"
        + (f", largest difference of a loss: {difference:.1e}" if arguments.decoder == "exact" else "")
    )


if __name__ == "__main__":
    main()
