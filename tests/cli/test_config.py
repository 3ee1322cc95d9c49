"""`terrazzo config upgrade` and `terrazzo config explain`, and what load_config makes of a 0.x file."""

import json
import warnings

import pytest

from terrazzo import recipes
from terrazzo.cli.main import main
from terrazzo.config.load import load_config
from terrazzo.config.reading.files import read_config
from terrazzo.config.write import as_python

OLD_FILE = """\
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ERFNet', norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=16, channels=8, num_classes=3, norm_cfg=norm_cfg))
test_cfg = dict(mode='whole')
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', img_scale=(64, 32))]
data = dict(
    samples_per_gpu=2,
    train=dict(type='CustomDataset', img_dir='img', ann_dir='ann', classes=('a', 'b', 'c'), pipeline=train_pipeline))
optimizer = dict(type='SGD', lr=0.01)
lr_config = dict(policy='poly', power=0.9, min_lr=1e-4, by_epoch=False)
total_iters = 40
"""


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(OLD_FILE)
    return path


@pytest.mark.filterwarnings("ignore")
def test_load_config_upgrades_files_and_overrides_of_both_vocabularies(old_file):
    preprocessing = {"model.data_preprocessor.size": (8, 8)}
    config = load_config(old_file, {"data.samples_per_gpu": 6, "train_cfg.max_iters": 10} | preprocessing)
    assert config["model"]["data_preprocessor"]["size"] == (8, 8) and config["model"]["data_preprocessor"]["mean"]
    assert config["train_dataloader"]["batch_size"] == 6 and config["train_cfg"]["max_iters"] == 10
    assert load_config(old_file, upgrade=False).to_dict() == read_config(old_file).to_dict()


@pytest.mark.filterwarnings("ignore")
def test_new_keys_know_the_line_of_the_old_ones(old_file):
    config = load_config(old_file)
    for key, line in {
        "train_dataloader.batch_size": 9,
        "model.test_cfg.mode": 6,
        "train_cfg.max_iters": 13,
        "param_scheduler.0.eta_min": 12,
        "param_scheduler.0.end": 13,
        "train_dataloader.dataset.pipeline.2.scale": 7,
        "optim_wrapper.optimizer.lr": 11,
    }.items():
        assert config.origin(key) == f"{old_file}:{line}", key


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".py", ".yaml"])
def test_config_upgrade_writes_a_file_that_reads_back(old_file, tmp_path, capsys, suffix):
    new = tmp_path / f"new{suffix}"
    assert main(["config", "upgrade", str(old_file), "-o", str(new)]) == 0
    assert str(new) in capsys.readouterr().out
    expected = load_config(old_file).to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_config(new).to_dict()
    assert again == (expected if suffix == ".py" else json.loads(json.dumps(expected)))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["old.py", new.name])


def test_config_upgrade_prints_and_never_overwrites_the_old_file(old_file, capsys):
    assert main(["config", "upgrade", str(old_file)]) == 0
    printed = capsys.readouterr()
    assert "pipeline=train_pipeline" in printed.out and "0.x vocabulary" not in printed.err
    assert main(["config", "upgrade", str(old_file), "-o", str(old_file)]) == 1
    assert "is the old file itself" in capsys.readouterr().err and old_file.read_text() == OLD_FILE


def test_config_explain_says_what_a_key_does_and_where_it_came_from(old_file, capsys):
    assert main(["config", "explain", "train_dataloader.batch_size", str(old_file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train_dataloader.batch_size: Images in a batch, for each device.",
        "value: 2",
        f"set at {old_file}:9:  samples_per_gpu=2,",
    ]
    assert main(["config", "explain", "lr_config"]) == 0
    assert "0.x name of param_scheduler" in capsys.readouterr().out
    assert main(["config", "explain", "train_dataloadr", str(old_file)]) == 1
    assert "did you mean 'train_dataloader'" in capsys.readouterr().err


OLD_NAMES = [name for name in recipes.names() if recipes.info(name).vocabulary == "0.x"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OLD_NAMES[::45])
def test_official_configs_of_0x_read_back_equal_once_they_are_upgraded(name, tmp_path):
    old, new = tmp_path / "old.py", tmp_path / "new.py"
    old.write_text(as_python(recipes.recipe(name)), encoding="utf-8")
    assert main(["config", "upgrade", str(old), "-o", str(new)]) == 0
    assert load_config(new).to_dict() == load_config(name).to_dict()
