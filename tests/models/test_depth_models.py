"""Depth estimation: the segmentor, VPD's head on any four maps, and VPD itself where `diffusers` is installed."""

import importlib.util

import pytest
import torch

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.registry import MODELS

torch.set_num_threads(1)

HEAD = {"type": "VPDDepthHead", "feature_dim": 32, "embed_dim": 16, "num_deconv_filters": (8, 8, 8)}
MODEL = {
    "type": "DepthEstimator",
    "backbone": {"type": "ResNet", "depth": 18, "base_channels": 16, "stem_channels": 16},
    "decode_head": HEAD | {"in_channels": [16, 32, 64, 128], "max_depth": 80.0},
}
LEVELS = {"attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 2, 2]}
UNET = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 2, "num_heads": 8} | LEVELS
ENCODER = {"z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1}
DIFFUSION = {
    "params": {
        "scale_factor": 0.18215,
        "unet_config": {"params": UNET | {"context_dim": 16}},
        "first_stage_config": {"params": {"ddconfig": ENCODER}},
    }
}


def test_depth_lies_between_zero_and_its_maximum_and_is_learned():
    model = tz.build_model(MODEL)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        depth = model.eval()(images)
    assert depth.shape == (2, 1, 64, 96)
    assert depth.min() > 0 and depth.max() < 80
    measured = torch.full((2, 64, 96), 5.0)
    labels = torch.zeros(2, 64, 96, dtype=torch.long)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    errors = []
    for _ in range(8):
        losses = model.loss(images, labels, depth=measured)
        assert set(losses) == {"decode.loss_silog"}
        optimizer.zero_grad()
        losses["decode.loss_silog"].backward()
        optimizer.step()
        errors.append(float(losses["decode.loss_silog"].detach()))
    assert errors[-1] < errors[0] / 2


def test_depth_needs_its_target():
    model = tz.build_model(MODEL)
    with pytest.raises(UserError, match="LoadDepthAnnotation"):
        model.loss(torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.long))


def test_a_border_is_cut_off_the_gathered_map():
    maps = [torch.rand(1, 16, 64, 64), torch.rand(1, 16, 32, 32), torch.rand(1, 16, 16, 16), torch.rand(1, 16, 8, 8)]
    head = MODELS.build(HEAD | {"in_channels": [16] * 4, "fmap_border": (1, 1)}).eval()
    assert head(maps).shape == (1, 1, 480, 480)  # a 480x480 image that was padded to 512x512


def test_vpd_says_what_is_missing(tmp_path):
    spec = {"type": "VPD", "diffusion_cfg": DIFFUSION, "class_embed_path": "https://example.org/embeddings.pth"}
    missing = "terrazzo.diffusion." if importlib.util.find_spec("diffusers") is None else "class_embed_path"
    with pytest.raises(UserError, match=missing):
        MODELS.build(spec)


def test_vpd_gives_four_maps_and_keeps_its_autoencoder_frozen(tmp_path):
    pytest.importorskip("diffusers", reason="VPD's networks come from diffusers")
    torch.save(torch.randn(5, 16), tmp_path / "embeddings.pth")
    backbone = MODELS.build(
        {"type": "VPD", "diffusion_cfg": DIFFUSION, "class_embed_path": str(tmp_path / "embeddings.pth")}
        | {"class_embed_select": True, "pad_shape": 128, "unet_cfg": {"use_attn": False}}
    )
    images = torch.rand(2, 3, 120, 120) * 2 - 1
    maps = backbone(images)
    assert [tuple(x.shape) for x in maps] == [(2, 32, 16, 16), (2, 64, 8, 8), (2, 64, 4, 4), (2, 64, 2, 2)]
    sum(x.sum() for x in maps).backward()
    assert backbone.gamma.grad is not None and backbone.unet.conv_in.weight.grad is not None
    assert not any(parameter.requires_grad for parameter in backbone.encoder_vq.parameters())
    mean = backbone(images, torch.tensor([5, 5]))  # the place after the last class holds their mean
    torch.testing.assert_close(mean[0], maps[0])
    assert not torch.allclose(backbone(images, torch.tensor([0, 1]))[0], maps[0])
