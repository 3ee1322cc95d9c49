"""Street scenes drawn by rule, with exact labels: the images that `terrazzo demo` learns from."""

from terrazzo.demo.scenes.stage import CLASSES, IGNORED, PALETTE
from terrazzo.demo.scenes.street import draw_scene

__all__ = ["CLASSES", "IGNORED", "PALETTE", "draw_scene"]
