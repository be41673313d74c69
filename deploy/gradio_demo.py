"""A demo with Gradio, for a Space on the Hugging Face Hub: a video in, its timeline and events out.

    pip install videomae gradio
    python deploy/gradio_demo.py [MODEL]

On a Space this is ``app.py``, beside a ``requirements.txt`` with "videomae"; the variable MODEL names the model.
"""

import os
import sys
from typing import Any

import gradio as gr

from videomae import VideoClassifier
from videomae.errors import VideoError
from videomae.inference.loading import DEFAULT_MODEL
from videomae.inference.timeline import read_timeline
from videomae.plots.timeline import draw_timeline


def build(model: str) -> gr.Blocks:
    """Return the demo of a fine-tuned model, by path or id."""
    classifier = VideoClassifier.from_pretrained(model)

    def look(video: str | None, window: float) -> tuple[dict[str, float], Any, list[list[Any]]]:
        """Return the best classes of the whole, a picture of the timeline, and its events."""
        if video is None:
            raise gr.Error("Choose a video first.")
        try:
            timeline = read_timeline(classifier, video, window=window, hop=window / 2)
            best = classifier(video)
        except VideoError as error:
            raise gr.Error(str(error)) from error
        events = [[event.label, round(event.start, 2), round(event.end, 2), event.score] for event in timeline.events]
        return {one.label: one.score for one in best}, draw_timeline(timeline), events

    with gr.Blocks(title="VideoMAE") as demo:
        gr.Markdown(f"# VideoMAE\n{len(classifier.config.id2label)} classes, {model}")
        with gr.Row():
            with gr.Column():
                video = gr.Video(label="a video", sources=["upload", "webcam"])
                window = gr.Slider(0.5, 8, value=2, step=0.5, label="seconds that are looked at together")
                button = gr.Button("What happens when?", variant="primary")
            labels = gr.Label(label="the middle of the video")
        picture = gr.Plot(label="timeline")
        events = gr.Dataframe(headers=["label", "start, s", "end, s", "score"], label="events")
        button.click(look, [video, window], [labels, picture, events], api_name="look")
    return demo


if __name__ == "__main__":
    build(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODEL", DEFAULT_MODEL)).launch()
