"""Encoders of timm and transformers by one word: their sections in a config, maps, mean and std, published weights."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from terrazzo.errors import UserError, nearest
from terrazzo.hub.cache import cached
from terrazzo.system.extras import import_extra

SIDE = 224  # of the image that an encoder is tried on; a multiple of every usual patch and stride
ODD = (250, 238)  # a size that only encoders for images of any size take
LEAST = (1, 2, 4, 7)  # pixels of the coarsest map, one of which an encoder needs at least
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = ((127.5,) * 3, (127.5,) * 3)
HALF_TYPES = ("beit", "vit", "deit", "data2vec-vision", "siglip_vision_model", "mobilenet_v2")  # trained on -1 to 1
BACKBONES = ("swin", "swinv2", "hiera", "focalnet")  # whose hidden states are not the maps of their stages
ALIASES = {"dinov3": "dinov3_vit", "segformer": "segformer", "mit": "segformer", "siglip": "siglip_vision_model"}

SMALL, BASE, LARGE = ((width, width // 64, 12 + 12 * (width > 768)) for width in (384, 768, 1024))
PYRAMIDS = {"tiny": [3, 3, 9, 3], "small": [3, 3, 27, 3], "base": [3, 3, 27, 3], "large": [3, 3, 27, 3]}


def vit(size: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    width, heads, layers = size
    return {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers, **more}


def mlp(size: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    return vit(size, intermediate_size=4 * size[0], **more)


# repositories of Hugging Face -> type, and what differs from the type's defaults: facts from their config.json
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"facebook/dinov2-{name}": ("dinov2", vit(size, image_size=518))
       for name, size in (("small", SMALL), ("base", BASE), ("large", LARGE))},
    "facebook/dinov2-giant": ("dinov2", vit((1536, 24, 40), image_size=518, use_swiglu_ffn=True)),
    **{f"facebook/dinov2-with-registers-{name}": (
        "dinov2_with_registers", vit(size, image_size=518, patch_size=14, num_register_tokens=4))
       for name, size in (("small", SMALL), ("base", BASE), ("large", LARGE))},
    **{f"facebook/dinov3-vit{name}16-pretrain-lvd1689m": ("dinov3_vit", mlp(size, num_register_tokens=4))
       for name, size in (("s", SMALL), ("b", BASE), ("l", LARGE))},
    "nvidia/mit-b0": ("segformer", {}),
    **{f"nvidia/mit-b{name}": ("segformer", {
        "hidden_sizes": [64, 128, 320, 512], "depths": depths, "decoder_hidden_size": 256 if name == 1 else 768})
       for name, depths in enumerate(
           ([2, 2, 2, 2], [3, 4, 6, 3], [3, 4, 18, 3], [3, 8, 27, 3], [3, 6, 40, 3]), start=1)},
    **{f"microsoft/swin-{name}-patch4-window7-224": (
        "swin", {"embed_dim": width, "depths": [2, 2, middle, 2], "num_heads": [width // 32 * 2**i for i in range(4)]})
       for name, width, middle in (("tiny", 96, 6), ("small", 96, 18), ("base", 128, 18))},
    **{f"facebook/convnext-{name}-224": (
        "convnext", {"hidden_sizes": [width * 2**i for i in range(4)], "depths": PYRAMIDS[name]})
       for name, width in (("tiny", 96), ("small", 96), ("base", 128), ("large", 192))},
    **{f"microsoft/beit-{name}-patch16-224": ("beit", mlp(size, use_relative_position_bias=True))
       for name, size in (("base", BASE), ("large", LARGE))},
    "google/vit-base-patch16-224": ("vit", {}),
}  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """An encoder: its section in a config, the strides of its maps, mean and std of its images from 0 to 255.

    `weights` is the name of its published weights, empty without any; `size` the only height and width that it takes.
    """

    name: str
    backbone: dict[str, Any]
    strides: tuple[int, ...]
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    weights: str = ""
    size: tuple[int, int] | None = None
    sizes: dict[str, Any] | None = None  # of a vision transformer as DINOv2's, in the words of EoMT's arguments

    @property
    def is_plain(self) -> bool:
        """True for one resolution only, as of a plain vision transformer."""
        return len(set(self.strides)) == 1


def find_encoder(name: str) -> Encoder:
    """The encoder `timm/MODEL`, or `transformers/` and a type or repository. It is built without any memory.

    Raises UserError where the library is not installed or does not have it.
    """
    library, _, rest = name.partition("/")
    return LIBRARIES[library](rest)


def is_foreign(name: Any) -> bool:
    """Report whether a word names an encoder of a library."""
    return isinstance(name, str) and name.partition("/")[0] in LIBRARIES


def find_timm(name: str) -> Encoder:
    """A model of timm."""
    timm = import_extra("timm", "timm", f"encoders such as timm/{name}")
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise UserError(f"timm has no model '{name}'{near}; `terrazzo model list` lists terrazzo's own backbones")
    facts = timm.get_pretrained_cfg(name)
    try:
        maps = without_values(lambda: timm.create_model(name, features_only=True))
    except RuntimeError as problem:
        raise UserError(f"timm/{name} gives no maps of its stages, which a decode head needs ({problem})") from None
    strides = tuple(maps.feature_info.reduction())
    is_plain = len(set(strides)) == 1
    usual = {"num_classes": 0, "global_pool": ""} if is_plain else {"features_only": True}
    strides = strides[-1:] if is_plain else strides

    def build(**options: Any) -> Any:
        return timm.create_model(name, **usual, **options)

    for options in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        with suppress(TypeError):  # the model has no such option
            model = without_values(partial(build, **options))
            break
    trial = Trial(partial(build, **options), model)
    sizes, fixed = trial.sizes(max(strides), tuple(facts.input_size[1:]))
    if is_plain and fixed is None:
        sizes.setdefault("size_divisor", max(strides))
    mean, std = (tuple(255 * value for value in values) for values in (facts.mean, facts.std))
    weights = f"timm://{facts.hf_hub_id.removeprefix('timm/')}" if facts.hf_hub_id else ""
    spec = {"type": "TIMMBackbone", "model_name": name, "features_only": not is_plain, **options, **sizes}
    return Encoder(f"timm/{name}", spec, strides, mean, std, weights, fixed, timm_sizes(model))


def timm_sizes(model: Any) -> dict[str, Any] | None:
    """The sizes of a model of timm that is a vision transformer with a class token and learned positions."""
    parts = [getattr(model, name, None) for name in ("cls_token", "pos_embed", "blocks")]
    if (
        type(model).__name__ != "VisionTransformer"
        or any(part is None for part in parts)
        or "norm_pre.weight" in (names := model.state_dict())
    ):
        return None
    block, registers = model.blocks[0], model.num_prefix_tokens - 1
    if (
        "blocks.0.attn.qkv.weight" not in names
        or "blocks.0.attn.q_norm.weight" in names
        or not hasattr(model.norm, "weight")
    ):
        return None
    return {
        "embed_dims": model.embed_dim,
        "num_layers": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "patch_size": model.patch_embed.patch_size[0],
        "img_size": list(model.patch_embed.img_size),
        "num_registers": registers,
        "layer_scale": "blocks.0.ls1.gamma" in names,
        "gated": "blocks.0.mlp.fc1.weight" in names
        and names["blocks.0.mlp.fc1.weight"].shape[0] != names["blocks.0.mlp.fc2.weight"].shape[1],
    }


def find_transformers(name: str) -> Encoder:
    """A model of transformers: the type with its usual sizes, or that of a repository's config.json."""
    library = import_extra("transformers", "transformers", f"encoders such as transformers/{name}")
    kind, changes, repository = described(name, library)
    build = partial(transformers_model, kind, changes)
    model = without_values(build)
    config = model.config
    maps = maps_of(model)
    indices = sorted({stride: index for index, (stride, _) in enumerate(maps)}.values())
    strides = tuple(maps[index][0] for index in indices)
    spec: dict[str, Any] = {
        "type": "TransformersBackbone",
        "model_type": kind,
        "options": changes,
        "out_indices": indices,
        "strides": list(strides),
    }
    side = getattr(config, "image_size", None) or SIDE
    trial = Trial(build, model)
    sizes, fixed = trial.sizes(max(strides), (side, side) if isinstance(side, int) else tuple(side))
    spec |= {"least_size": sizes["least_size"]} if "least_size" in sizes else {}
    mean, std = HALF if kind in HALF_TYPES else IMAGENET
    if repository and (found := cached(f"hf://{repository}/preprocessor_config.json")):
        facts = json.loads(found.read_text(encoding="utf-8"))
        given = (facts.get(key) or () for key in ("image_mean", "image_std"))
        mean, std = (
            tuple(255 * one for one in own) if len(own) == 3 else usual
            for own, usual in zip(given, (mean, std), strict=True)
        )
    weights = f"hf://{repository}" if repository else ""
    return Encoder(f"transformers/{name}", spec, strides, mean, std, weights, fixed, transformers_sizes(kind, config))


def transformers_sizes(kind: str, config: Any) -> dict[str, Any] | None:
    """The sizes of a model of transformers that is a vision transformer with a class token and learned positions."""
    if kind not in ("dinov2", "dinov2_with_registers", "vit"):
        return None
    return {
        "embed_dims": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "patch_size": config.patch_size,
        "img_size": config.image_size,
        "num_registers": getattr(config, "num_register_tokens", 0),
        "layer_scale": kind != "vit",
        "gated": bool(getattr(config, "use_swiglu_ffn", False)),
    }


def transformers_model(kind: str, options: Mapping[str, Any], **more: Any) -> Any:
    """A model of transformers with random weights. Raises UserError for an unknown type or option."""
    library = import_extra("transformers", "transformers", "encoders of transformers")
    try:
        config = library.AutoConfig.for_model(kind, **options, **more)
        if kind not in BACKBONES:
            return library.AutoModel.from_config(config)
        config.out_features = config.stage_names[1:]  # without the stem
        return library.AutoBackbone.from_config(config)
    except ValueError as problem:
        raise UserError(f"transformers cannot build a model of the type '{kind}': {problem}") from None


LIBRARIES: dict[str, Callable[[str], Encoder]] = {"timm": find_timm, "transformers": find_transformers}


def described(name: str, library: Any) -> tuple[str, dict[str, Any], str]:
    """The type of a model of transformers, its options, and its repository. Raises UserError for an unknown one."""
    kinds = library.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    word = name.lower()
    short = {full.partition("/")[2]: full for full in PUBLISHED}
    if (full := short.get(word, word)) in PUBLISHED:
        return *PUBLISHED[full], full
    if (kind := ALIASES.get(word, word)) in kinds:
        return kind, {}, ""
    if "/" not in name:
        known = [*kinds, *short, *ALIASES]
        raise UserError(
            f"transformers has no type '{name}'{nearest(word, known)}; `transformers/ORGANISATION/REPOSITORY` takes any"
        )
    file = f"hf://{name}/config.json"
    found = cached(file)
    if found is None:
        raise UserError(
            f"the sizes of {name} are in its config.json, which is not on this machine: `terrazzo weights get {file}` "
            "fetches it"
        )
    content = json.loads(found.read_text(encoding="utf-8"))
    kind = content.pop("model_type", None)
    if kind not in kinds:
        raise UserError(f"{found} has no `model_type` of transformers {library.__version__}")
    sizes = library.AutoConfig.for_model(kind, **content)
    return kind, {key: value for key, value in sizes.to_diff_dict().items() if key in content}, name


def maps_of(model: Any) -> list[tuple[int, int]]:
    """The stride and the channels of each map of a model of transformers. Raises UserError for one without maps."""
    import torch

    with torch.no_grad():
        try:
            outputs = model.eval()(torch.empty(1, 3, SIDE, SIDE, device="meta"), output_hidden_states=True)
        except (TypeError, ValueError) as problem:
            raise UserError(f"{type(model).__name__} is not an encoder of images ({problem})") from None
    maps = outputs.get("feature_maps") or outputs.get("hidden_states")
    if not maps or not isinstance(maps, Sequence) or not all(one.ndim in (3, 4) for one in maps):
        raise UserError(f"{type(model).__name__} gives no maps of its stages, which a decode head needs")
    found = []
    for one in maps:
        is_map = one.ndim == 4
        side = one.shape[-1] if is_map else math.isqrt(one.shape[1])
        found.append((round(SIDE / side), one.shape[1 if is_map else 2]))
    return found


def without_values(build: Callable[[], Any]) -> Any:
    """A model without memory for its weights."""
    import torch

    with warnings.catch_warnings(), torch.random.fork_rng(devices=()), torch.device("meta"):
        warnings.simplefilter("ignore")
        return build()


@dataclass
class Trial:
    """A model under trial: as one without memory where that runs, else as one with random weights."""

    build: Callable[[], Any]
    model: Any

    def sizes(self, multiple: int, usual: tuple[int, int]) -> tuple[dict[str, int], tuple[int, int] | None]:
        """The sizes that the model's images are padded to, and the only one that it takes where that is `usual`.

        The former is empty for images of any size, else a `size_divisor`, and the `least_size` of a side.
        """
        if self.runs(*ODD) and self.runs(multiple, multiple):
            return {}, None
        if not self.runs(*(math.ceil(side / multiple) * multiple for side in ODD)):
            return {}, usual
        least = next(count * multiple for count in LEAST if self.runs(count * multiple, (count + 1) * multiple))
        return {"size_divisor": multiple} | ({"least_size": least} if least > multiple else {}), None

    def runs(self, height: int, width: int) -> bool:
        """Report whether the model takes images of a size."""
        import torch

        device = next(self.model.parameters()).device
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.model.eval()(torch.zeros(1, 3, height, width, device=device), **options_of(self.model))
        except (RuntimeError, AssertionError, ValueError):
            if device.type != "meta":
                return False
            with torch.random.fork_rng(devices=()):
                self.model = self.build()  # some compute with values of their own
            return self.runs(height, width)
        return True


def options_of(model: Any) -> dict[str, bool]:
    """The options with which a model takes images of any size."""
    return {name: True for name in ("interpolate_pos_encoding",) if name in inspect.signature(model.forward).parameters}


def scale_of(encoder: Encoder) -> Mapping[str, Any]:
    """Mean and std of the preprocessor."""
    return {"mean": list(encoder.mean), "std": list(encoder.std)}
