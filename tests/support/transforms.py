"""Transforms of every kind, as configs write them."""

from __future__ import annotations

EVERY_KIND = [
    {"type": "Resize", "scale": [64, 48]},
    {"type": "RandomCrop", "crop_size": 32},
    {"type": "RandomFlip", "prob": 1.0},
    {"type": "Pad", "size_divisor": 32},
    {"type": "CenterCrop", "crop_size": 32},
    {"type": "RandomRotate", "prob": 1.0, "degree": 10},
    {"type": "RandomRotFlip", "flip_prob": 1.0},
    {"type": "PhotoMetricDistortion"},
    {"type": "Normalize", "mean": [1, 2, 3], "std": [1, 2, 3]},
    {"type": "AdjustGamma", "gamma": 2.0},
    {"type": "CLAHE"},
    {"type": "Rerange"},
    {"type": "SegRescale", "scale_factor": 0.5},
    {"type": "PackSegInputs"},
    {"type": "RGB2Gray", "out_channels": 1},
    {"type": "GenerateEdge"},
    {
        "type": "RandomCutOut",
        "prob": 1.0,
        "n_holes": [1, 3],
        "cutout_ratio": [[0.2, 0.3], [0.1, 0.1]],
        "seg_fill_in": 255,
    },
    {"type": "RandomErasing", "prob": 1.0, "seg_fill": 255},
    {"type": "RandomApply", "transforms": [{"type": "RandomFlip", "prob": 1.0}], "prob": 0.9},
    {"type": "RandomChoice", "transforms": [{"type": "CLAHE"}, [{"type": "AdjustGamma", "gamma": 3.0}]]},
    {"type": "ResizeToMultiple"},
    {"type": "ResizeShortestEdge", "scale": [64, 80]},
]
