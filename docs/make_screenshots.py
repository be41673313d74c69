"""Make the pictures of docs/serving.md: the page of `videomae serve` in Chromium, with models of `videomae quickstart`.

Usage: ``videomae quickstart --out RUN && python docs/make_screenshots.py RUN/run/model RUN/run/pretrain/model``

Needs Playwright and Chromium (``pip install playwright``).
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from videomae.video.encode import VideoWriter
from videomae.video.synthetic import motion_video

IMAGES = Path(__file__).parent / "images"
SHOWN = ("moving_right", "turning_clockwise", "moving_up", "moving_right", "turning_counterclockwise")
SECONDS = 5  # of each motion
PATIENCE = 600_000  # milliseconds


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Serve a model, and yield the address."""
    command = [sys.executable, "-m", "videomae", "serve", str(model), "--name", "motions", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http://\S+", server.stderr.readline())[0]
        finally:
            server.kill()


def visit(browser: Browser, address: str, video: Path, *, dark: bool, size: tuple[int, int]) -> Page:
    """Open the page, and give it a video."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.set_input_files("#file", str(video))
    return page


def keep(page: Page, name: str, *, full: bool = True) -> None:
    """Write a picture of the page."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, full_page=full)
    picture = Image.open(path).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def main(classifier: Path, pretrained: Path) -> None:
    """Write docs/images/page*.png."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        rng = np.random.default_rng(3)
        video = Path(folder) / "motions.mp4"
        parts = [motion_video(motion, rng=rng, num_frames=16 * SECONDS, size=256) for motion in SHOWN]
        with VideoWriter(video, size=(256, 256), fps=16, crf=42) as writer:  # without noise pictures are small
            for frame in np.concatenate(parts):
                writer.write(frame)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving(classifier) as address:
            page = browser.new_page(viewport={"width": 1100, "height": 620})
            page.goto(address)
            page.locator("#about span").first.wait_for()
            keep(page, "page_start")
            for dark, size, name in ((False, (1100, 800), "page"), (True, (390, 800), "page_dark")):
                page = visit(browser, address, video, dark=dark, size=size)
                page.locator("#events button").nth(1).wait_for(timeout=PATIENCE)
                page.evaluate(f"document.getElementById('player').currentTime = {1.5 * SECONDS}")
                page.locator("#now", has_text="0:07").wait_for()
                page.locator("#explain").click()
                page.locator("#overlay").wait_for(state="visible")
                page.mouse.move(0, 0)
                page.evaluate("document.activeElement.blur()")
                keep(page, name)
        with serving(pretrained) as address:
            page = visit(browser, address, video, dark=True, size=(1100, 700))
            page.locator("#views canvas").first.wait_for()
            page.locator("#ratio").fill("0.75")
            page.locator("#status", has_text="75").wait_for()
            page.evaluate("document.activeElement.blur()")
            keep(page, "page_reconstruction")
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
