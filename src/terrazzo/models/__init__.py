"""Models: layers, backbones, necks, heads, losses and the segmentors built from them."""

from terrazzo.models.build import build_model

__all__ = ["build_model"]
