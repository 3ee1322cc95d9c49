"""Arguments of published types that change nothing here: dropped before anything is built, with a note if they would.

Types then need no parameters that they only accept.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from terrazzo.arguments import origin_of
from terrazzo.config.reading.section import Section
from terrazzo.errors import UserError

ANY: Any = object()  # no value of the argument makes a difference
STORAGE: Any = object()  # a storage backend: files are only read from the file system
SECTIONS = ("model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader", "tta_pipeline")

_BOXES = {"clip_object_border": ANY}
_RESAMPLING = {**_BOXES, "backend": ("cv2",)}
_FILES = {"backend_args": STORAGE, "file_client_args": STORAGE}
_LAYER_NORM = {"norm_eval": ANY}  # it has no statistics to keep
_SEGMENTOR: dict[str, Any] = {"train_cfg": (None, {}, {"sampler": None})}
# Type -> argument -> the values that agree with what is done anyway; a warning names any other value
IGNORED: dict[str, dict[str, Any]] = {
    # loading
    **dict.fromkeys(
        ("LoadImageFromFile", "LoadImageFromNDArray", "InferencerLoader", "LoadAnnotations", "LoadDepthAnnotation",
         "LoadBiomedicalImageFromFile", "LoadBiomedicalData"), _FILES),
    "LoadBiomedicalAnnotation": {**_FILES, "to_float32": ANY},
    # geometry and packing
    **dict.fromkeys(("Resize", "RandomResize", "RandomChoiceResize"), _RESAMPLING),
    "CenterCrop": _BOXES,
    "ResizeShortestEdge": {"resize_type": ("Resize",)},
    "Albu": {"keymap": ANY, "additional_targets": (None, {}), "update_pad_shape": ANY, "bgr_to_rgb": (True,)},
    "PackSegInputs": {"meta_keys": ANY},
    "ConcatCDInput": {"input_keys": (["img", "img2"],)},
    # models
    "SegDataPreProcessor": {"non_blocking": ANY, "batch_augments": (None,)},
    **dict.fromkeys(("EncoderDecoder", "MultimodalEncoderDecoder", "DepthEstimator"), _SEGMENTOR),
    **dict.fromkeys(("VisionTransformer", "BEiT", "MAE"), _LAYER_NORM),
    "BiSeNetV1": {"align_corners": (False,)},
    "DPTHead": {"patch_size": ANY},  # the strides determine the resizing layers
    "Mask2FormerHead": {"strides": ANY},
    "MSDeformAttnPixelDecoder": {"strides": ANY},
}  # fmt: skip


def drop_ignored(values: Mapping[str, Any], sections: tuple[str, ...] = SECTIONS) -> Mapping[str, Any]:
    """Return a config without the arguments that change nothing; one warning names those that should have.

    `values` stays as it is. Raises UserError for a storage backend other than the file system.
    """
    notes: list[str] = []
    changed = {key: without_ignored(values[key], notes) for key in sections if values.get(key)}
    if notes:
        warnings.warn(f"these arguments have no effect here: {', '.join(dict.fromkeys(notes))}")
    return {**values, **changed}


def without_ignored(spec: Any, notes: list[str]) -> Any:
    """Return a nested spec without those arguments; what they asked for is added to `notes`."""
    if isinstance(spec, (list, tuple)):
        return type(spec)(without_ignored(item, notes) for item in spec)
    if not isinstance(spec, Mapping):
        return spec
    kind = str(spec.get("type", "")).rpartition(".")[2]
    ignored, kept = IGNORED.get(kind, {}), Section()
    for key, value in spec.items():
        if key not in ignored:
            inner_names = kind == "Albu" and key == "transforms"  # of albumentations, not ours
            kept.put(key, value if inner_names else without_ignored(value, notes), origin_of(spec, key))
        elif ignored[key] is STORAGE:
            check_local(value, f"{kind}.{key}")
        elif ignored[key] is not ANY and (list(value) if isinstance(value, tuple) else value) not in ignored[key]:
            notes.append(f"{kind}.{key}={value!r}")
    return kept


def check_local(value: Any, where: str) -> None:
    """Raise UserError for a storage backend other than the file system, and for what is none."""
    if not isinstance(value or {}, Mapping):
        raise UserError(f"{where} is a mapping such as {{'backend': 'local'}}, not {value!r}")
    backend = (value or {}).get("backend", "local")
    if backend not in ("local", "disk"):
        raise UserError(f"{where} asks for '{backend}', but files are read from the file system: mount or copy them")
