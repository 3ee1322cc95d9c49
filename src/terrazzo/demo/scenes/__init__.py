"""Street scenes drawn by rule, with exact labels: what `terrazzo demo` learns from."""

from terrazzo.demo.scenes.canvas import CLASSES, PALETTE
from terrazzo.demo.scenes.scene import IGNORED, draw_scene, write_scenes

__all__ = ["CLASSES", "IGNORED", "PALETTE", "draw_scene", "write_scenes"]
