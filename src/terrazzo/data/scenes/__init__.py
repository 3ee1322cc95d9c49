"""Street scenes drawn by rule, with exact labels: what `terrazzo demo` learns from."""

from terrazzo.data.scenes.canvas import CLASSES, PALETTE
from terrazzo.data.scenes.scene import IGNORED, draw_scene, write_scenes

__all__ = ["CLASSES", "IGNORED", "PALETTE", "draw_scene", "write_scenes"]
