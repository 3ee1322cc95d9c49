"""The bundled model: street scenes, for a first look."""

from __future__ import annotations

from pathlib import Path

STREET = Path(__file__).resolve().parents[1] / "weights" / "street.safetensors"
CARD = STREET.with_suffix(".md")
NOTE = f"model: street scenes, the 11 classes of CamVid; for non-commercial use: {CARD}"
