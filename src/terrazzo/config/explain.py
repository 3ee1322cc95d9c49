"""One-sentence explanations of config keys, their values, and where these were set."""

from __future__ import annotations

import linecache
from fnmatch import fnmatchcase

from terrazzo.config.config import Config
from terrazzo.config.reading.section import lookup, plain
from terrazzo.config.short_form.expand import is_short
from terrazzo.config.short_form.origins import sources_of
from terrazzo.config.v0.upgrade import RENAMED, RENAMED_INSIDE
from terrazzo.config.write import literal
from terrazzo.errors import UserError, nearest, readable

NOWHERE = object()
# Dotted keys of the 1.x vocabulary, `*` for any one part, first match wins -> what they do
ABOUT: dict[str, str] = {
    # the model
    "model": "The network to train: its type, backbone, neck and heads.",
    "model.type": "How the parts are connected: EncoderDecoder, CascadeEncoderDecoder, MultimodalEncoderDecoder, ...",
    "model.pretrained": "Weights that the backbone starts from: a path, or a name in the local cache.",
    "model.data_preprocessor": "How raw images become the network's input; nothing else normalises them.",
    "model.backbone": "The network that turns an image into feature maps.",
    "model.neck": "The part between backbone and heads, such as a feature pyramid.",
    "model.decode_head": "The head whose output is the result: it turns features into a score per class and pixel.",
    "model.auxiliary_head": "One or more heads that add losses in training; they do not run at inference.",
    "model.train_cfg": "Settings of the model for training only.",
    "model.test_cfg": "How an image is run through the model in testing.",
    "model.test_cfg.mode": "`whole`: the image at once; `slide`: window by window.",
    "model.test_cfg.crop_size": "Height and width of the window in `slide` mode.",
    "model.test_cfg.stride": "How far the window moves in `slide` mode, down and to the right.",
    "*data_preprocessor.mean": "Subtracted from each channel, in the channel order that the network reads.",
    "*data_preprocessor.std": "Divisor of each channel.",
    "*data_preprocessor.bgr_to_rgb": "Swap the channels: the network reads RGB (else BGR).",
    "*data_preprocessor.rgb_to_bgr": "The same as bgr_to_rgb: either swaps the channels of images read as BGR.",
    "*data_preprocessor.pad_val": "Value that images are padded with after normalisation.",
    "*data_preprocessor.seg_pad_val": "Value that labels are padded with: 255 is ignored.",
    "*data_preprocessor.size": "Height and width that training images are padded to.",
    "*data_preprocessor.size_divisor": "Training images are padded to multiples of this.",
    "*data_preprocessor.test_cfg": "`size` or `size_divisor` that images are padded to in testing.",
    "*.num_classes": "Number of classes of the head.",
    "*.out_channels": "Channels of the head's output: num_classes, or 1 for two classes separated by a threshold.",
    "*.threshold": "With out_channels=1: the probability from which a pixel counts as the second class.",
    "*.in_channels": "Channels of the input features.",
    "*.in_index": "Indices of the backbone's (or neck's) feature maps that are read.",
    "*.channels": "Channels inside the head.",
    "*.align_corners": "Keep the corner pixels aligned when resizing.",
    "*.dropout_ratio": "Share of features that are dropped in training before the last layer.",
    "*.loss_decode": "The head's loss, or a list of losses that are summed.",
    "*.loss_weight": "Factor of the loss.",
    "*.class_weight": "Weight of each class in the loss; `auto` computes them from the training labels.",
    "*.weight_average": "Divisor of a class-weighted loss: the sum of the weights, or the number of pixels.",
    "*.formula": "Which of the published Dice formulas is used.",
    "*.patch_bias": "Give the patch embedding a bias.",
    "*.ignore_index": "The label value that does not count.",
    "*.sampler": "In a head: which pixels the loss counts (OHEM). In a loader: the order of samples.",
    "*.norm_cfg": "Type of the normalisation layers; SyncBN is plain batch norm in a single process.",
    "*.act_cfg": "Type of the activations.",
    "*.conv_cfg": "Type of the convolutions; None is the usual one.",
    "*.init_cfg": "Where the part's initial weights come from.",
    "*.frozen_stages": "First stages of the backbone that are not trained; 0: only its stem; -1: none.",
    "teacher": "Trained models that the model learns from, on images with and without labels.",
    "teacher.weights": "Files or run folders of trained models; of several, the mean counts.",
    "teacher.loss_weight": "Weight of the loss towards the teachers' probabilities.",
    "teacher.temperature": "Softens the probabilities that are compared; 1: as they are.",
    "teacher.features": "Weight of the loss towards where the teachers' features are strong; 0: none.",
    "finetune": "What training changes of the backbone: full, frozen (nothing) or lora (low-rank changes).",
    "freeze": "Parts of the model that keep their weights and statistics, such as backbone or backbone.layer1.",
    "*.norm_eval": "Keep the statistics of the backbone's batch norms fixed in training.",
    "*.out_indices": "Stages of the backbone whose features are returned.",
    "*.depth": "Number of layers of the backbone.",
    "*.dilations": "Dilation of the convolutions in each stage.",
    "*.strides": "Stride of the first block of each stage.",
    "*.with_cp": "Compute activations again in the backward pass, which saves memory.",
    # data
    "train_dataloader": "Training data: a data set, and how its samples are batched.",
    "val_dataloader": "Data for validation during training.",
    "test_dataloader": "Data for `terrazzo test`.",
    "*_dataloader.batch_size": "Images in a batch, for each device.",
    "*_dataloader.num_workers": "Processes that read and augment images, for each device.",
    "*_dataloader.persistent_workers": "Keep those processes alive from epoch to epoch.",
    "*_dataloader.drop_last": "Skip the last batch of an epoch if it is not full.",
    "*_dataloader.pin_memory": "Put batches into memory from which a GPU copies faster.",
    "*_dataloader.sampler.shuffle": "Draw samples in a new order each epoch.",
    "*_dataloader.sampler.type": "RareClassSampler draws images of rare classes more often; others draw all alike.",
    "*.dataset": "The images and labels, and the steps applied to each.",
    "*.datasets": "The data sets of a ConcatDataset, one after the other.",
    "*.times": "How often RepeatDataset goes through its data set.",
    "*.data_root": "The folder that the other paths of the data set are relative to.",
    "*.data_prefix": "Folders of images and labels below data_root.",
    "*.img_path": "The folder of the images, below data_root.",
    "*.seg_map_path": "The folder of the labels, below data_root.",
    "*.ann_file": "A file that lists the images to use, one a line, below data_root.",
    "*.img_suffix": "End of the image files' names.",
    "*.seg_map_suffix": "End of the label files' names.",
    "*.metainfo": "`classes` and `palette` of the data set, where they differ from its declaration.",
    "*.classes": "Class names, in the order of the label values.",
    "*.palette": "A colour (red, green, blue) for each class.",
    "*.exclude": "Ends of the paths of images to skip; `*` stands for anything.",
    "*.unlabelled": "What images without a label are: an `error`, to `skip`, `background`, or for the `teacher` alone.",
    "*.cache": "Where decoded images and labels are kept for the next epoch: `ram` or `disk`.",
    "*.reduce_zero_label": "Label 0 means 'no class': 0 becomes 255 (ignored), the others move down by one.",
    "*.pipeline": "The steps applied to each sample.",
    "train_pipeline": "A variable: the steps of the training data.",
    "test_pipeline": "A variable: the steps of the test data.",
    "tta_pipeline": "The steps of test-time augmentation (`--tta`): several sizes, and mirrored.",
    "tta_model": "How the results of test-time augmentation are combined; always by their mean here.",
    "*.scale": "The size that an image is resized to, width x height.",
    "*.ratio_range": "The range from which a factor of the scale is drawn.",
    "*.keep_ratio": "Keep the aspect ratio of an image when it is resized.",
    "*.crop_size": "Height and width of the crop.",
    "*.cat_max_ratio": "The largest share of a crop that one class may have.",
    "*.prob": "Probability of the step.",
    # evaluation
    "val_evaluator": "The metrics of validation.",
    "test_evaluator": "The metrics of testing.",
    "*_evaluator.iou_metrics": "mIoU, mDice, mFscore, boundary, trimap, per-image, calibration ...: one or several.",
    "val_cfg": "How validation runs; nothing needs to be set.",
    "test_cfg": "How testing runs; nothing needs to be set.",
    # optimizer and schedule
    "optim_wrapper": "How weights are updated: the optimizer, gradient clipping, mixed precision.",
    "optim_wrapper.type": "AmpOptimWrapper trains in mixed precision, OptimWrapper does not.",
    "optim_wrapper.dtype": "The type of mixed precision: bfloat16 or float16; chosen automatically if it is not set.",
    "optim_wrapper.loss_scale": "Factor of float16 losses; `dynamic` finds it.",
    "optim_wrapper.optimizer": "The optimizer of torch.optim and its arguments.",
    "optim_wrapper.optimizer.type": "Name of a class in torch.optim.",
    "optim_wrapper.optimizer.lr": "The learning rate that param_scheduler starts from.",
    "optim_wrapper.optimizer.weight_decay": "How strongly weights are pulled towards zero.",
    "optim_wrapper.optimizer.momentum": "The share of the previous step that is kept in the next one.",
    "optim_wrapper.optimizer.betas": "Decay rates of Adam's two running averages.",
    "optim_wrapper.clip_grad": "max_norm (and norm_type) that gradients are scaled down to.",
    "optim_wrapper.accumulative_counts": "Number of batches whose gradients are summed before a step.",
    "optim_wrapper.paramwise_cfg": "Factors of learning rate and weight decay for chosen parameters.",
    "optim_wrapper.paramwise_cfg.custom_keys": "Part of a parameter's name -> lr_mult and decay_mult.",
    "optim_wrapper.constructor": "How parameters are grouped: by layer depth for the layer-decay constructors.",
    "param_scheduler": "Learning-rate curves; each continues from the rate of those before it.",
    "param_scheduler.*.begin": "The step (or epoch) that the curve starts at.",
    "param_scheduler.*.end": "The step (or epoch) before which the curve ends; the last value is kept after it.",
    "param_scheduler.*.by_epoch": "Count begin, end and milestones in epochs rather than steps.",
    "param_scheduler.*.convert_to_iter_based": "Change a curve counted in epochs at every step.",
    "param_scheduler.*.include_end": "Let the curve reach its final value at `end` itself, not on the step before it.",
    "param_scheduler.*.power": "1 is a straight line; below 1 the rate falls later.",
    "param_scheduler.*.eta_min": "The final rate of the curve.",
    "param_scheduler.*.start_factor": "The share of the rate that a warm-up starts with.",
    "param_scheduler.*.factor": "The share of the rate until `end`.",
    "param_scheduler.*.milestones": "Steps (or epochs) at which the rate is multiplied by gamma.",
    "param_scheduler.*.gamma": "Factor of the rate.",
    "auto_scale_lr.enable": "Scale the learning rate to the images of a step; `--auto-scale-lr` sets it.",
    "auto_scale_lr.base_batch_size": "The images of a step, of all devices, that the learning rate is for.",
    "auto_scale_lr": "The batch size that the rate was chosen for; `--auto-scale-lr` adapts it to yours.",
    # the run
    "train_cfg": "How long training runs, and how often it is validated.",
    "train_cfg.type": "IterBasedTrainLoop counts steps, EpochBasedTrainLoop epochs.",
    "train_cfg.max_iters": "Steps of the whole run.",
    "train_cfg.max_epochs": "Epochs of the whole run.",
    "train_cfg.val_interval": "Steps (or epochs) between validations.",
    "train_cfg.time_limit": "Longest time of a session (90, 55m, 1h30m); the run is saved then and can be resumed.",
    "train_cfg.skip_nan": "Steps that may be skipped because their loss or gradient is not finite.",
    "train_cfg.val_begin": "The step (or epoch) of the first validation.",
    "default_hooks": "Intervals of logs and checkpoints.",
    "default_hooks.logger.interval": "Steps between lines of the log.",
    "default_hooks.checkpoint.interval": "Steps (or epochs) between checkpoints.",
    "default_hooks.checkpoint.by_epoch": "Count that interval in epochs.",
    "default_hooks.checkpoint.save_best": "The metric by which the best weights are kept, such as mIoU.",
    "default_hooks.checkpoint.rule": "`greater` or `less`: which value of that metric is better.",
    "default_hooks.checkpoint.max_keep_ckpts": "Number of checkpoints to keep; -1: all.",
    "default_hooks.*": "Read for its settings only; terrazzo has no hooks.",
    "custom_hooks": "EMAHook (an average of the weights) and EarlyStoppingHook are settings; others cause a warning.",
    "strategy": "FSDPStrategy shards weights and moments among the devices; DDPStrategy, the default, does not.",
    "randomness.seed": "Makes a run repeatable.",
    "randomness.deterministic": "Use only algorithms whose results do not vary, which may be slower.",
    "randomness": "The seed of the run.",
    "env_cfg.cudnn_benchmark": "Let cuDNN try its algorithms on each new size and use the fastest.",
    "env_cfg": "cuDNN's search for fast algorithms, worker processes, and the backend of several devices.",
    "load_from": "A checkpoint whose weights training starts from.",
    "resume": "Continue from the newest state of the work dir.",
    "work_dir": "The folder for logs, checkpoints and pictures.",
    "log_level": "Verbosity of the log.",
    "log_processor": "How logged values are averaged.",
    "visualizer": "How predictions are drawn, and where they are saved.",
    "vis_backends": "Where curves and pictures are sent besides the work dir: TensorBoard, Weights & Biases, ...",
    "default_scope": "The scope of type names without a prefix; not needed here.",
    "*.type": "Name of the class to build.",
}


def explain(key: str, config: Config | None = None, written: Config | None = None) -> str:
    """Return what a key does and, with a config, its value and where it was set.

    `written` is the config before it was expanded or upgraded. Raises UserError for an unknown key.
    """
    # what the key does, in any of the vocabularies
    old = RENAMED.get(key) or RENAMED_INSIDE.get(key.rpartition(".")[2])
    text = about(key) or (f"The 0.x name of {old}." if old else None)
    short = written if written is not None and is_short(written) else None
    holder = next((one for one in (config, short) if one and lookup(one, key, NOWHERE) is not NOWHERE), None)
    if text is None and holder is None:
        raise UserError(f"no config key is called '{key}'{nearest(key, known_keys(config))}")
    lines = [f"{key}: {text or 'a variable of the file, or an argument of the type that it belongs to.'}"]
    if config is None:
        return lines[0]

    # its value, and where that was set
    file = config.path or "the config"
    if holder is None:
        instead = f"; ask for {old}" if old and short is None else ""
        return "\n".join([*lines, f"not set in {file}{instead or (default_of(key) if short is not None else '')}"])
    value = lookup(holder, key)
    origin = holder.origin(key)
    if origin is None and isinstance(value, dict):
        inner = next(iter(value), "type")
        source = f"its keys come from several sources: ask for one of them, such as {key}.{inner}"
    elif origin is None:
        keys = sources_of(config, key) if short is not None else ()
        source = f"set by terrazzo: {file} does not set {f'`{keys[0]}`' if keys else 'it'}"
    else:
        source = f"set at {origin}" + quoted_line(origin)
    return "\n".join([*lines, f"value: {literal(plain(value), [], 0, 7)}", source])


def about(key: str) -> str | None:
    """Return the text of a dotted key, or of the last part of one."""
    from terrazzo.config.short_form.schema import key_field

    if key in ABOUT:
        return ABOUT[key]
    if field := key_field(key):
        return field.description
    for pattern, text in ABOUT.items():
        anywhere = pattern.startswith(("*.", "*data_preprocessor."))
        if fnmatchcase(key, pattern) and (anywhere or pattern.count(".") == key.count(".")):
            return text
    return next((text for pattern, text in ABOUT.items() if pattern.rpartition(".")[2] == key), None)


def default_of(key: str) -> str:
    """Return `; default: VALUE` for a key of the short form that has a fixed one."""
    from terrazzo.config.short_form.schema import key_field

    field = key_field(key)
    if field is None or field.is_required() or field.default is None:
        return ""
    return f"; default: {literal(field.default, [], 0, 0)}"


def known_keys(config: Config | None) -> list[str]:
    """Return the names that a key may have been meant to be."""
    from terrazzo.config.short_form.schema import key_names

    known = {*RENAMED, *(config or ()), *key_names()}
    for pattern in ABOUT:
        known |= {pattern.rpartition(".")[2]} if "*" in pattern else {pattern, pattern.rpartition(".")[2]}
    return sorted(known)


def quoted_line(origin: str) -> str:
    """Return the line at `file:line`, after a colon; nothing where there is no such file."""
    path, _, line = origin.rpartition(":")
    text = linecache.getline(path, int(line)).strip() if line.isdecimal() else ""
    return f":  {readable(text)}" if text else ""
