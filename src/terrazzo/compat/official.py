"""The modules of MMSegmentation's releases: any other file in a fork is its author's."""

NAMES = {
    "": "mmseg",
    "mmseg": "apis core datasets engine evaluation models ops registry structures utils version visualization",
    "mmseg.apis": "inference mmseg_inferencer remote_sense_inferencer test train utils",
    "mmseg.core": "builder evaluation hook optimizers seg utils",
    "mmseg.core.evaluation": "class_names eval_hooks metrics",
    "mmseg.core.hook": "wandblogger_hook",
    "mmseg.core.optimizers": "layer_decay_optimizer_constructor",
    "mmseg.core.seg": "builder sampler",
    "mmseg.core.seg.sampler": "base_pixel_sampler ohem_pixel_sampler",
    "mmseg.core.utils": "dist_util misc",
    "mmseg.datasets": (
        "ade basesegdataset bdd100k builder chase_db1 cityscapes coco_stuff custom dark_zurich dataset_wrappers "
        "decathlon drive dsdl face hrf isaid isprs levir lip loveda mapillary night_driving nyu pascal_context "
        "pipelines potsdam refuge samplers stare synapse transforms voc"
    ),
    "mmseg.datasets.pipelines": "compose formating formatting loading test_time_aug transforms",
    "mmseg.datasets.samplers": "distributed_sampler",
    "mmseg.datasets.transforms": "formatting loading transforms",
    "mmseg.engine": "hooks optimizers schedulers",
    "mmseg.engine.hooks": "visualization_hook",
    "mmseg.engine.optimizers": "force_default_constructor layer_decay_optimizer_constructor",
    "mmseg.engine.schedulers": "poly_ratio_scheduler",
    "mmseg.evaluation": "metrics",
    "mmseg.evaluation.metrics": "citys_metric depth_metric iou_metric",
    "mmseg.models": (
        "assigners backbones builder data_preprocessor decode_heads losses necks segmentors text_encoder utils"
    ),
    "mmseg.models.assigners": "base_assigner hungarian_assigner match_cost",
    "mmseg.models.backbones": (
        "beit bisenetv1 bisenetv2 cgnet ddrnet erfnet fast_scnn hrnet icnet mae mit mobilenet_v2 mobilenet_v3 "
        "mscan pidnet resnest resnet resnext stdc swin timm_backbone twins unet vit vpd"
    ),
    "mmseg.models.decode_heads": (
        "ann_head apc_head aspp_head cascade_decode_head cc_head da_head ddr_head decode_head dm_head dnl_head "
        "dpt_head ema_head enc_head fcn_head fpn_head gc_head ham_head isa_head knet_head lraspp_head "
        "mask2former_head maskformer_head nl_head ocr_head pid_head point_head psa_head psp_head san_head "
        "segformer_head segmenter_mask_head sep_aspp_head sep_fcn_head setr_mla_head setr_up_head stdc_head "
        "uper_head vpd_depth_head"
    ),
    "mmseg.models.losses": (
        "accuracy boundary_loss cross_entropy_loss dice_loss focal_loss huasdorff_distance_loss kldiv_loss "
        "lovasz_loss ohem_cross_entropy_loss silog_loss tversky_loss utils"
    ),
    "mmseg.models.necks": "featurepyramid fpn ic_neck jpu mla_neck multilevel_neck",
    "mmseg.models.segmentors": (
        "base cascade_encoder_decoder depth_estimator encoder_decoder multimodal_encoder_decoder seg_tta"
    ),
    "mmseg.models.text_encoder": "clip_text_encoder",
    "mmseg.models.utils": (
        "basic_block embed encoding inverted_residual make_divisible point_sample ppm res_layer san_layers "
        "se_layer self_attention_block shape_convert up_conv_block wrappers"
    ),
    "mmseg.ops": "encoding wrappers",
    "mmseg.registry": "registry",
    "mmseg.structures": "sampler seg_data_sample",
    "mmseg.structures.sampler": "base_pixel_sampler builder ohem_pixel_sampler",
    "mmseg.utils": (
        "class_names collect_env get_templates io logger mask_classification misc set_env tokenizer typing_utils "
        "util_distribution"
    ),
    "mmseg.visualization": "local_visualizer",
}
MODULES = frozenset(f"{folder}.{name}".lstrip(".") for folder, names in NAMES.items() for name in names.split())
