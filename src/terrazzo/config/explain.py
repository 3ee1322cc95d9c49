"""What the keys of a config do, in a sentence each."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from terrazzo.config.config import Config
from terrazzo.config.reading.section import Section, plain
from terrazzo.config.v0.upgrade import RENAMED, RENAMED_INSIDE
from terrazzo.config.write import literal
from terrazzo.errors import UserError, nearest

# Dotted keys, `*` for any one part, first match wins -> what they do
ABOUT: dict[str, str] = {
    # the model
    "model": "What is trained: its type, backbone, neck and heads.",
    "model.type": "How the parts are joined: EncoderDecoder, CascadeEncoderDecoder, MultimodalEncoderDecoder, ...",
    "model.pretrained": "Weights that the backbone starts from: a path, or a name that the local cache knows.",
    "model.data_preprocessor": "How raw images become what the network reads; nothing else normalises them.",
    "model.backbone": "The network that turns an image into feature maps.",
    "model.neck": "What stands between backbone and heads, such as a feature pyramid.",
    "model.decode_head": "The head whose result counts: it turns features into a score for each class and pixel.",
    "model.auxiliary_head": "One or more heads that add losses in training; they are not run at inference.",
    "model.train_cfg": "Settings of the model that hold in training only.",
    "model.test_cfg": "How an image is run through the model in testing.",
    "model.test_cfg.mode": "`whole`: the image at once; `slide`: window by window.",
    "model.test_cfg.crop_size": "Height and width of the window in `slide` mode.",
    "model.test_cfg.stride": "How far the window moves in `slide` mode, down and to the right.",
    "*data_preprocessor.mean": "What is subtracted from each channel, in the order of channels that the network reads.",
    "*data_preprocessor.std": "What each channel is divided by.",
    "*data_preprocessor.bgr_to_rgb": "Whether the network reads RGB (else BGR).",
    "*data_preprocessor.rgb_to_bgr": "The same as bgr_to_rgb: either swaps the channels of images read as BGR.",
    "*data_preprocessor.pad_val": "What images are padded with, after they are normalised.",
    "*data_preprocessor.seg_pad_val": "What labels are padded with: 255 is ignored.",
    "*data_preprocessor.size": "Height and width that training images are padded to.",
    "*data_preprocessor.size_divisor": "Training images are padded to multiples of this.",
    "*data_preprocessor.test_cfg": "`size` or `size_divisor` that images are padded to in testing.",
    "*.num_classes": "How many classes the head tells apart.",
    "*.out_channels": "Channels of the head's output: num_classes, or 1 for two classes told apart by a threshold.",
    "*.threshold": "With out_channels=1: the probability from which on a pixel is the second class.",
    "*.in_channels": "Channels of the features that come in.",
    "*.in_index": "Which of the backbone's (or neck's) feature maps are read.",
    "*.channels": "Channels inside the head.",
    "*.align_corners": "Whether resizing keeps the corner pixels in place.",
    "*.dropout_ratio": "Share of features that are dropped in training before the last layer.",
    "*.loss_decode": "The head's loss, or a list of losses that are summed.",
    "*.loss_weight": "What the loss is multiplied by.",
    "*.class_weight": "A weight for each class in the loss; `auto` works them out from the training labels.",
    "*.weight_average": "What a class-weighted loss is divided by: the sum of the weights, or the number of pixels.",
    "*.formula": "Which of the published Dice formulas is meant.",
    "*.patch_bias": "Whether the patch embedding has a bias.",
    "*.ignore_index": "The label value that does not count.",
    "*.sampler": "In a head: which pixels the loss counts (OHEM). In a loader: the order of samples.",
    "*.norm_cfg": "The kind of normalisation layer; SyncBN is plain batch norm in one process.",
    "*.act_cfg": "The kind of activation.",
    "*.conv_cfg": "The kind of convolution; None is the usual one.",
    "*.init_cfg": "Where the part's first weights come from.",
    "*.frozen_stages": "How many stages of the backbone are not trained; -1: all are.",
    "*.norm_eval": "Whether the backbone's batch norms keep their statistics in training.",
    "*.out_indices": "Which stages of the backbone give their features.",
    "*.depth": "How many layers the backbone has.",
    "*.dilations": "Dilation of each stage's convolutions.",
    "*.strides": "Stride of each stage's first block.",
    "*.with_cp": "Whether activations are computed again in the backward pass, which saves memory.",
    # data
    "train_dataloader": "Training data: a data set, and how batches are made of it.",
    "val_dataloader": "The data that validation during training runs on.",
    "test_dataloader": "The data that `terrazzo test` runs on.",
    "*_dataloader.batch_size": "Images in a batch, for each device.",
    "*_dataloader.num_workers": "Processes that read and augment images, for each device.",
    "*_dataloader.persistent_workers": "Whether those processes live on from epoch to epoch.",
    "*_dataloader.drop_last": "Whether an epoch leaves out a last batch that is not full.",
    "*_dataloader.pin_memory": "Whether batches are put where a GPU can fetch them faster.",
    "*_dataloader.sampler.shuffle": "Whether samples come in a new order each epoch.",
    "*_dataloader.sampler.type": "RareClassSampler draws images of rare classes more often; others draw all alike.",
    "*.dataset": "Which images and labels, and what is done to each.",
    "*.datasets": "The data sets of a ConcatDataset, one after the other.",
    "*.times": "How often RepeatDataset goes through its data set.",
    "*.data_root": "The folder that the other paths of the data set start from.",
    "*.data_prefix": "Folders of images and labels below data_root.",
    "*.img_path": "The folder of the images, below data_root.",
    "*.seg_map_path": "The folder of the labels, below data_root.",
    "*.ann_file": "A file that lists the images to take, one a line, below data_root.",
    "*.img_suffix": "How the names of image files end.",
    "*.seg_map_suffix": "How the names of label files end.",
    "*.metainfo": "`classes` and `palette` of the data set, where they are not those it is declared with.",
    "*.classes": "Names of the classes in the order of the label values.",
    "*.palette": "A colour (red, green, blue) for each class.",
    "*.exclude": "Ends of paths of images that are left out.",
    "*.cache": "Where decoded images and labels are kept for the next epoch: `ram` or `disk`.",
    "*.reduce_zero_label": "Whether label 0 means 'no class': 0 becomes 255 (ignored), the others move down by one.",
    "*.pipeline": "What is done to each sample, step by step.",
    "train_pipeline": "A variable: the steps of the training data.",
    "test_pipeline": "A variable: the steps of the test data.",
    "tta_pipeline": "The steps of test-time augmentation (`--tta`): several sizes, and mirrored.",
    "tta_model": "How the results of test-time augmentation are joined; always their mean here.",
    "*.scale": "The size that an image is brought to, width x height.",
    "*.ratio_range": "A factor of the scale is drawn between these two.",
    "*.keep_ratio": "Whether an image keeps its shape when it is resized.",
    "*.crop_size": "Height and width that are cut out.",
    "*.cat_max_ratio": "The largest share of a crop that one class may have.",
    "*.prob": "How probable the step is.",
    # evaluation
    "val_evaluator": "What validation measures.",
    "test_evaluator": "What testing measures.",
    "*_evaluator.iou_metrics": "mIoU, mDice, mFscore, boundary, trimap, per-image, calibration ...: one or several.",
    "val_cfg": "How validation runs; nothing needs to be set.",
    "test_cfg": "How testing runs; nothing needs to be set.",
    # optimizer and schedule
    "optim_wrapper": "How weights are updated: the optimizer and what is around it.",
    "optim_wrapper.type": "AmpOptimWrapper trains in mixed precision, OptimWrapper does not.",
    "optim_wrapper.dtype": "The type of mixed precision: bfloat16 or float16; chosen by itself where it is not set.",
    "optim_wrapper.loss_scale": "What float16 losses are multiplied by; `dynamic` finds it.",
    "optim_wrapper.optimizer": "The optimizer of torch.optim and its arguments.",
    "optim_wrapper.optimizer.type": "Name of a class in torch.optim.",
    "optim_wrapper.optimizer.lr": "The learning rate that param_scheduler starts from.",
    "optim_wrapper.optimizer.weight_decay": "How strongly weights are pulled to zero.",
    "optim_wrapper.optimizer.momentum": "How much of the last step goes into the next one.",
    "optim_wrapper.optimizer.betas": "How slowly Adam's two averages move.",
    "optim_wrapper.clip_grad": "max_norm (and norm_type) that gradients are scaled down to.",
    "optim_wrapper.accumulative_counts": "Over how many batches gradients are summed before a step.",
    "optim_wrapper.paramwise_cfg": "Factors of learning rate and weight decay for chosen parameters.",
    "optim_wrapper.paramwise_cfg.custom_keys": "Part of a parameter's name -> lr_mult and decay_mult.",
    "optim_wrapper.constructor": "How parameters are grouped: by layer depth for the layer-decay constructors.",
    "param_scheduler": "Learning-rate curves; each takes the rate that those before it give.",
    "param_scheduler.*.begin": "The step (or epoch) that the curve starts at.",
    "param_scheduler.*.end": "The step (or epoch) before which the curve ends; after it the last value stays.",
    "param_scheduler.*.by_epoch": "Whether begin, end and milestones count epochs rather than steps.",
    "param_scheduler.*.convert_to_iter_based": "Whether a curve counted in epochs still changes at every step.",
    "param_scheduler.*.include_end": "Whether the curve comes to its end at `end` itself, not on the step before it.",
    "param_scheduler.*.power": "1 is a straight line; below 1 the rate falls later.",
    "param_scheduler.*.eta_min": "The rate that the curve comes down to.",
    "param_scheduler.*.start_factor": "The share of the rate that a warm-up starts with.",
    "param_scheduler.*.factor": "The share of the rate until `end`.",
    "param_scheduler.*.milestones": "Steps (or epochs) at which the rate is multiplied by gamma.",
    "param_scheduler.*.gamma": "What the rate is multiplied by.",
    "auto_scale_lr.enable": "Whether the learning rate is scaled to the images of a step; `--auto-scale-lr` says so.",
    "auto_scale_lr.base_batch_size": "The images of a step, of all devices, that the learning rate is for.",
    "auto_scale_lr": "The batch size that the rate was made for; `--auto-scale-lr` adapts it to yours.",
    # the run
    "train_cfg": "How long training runs, and how often it is validated.",
    "train_cfg.type": "IterBasedTrainLoop counts steps, EpochBasedTrainLoop epochs.",
    "train_cfg.max_iters": "Steps of the whole run.",
    "train_cfg.max_epochs": "Epochs of the whole run.",
    "train_cfg.val_interval": "Steps (or epochs) from validation to validation.",
    "train_cfg.time_limit": "How long a session may take (90, 55m, 1h30m); it is saved then, to be resumed.",
    "train_cfg.skip_nan": "Steps that may be left out because their loss or gradient is no number.",
    "train_cfg.val_begin": "The step (or epoch) from which on there is validation.",
    "default_hooks": "What happens at intervals: logs and checkpoints.",
    "default_hooks.logger.interval": "Steps from line to line of the log.",
    "default_hooks.checkpoint.interval": "Steps (or epochs) from checkpoint to checkpoint.",
    "default_hooks.checkpoint.by_epoch": "Whether that interval counts epochs.",
    "default_hooks.checkpoint.save_best": "The metric by which the best weights are kept, such as mIoU.",
    "default_hooks.checkpoint.rule": "`greater` or `less`: which value of that metric is better.",
    "default_hooks.checkpoint.max_keep_ckpts": "How many checkpoints are kept; -1: all.",
    "default_hooks.*": "Read for the settings it holds; there are no hooks in terrazzo.",
    "custom_hooks": "EMAHook (an average of the weights) and EarlyStoppingHook are settings; others are warned of.",
    "strategy": "FSDPStrategy shards weights and moments among the devices; DDPStrategy, the default, does not.",
    "compile": "Whether steps go through torch.compile.",
    "channels_last": "Whether channels vary fastest in memory, which suits convolutions in mixed precision.",
    "activation_checkpointing": "Whether the backbone's blocks are computed again in the backward pass.",
    "randomness.seed": "Makes a run repeatable.",
    "randomness.deterministic": "Use only algorithms whose results do not vary, which may be slower.",
    "randomness": "The seed of the run.",
    "env_cfg.cudnn_benchmark": "Whether cuDNN tries its algorithms on each new size and takes the fastest.",
    "env_cfg": "cuDNN's search for fast algorithms, worker processes, and the backend of several devices.",
    "load_from": "A checkpoint whose weights training starts from.",
    "resume": "Whether training goes on from the newest state of the work dir.",
    "work_dir": "The folder for logs, checkpoints and pictures.",
    "log_level": "How much is logged.",
    "log_processor": "How logged values are averaged.",
    "visualizer": "How predictions are drawn, and where to.",
    "vis_backends": "Where curves and pictures go beside the work dir: TensorBoard, Weights & Biases, ...",
    "track": "The same by name: tensorboard, wandb, mlflow, csv, one or several; `--track` says so too.",
    "val_pictures": "How many validation samples are painted at every validation; 0: none.",
    "default_scope": "Whose type names are meant where a name has no prefix; not needed here.",
    "custom_imports": "Modules of your own that register models: imports=[names], run with --trust-config alone.",
    "find_unused_parameters": "Whether several devices wait for parameters that got no gradient.",
    "*.type": "Which class is built, by its name.",
}  # fmt: skip


def explain(key: str, config: Config | None = None) -> str:
    """What a key does and, with a config, its value and where it was set. Raises UserError for an unknown key."""
    old = RENAMED.get(key) or RENAMED_INSIDE.get(key.rpartition(".")[2])
    text = about(key) or (f"The 0.x name of {old}." if old else None)
    value = find(config, key) if config is not None else None
    if text is None and value is None:
        known = {*RENAMED, *(config or ())}
        for pattern in ABOUT:
            known |= {pattern.rpartition(".")[2]} if "*" in pattern else {pattern, pattern.rpartition(".")[2]}
        raise UserError(f"no config key is called '{key}'{nearest(key, sorted(known))}")
    lines = [f"{key}: {text or 'a variable of the file, or an argument of the type that it belongs to.'}"]
    if config is None:
        return lines[0]
    if value is None:
        instead = f"; ask for {old}" if old else ""
        return "\n".join([*lines, f"not set under that name in {config.path or 'the config'}{instead}"])
    return "\n".join([*lines, f"value: {literal(plain(value[0]), [], 0, 7)}", came_from(config.origin(key))])


def about(key: str) -> str | None:
    """The text of a dotted key, or of the last part of one."""
    for pattern, text in ABOUT.items():
        anywhere = pattern.startswith(("*.", "*data_preprocessor."))
        if fnmatchcase(key, pattern) and (anywhere or pattern.count(".") == key.count(".")):
            return text
    return next((text for pattern, text in ABOUT.items() if pattern.rpartition(".")[2] == key), None)


def find(config: Config, key: str) -> tuple[object] | None:
    """The value of a dotted key, or None where there is none."""
    value: object = config._values
    for part in key.split("."):
        if isinstance(value, (list, tuple)) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Section) and part in value:
            value = value[part]
        else:
            return None
    return (value,)


def came_from(origin: str | None) -> str:
    """`set at file:line`, with the line itself."""
    if origin is None:
        return "set by terrazzo: the config does not say it"
    path, _, line = origin.rpartition(":")
    if not line.isdecimal() or not Path(path).is_file():
        return f"set at {origin}"
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    text = lines[int(line) - 1].strip() if 0 < int(line) <= len(lines) else ""
    return f"set at {origin}" + (f":  {text}" if text else "")
