"""Training beside busy processes: OpenMP's threads that spin while they wait, as is their default, and that sleep.

    python benchmarks/waiting.py [--seconds 5] [--rounds 3]

Each measurement is a process of its own that takes steps of training a nano classifier, with both settings in turn:
alone, and beside one and two processes that compute. Printed are clips a second, and the ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys

STEPS = """
import sys, time, torch
from videomae import VideoMAEConfig, VideoMAEForVideoClassification
config = VideoMAEConfig.preset("nano", image_size=48, patch_size=8, num_frames=16, tubelet_size=4, num_labels=10)
model = VideoMAEForVideoClassification(config).train()
clips, labels = torch.randn(16, 16, 3, 48, 48), torch.arange(16) % 10
def step():
    model(clips, labels=labels).loss.backward()
step()
began, count = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[1]):
    step()
    count += 1
print(16 * count / (time.perf_counter() - began))
"""


def clips_per_second(policy: str, seconds: float) -> float:
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", STEPS, str(seconds)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for busy in (0, 1, 2):
        neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            found = {"active": [], "passive": []}
            for _ in range(arguments.rounds):
                for policy, speeds in found.items():
                    speeds.append(clips_per_second(policy, arguments.seconds))
        finally:
            for neighbour in neighbours:
                neighbour.kill()
        active, passive = (statistics.median(speeds) for speeds in found.values())
        print(f"beside {busy} busy processes: {active:.1f} clips/s spinning, {passive:.1f} sleeping", end=", ")
        print(f"{passive / active:.2f}x")


if __name__ == "__main__":
    main()
