"""A Hugging Face Space, or a page of this computer (`python app.py`): a photo, and its classes over it.

MODEL names the model: a file beside this one, or none for the bundled model of street scenes.
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

import terrazzo as tz
from terrazzo.errors import UserError

segmenter = tz.load(os.environ.get("MODEL"))
segmenter.max_pixels = 40_000_000
COLOURS = {
    name: "#{:02x}{:02x}{:02x}".format(*colour)
    for name, colour in zip(segmenter.classes, segmenter.palette, strict=True)
}


def segment(photo: Image.Image | None, confidence: float) -> tuple[Any, list[list[Any]]]:
    """The photo with the mask of each class in it, for the view, and the share of each, for the table."""
    if photo is None:
        raise gr.Error("Choose a photo first.", print_exception=False)
    try:
        prediction = segmenter(photo)
    except UserError as problem:
        raise gr.Error(str(problem), print_exception=False) from None
    sure = prediction.confidence >= confidence
    masks = [((prediction.labels == index) & sure, name) for index, name in enumerate(segmenter.classes)]
    found = sorted((mask for mask in masks if mask[0].any()), key=lambda mask: -mask[0].sum())
    return (photo, found), [[name, f"{100 * np.mean(mask):.1f}%"] for mask, name in found]


demo = gr.Interface(
    segment,
    [
        gr.Image(type="pil", label="Photo"),
        gr.Slider(0, 1, 0, step=0.05, label="Least confidence of a pixel"),
    ],
    [
        gr.AnnotatedImage(label="Classes", color_map=COLOURS, format="png"),
        gr.Dataframe(headers=["class", "share"], label="Shares"),
    ],
    title="Semantic segmentation with terrazzo",
    description=f"{len(COLOURS)} classes: {', '.join(COLOURS)}",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
