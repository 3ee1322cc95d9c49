"""Depth estimation: VPD (Zhao et al., ICCV 2023), on the U-Net of Stable Diffusion."""

from __future__ import annotations

from terrazzo.recipes.backbones import HOST
from terrazzo.recipes.methods import family
from terrazzo.recipes.parts import Spec, part, wrapper
from terrazzo.recipes.plan import Plan

META_KEYS = ["img_path", "depth_map_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip",
    "flip_direction", "category_id"]  # fmt: skip


def diffusion() -> Spec:
    """Stable Diffusion 1.5."""
    unet = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
        "attention_resolutions": [4, 2, 1], "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4], "num_heads": 8,
        "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 768, "use_checkpoint": True,
        "legacy": False}  # fmt: skip
    autoencoder = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    first_stage = {"embed_dim": 4, "monitor": "val/rec_loss", "ddconfig": autoencoder,
        "lossconfig": {"target": "torch.nn.Identity"}}  # fmt: skip
    schedule = {"warm_up_steps": [10000], "cycle_lengths": [10000000000000], "f_start": [1e-06], "f_max": [1.0],
        "f_min": [1.0]}  # fmt: skip
    return {"linear_start": 0.00085, "linear_end": 0.012, "num_timesteps_cond": 1, "log_every_t": 200,
        "timesteps": 1000, "first_stage_key": "jpg", "cond_stage_key": "txt", "image_size": 64, "channels": 4,
        "cond_stage_trainable": False, "conditioning_key": "crossattn", "monitor": "val/loss_simple_ema",
        "scale_factor": 0.18215, "use_ema": False,
        "scheduler_config": {"target": "ldm.lr_scheduler.LambdaLinearScheduler", "params": schedule},
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": first_stage},
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.AbstractEncoder"}}  # fmt: skip


@family("vpd", "vpd_sd", "vpd_sd")
def vpd(plan: Plan) -> None:
    host = f"{HOST}mmsegmentation/v0.5/vpd/"
    checkpoint = host + "stable_diffusion_v1-5_pretrain_third_party.pth"
    small = plan.crop[0] < 512
    head: Spec = {"type": "VPDDepthHead", "in_channels": [320, 640, 1280, 1280], "max_depth": 10}
    latent = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "base_learning_rate": 0.0001}
    backbone = part("VPD", diffusion_cfg=latent | {"checkpoint": checkpoint, "params": diffusion()},
        class_embed_path=host + "nyu_class_embeddings.pth", class_embed_select=True, pad_shape=512,
        unet_cfg={"use_attn": False})  # fmt: skip
    plan.preprocessor |= {"mean": [127.5] * 3, "std": [127.5] * 3, "seg_pad_val": 0}
    plan.model = part("DepthEstimator", data_preprocessor=dict(plan.preprocessor), backbone=backbone,
        decode_head=head | ({"fmap_border": [1, 1]} if small else {}),
        test_cfg=plan.slide(stride=[160, 160] if small else [128, 128]) | {"mode": "slide_flip"})  # fmt: skip
    del plan.preprocessor["size"]
    learn(plan)
    load: list[Spec] = [{"type": "LoadImageFromFile"}, {"type": "LoadDepthAnnotation", "depth_rescale_factor": 1e-3}]
    pack: Spec = {"type": "PackSegInputs", "meta_keys": list(META_KEYS)}
    colours = [{"type": kind} for kind in ("RandomBrightnessContrast", "RandomGamma", "HueSaturationValue")]
    rescale = {"type": "RandomResize", "scale": [768, 512], "ratio_range": [0.8, 1.5], "keep_ratio": True}
    plan.train_pipeline = [*load, {"type": "RandomDepthMix", "prob": 0.25}, {"type": "RandomFlip", "prob": 0.5},
        *([] if small else [rescale]), {"type": "RandomCrop", "crop_size": plan.crop},
        {"type": "Albu", "transforms": colours}, pack]  # fmt: skip
    scale = [2000, 480] if small else [2048, 512]
    plan.test_pipeline = [load[0], {"type": "Resize", "scale": scale, "keep_ratio": True}, load[1], pack]
    plan.workers = 8


def learn(plan: Plan) -> None:
    names = {"backbone.encoder_vq": {"lr_mult": 0}, "backbone.unet": {"lr_mult": 0.01}}
    paramwise = {"bias_decay_mult": 0, "force_default_settings": True, "custom_keys": names}
    optimizer = {"type": "AdamW", "lr": 0.001, "weight_decay": 0.1}
    constructor = "ForceDefaultOptimWrapperConstructor"
    plan.optimizer = wrapper(optimizer, clip_grad=None, constructor=constructor, paramwise_cfg=paramwise)
    end = plan.iterations
    rise, fall = end * 12 // 25, end * 24 // 25
    plan.schedule = [{"type": "LinearLR", "start_factor": 0.03, "begin": 0, "end": rise, "by_epoch": False},
        {"type": "PolyLRRatio", "eta_min_ratio": 0.03, "power": 0.9, "begin": rise, "end": fall, "by_epoch": False},
        {"type": "ConstantLR", "by_epoch": False, "factor": 1, "begin": fall, "end": end}]  # fmt: skip
    plan.interval = 1000
    plan.checkpoint = {"interval": 2000, "save_best": "rmse", "rule": "less", "max_keep_ckpts": 1}
    evaluator = {"type": "DepthMetric", "min_depth_eval": 0.001, "max_depth_eval": 10.0, "crop_type": "nyu_crop"}
    plan.settings |= {"val_evaluator": evaluator, "test_evaluator": dict(evaluator), "tta_pipeline": None}
    plan.settings["find_unused_parameters"] = True
