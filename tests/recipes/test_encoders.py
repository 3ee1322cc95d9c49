"""Any encoder with any head, each by one word."""

from __future__ import annotations

import pytest
import torch

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.hub.encoders import Encoder, find_encoder
from terrazzo.recipes.encoders import HEADS, PYRAMID, compose, encoder_of

CLASSES = ["sky", "road", "car"]
TINY_VIT = {"type": "VisionTransformer", "img_size": 32, "patch_size": 16, "embed_dims": 16, "num_layers": 1}
TINY_VIT |= {"num_heads": 2}


def model_of(backbone, head, **keys):
    """A model of the short form."""
    form = {"model": {"backbone": backbone, "head": head}, "data": {"classes": CLASSES, "root": "."}, "crop": 64}
    return tz.load_config({**form, **keys})["model"]


def check(model):
    """Logits have the image's size, whatever it is, and the losses a gradient."""
    network = tz.build_model(model)
    assert network.eval()(torch.zeros(1, 3, 50, 70)).shape == (1, 3, 50, 70)
    losses = network.train().loss(torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64)))
    sum(value for name, value in losses.items() if "loss" in name).backward()
    return network


@pytest.mark.parametrize("head", HEADS)
def test_every_head_fits_a_pyramid_and_a_plain_transformer(head):
    narrow = {"type": "ResNet", "depth": 18, "base_channels": 4, "stem_channels": 4}
    for backbone in (narrow, TINY_VIT):
        model = model_of(backbone, head)
        model["decode_head"]["channels"] = 8
        if head == "linear":
            del model["decode_head"]["channels"]
        check(model)


@pytest.mark.parametrize(
    ("word", "strides", "kind"),
    [
        ("r18", PYRAMID, "ResNetV1c"),
        ("resnet50-d8", (4, 8, 8, 8), "ResNetV1c"),
        ("mit-b0", PYRAMID, "MixVisionTransformer"),
        ("convnext-tiny", PYRAMID, "mmpretrain.ConvNeXt"),
        ("BEiT", (16,), "BEiT"),
    ],
)
def test_our_backbones_have_words_too(word, strides, kind):
    encoder = encoder_of(word)
    assert (encoder.strides, encoder.backbone["type"]) == (strides, kind)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"backbone": "r18", "head": "fpm"}, "no head is called 'fpm'; did you mean 'fpn'"),
        ({"backbone": "r77", "head": "fpn"}, "there is no backbone 'r77'"),
        ({"backbone": "r18", "head": "eomt"}, "head eomt puts queries into a vision transformer .* which r18 is not"),
        ({"head": "fpn"}, "recipe is empty: name a family or a recipe"),
        ({"backbone": "r18", "head": 3}, "`model.head` must be one of fcn, psp"),
        ({"backbone": 18, "head": "fpn"}, "`model.backbone` must be a name such as timm/convnext_tiny, not 18"),
    ],
)
def test_a_wrong_word_is_named(model, message):
    with pytest.raises(UserError, match=message):
        tz.load_config({"model": model, "data": {"classes": CLASSES, "root": "."}})


def test_a_recipe_and_a_head_are_one_network_too_many():
    with pytest.raises(UserError, match="both choose a network"):
        model_of("r18", "fpn", recipe="fastscnn")


def test_a_backbone_alone_gets_a_feature_pyramid():
    config = tz.load_config({"model": {"backbone": "r18"}, "data": {"classes": CLASSES, "root": "."}})
    assert config["model"]["decode_head"]["type"] == "FPNHead"
    assert config.recipe.name == "fpn_r18"


def test_an_encoder_of_one_size_predicts_in_windows():
    encoder = Encoder("fixed", dict(TINY_VIT), (16,), size=(32, 32))
    assert compose("linear", encoder, 3)["test_cfg"] == {"mode": "slide", "crop_size": [32, 32], "stride": [21, 21]}


# Encoders of other libraries, as they are: `pip install timm transformers`, else skipped

TIMM = [
    ("test_convnext", "fpn", (4, 8, 16, 32), {}),
    ("test_resnet", "unet", (2, 4, 8, 16, 32), {}),
    ("test_vit", "fpn", (16,), {"size_divisor": 16}),
    ("swin_tiny_patch4_window7_224", "uper", (4, 8, 16, 32), {"size_divisor": 32}),
    ("hrnet_w18_small", "segformer", (2, 4, 8, 16, 32), {"size_divisor": 32}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "strides", "options"), TIMM, ids=[name for name, *_ in TIMM])
def test_encoders_of_timm(name, head, strides, options):
    pytest.importorskip("timm")
    encoder = find_encoder(f"timm/{name}")
    assert encoder.strides == strides and options.items() <= encoder.backbone.items()
    assert encoder.weights.startswith(f"timm://{name}.")
    check(model_of(f"timm/{name}", head))


TRANSFORMERS = [
    ("facebook/dinov2-small", "fpn", (14,)),
    ("dinov3", "linear", (16,)),
    ("nvidia/mit-b0", "segformer", PYRAMID),
    ("swin-tiny-patch4-window7-224", "uper", PYRAMID),
    ("facebook/convnext-tiny-224", "fpn", PYRAMID),
    ("vit", "linear", (16,)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "strides"), TRANSFORMERS, ids=[name for name, *_ in TRANSFORMERS])
def test_encoders_of_transformers(name, head, strides):
    pytest.importorskip("transformers")
    encoder = find_encoder(f"transformers/{name}")
    assert encoder.strides == strides
    check(model_of(f"transformers/{name}", head))


@pytest.mark.slow
def test_published_weights_give_what_transformers_computes(tmp_path):
    library = pytest.importorskip("transformers")
    original = library.SegformerForImageClassification(library.SegformerConfig()).eval()
    original.save_pretrained(tmp_path)
    network = tz.build_model(model_of("transformers/mit-b0", "segformer")).eval()
    report = network.backbone.start_from(str(tmp_path / "model.safetensors"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = original.segformer(images).last_hidden_state
        assert torch.allclose(network.backbone(images)[-1], expected, atol=1e-5)
    assert "missing" not in report


@pytest.mark.slow
def test_an_encoder_of_one_size_names_the_crop():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="timm/test_maxvit takes images of 160x160 pixels only: crop: 160x160"):
        model_of("timm/test_maxvit", "fpn")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/convnext_atoto", "timm has no model 'convnext_atoto'; did you mean 'convnext_atto'"),
        ("transformers/dinov9", "transformers has no type 'dinov9'; did you mean 'dinov3'"),
        ("transformers/foo/bar", "terrazzo weights get hf://foo/bar/config.json` fetches it"),
        ("transformers/bert", "BertModel is not an encoder of images"),
    ],
)
def test_an_unknown_encoder_of_a_library_is_named(name, message):
    pytest.importorskip(name.partition("/")[0])
    with pytest.raises(UserError, match=message):
        find_encoder(name)
