"""Every key of a section acts, changes nothing by its nature, or says what does its work."""

from __future__ import annotations

import warnings

import pytest

from support.tiny import make_streets, tiny_config
from terrazzo import recipes
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.config.sections import KEYS, SECTIONS
from terrazzo.data.build import build_dataset
from terrazzo.errors import UserError

# the arguments that the parts of a run have in MMEngine and MMSegmentation 1.x
SIGNATURES = {
    "optim_wrapper": "type optimizer accumulative_counts clip_grad loss_scale dtype use_fsdp paramwise_cfg constructor",
    "train_cfg": "type by_epoch max_epochs max_iters val_begin val_interval dynamic_intervals",
    "val_cfg": "type fp16",
    "test_cfg": "type fp16",
    "randomness": "seed diff_rank_seed deterministic",
    "auto_scale_lr": "enable base_batch_size",
    "env_cfg": "cudnn_benchmark mp_cfg dist_cfg resource_limit",
    "log_processor": "type window_size by_epoch custom_cfg num_digits log_with_hierarchy mean_pattern",
    "visualizer": "type name image vis_backends save_dir classes palette dataset_name alpha",
    "train_dataloader": "batch_size num_workers persistent_workers sampler batch_sampler dataset drop_last pin_memory "
    "prefetch_factor collate_fn timeout worker_init_fn num_batch_per_epoch",
    "default_hooks.checkpoint": "type interval by_epoch save_optimizer save_param_scheduler out_dir max_keep_ckpts "
    "save_last save_best rule greater_keys less_keys file_client_args filename_tmpl backend_args published_keys "
    "save_begin",
    "default_hooks.logger": "type interval ignore_last interval_exp_name out_dir out_suffix keep_local "
    "file_client_args log_metric_by_epoch backend_args",
    "default_hooks.visualization": "type draw interval show wait_time backend_args",
    "custom_hooks.EMAHook": "type ema_type strict_load begin_iter begin_epoch momentum interval device update_buffers "
    "gamma",
    "custom_hooks.EarlyStoppingHook": "type monitor rule min_delta strict check_finite patience stopping_threshold",
}
RUNNER = (
    "model work_dir train_dataloader val_dataloader test_dataloader train_cfg val_cfg test_cfg auto_scale_lr "
    "optim_wrapper param_scheduler val_evaluator test_evaluator default_hooks custom_hooks data_preprocessor load_from "
    "resume launcher env_cfg log_processor log_level visualizer default_scope randomness experiment_name cfg strategy "
    "compile model_wrapper_cfg sync_bn efficient_conv_bn_eval find_unused_parameters activation_checkpointing"
)


@pytest.mark.parametrize("section", SIGNATURES)
def test_the_arguments_of_the_peers_are_known(section):
    assert set(SIGNATURES[section].split()) <= KEYS[section].keys()


def test_the_arguments_of_a_runner_are_known():
    assert set(RUNNER.split()) <= set(SECTIONS)


def test_official_configs_are_read_without_a_word():
    for name in recipes.names()[::7]:
        config = load_config(name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make_experiment(config)


@pytest.fixture
def config(tmp_path):
    return tiny_config(make_streets(tmp_path / "data"))


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("optim_wrapper", {"dtype": "float16"}, "optim_wrapper.dtype is that of type='AmpOptimWrapper'"),
        ("optim_wrapper", {"type": "ApexOptimWrapper"}, "there is no 'ApexOptimWrapper' here"),
        ("train_cfg", {"type": "MyLoop"}, "the loop 'MyLoop' is not run here"),
        ("train_cfg", {"dynamic_intervals": [3]}, r"dynamic_intervals must be a list of \(begin, interval\)"),
        ("train_dataloader", {"samples_per_gpu": 4}, "has no key 'samples_per_gpu'; it is batch_size"),
        ("train_dataloader", {"batch_size": 10**9}, "batch_size must be a whole number from 1 to 65536"),
        ("train_dataloader", {"sampler": {"type": "MySampler"}}, "no sampler is called 'MySampler'"),
        ("default_hooks", {"checkpoint": {"rule": "most"}}, "rule must be 'greater' or 'less', not 'most'"),
        ("val_evaluator", {"nan_to_num": "x"}, "val_evaluator.nan_to_num must be a number or None"),
        ("randomness", {"sed": 3}, "randomness has no key 'sed'; did you mean 'seed'"),
    ],
)
def test_a_key_that_cannot_act_is_an_error(config, section, values, message):
    config[section] = config[section] | values
    with pytest.raises(UserError, match=message):
        make_experiment(config)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("default_hooks", {"checkpoint": {"save_optimizer": False}}, "save_optimizer=False has no effect here"),
        ("train_dataloader", {"num_batch_per_epoch": 5}, "no effect here: dataset.indices limits the images"),
        ("val_evaluator", {"type": "CityscapesMetric", "keep_results": True}, "keep_results=True has no effect"),
    ],
)
def test_a_value_without_an_effect_is_told(config, section, values, message):
    config[section] = {key: value for key, value in config[section].items() if key != "iou_metrics"} | values
    with pytest.warns(UserWarning, match=message):
        make_experiment(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "train.txt"}, "has no argument 'split'; it is ann_file"),
        ({"img_dir": "images"}, r"has no argument 'img_dir'; it is data_prefix=dict\(img_path=...\)"),
        ({"data_prefix": {"img_dir": "images"}}, "data_prefix has no key 'img_dir'"),
        ({"metainfo": {"CLASSES": ["a"]}}, "metainfo has no key 'CLASSES'; it is classes"),
        ({"metainfo": {"classes": "forgery"}}, r"classes must be a list of names, not 'forgery'; .*\('forgery',\)"),
        ({"reduce_zero_label": "no"}, "reduce_zero_label must be True or False or None, not 'no'"),
    ],
)
def test_a_mistake_in_a_data_set_is_named_where_it_is_opened(config, values, message):
    with pytest.raises(UserError, match=message):
        build_dataset(config["train_dataloader"]["dataset"] | values)


def test_an_ignored_label_of_a_data_set_does_not_count(config):
    section = config["val_dataloader"]["dataset"]
    whole, ignoring = build_dataset(section), build_dataset(section | {"ignore_index": 1})
    path = whole.pairs[0][1]
    assert (whole.read_label(path) == 1).any() and not (whole.read_label(path) == 255).any()
    assert ((ignoring.read_label(path) == 255) == (whole.read_label(path) == 1)).all()


def test_class_names_may_be_in_a_file(config, tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    metainfo = {"classes": str(tmp_path / "classes.txt")}
    assert build_dataset(config["val_dataloader"]["dataset"] | {"metainfo": metainfo}).classes == ("sky", "road", "car")
