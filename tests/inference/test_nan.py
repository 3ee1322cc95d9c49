"""A model that gives NaN has no prediction: it is said, with the image."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

import terrazzo as tz
from support.tiny import fit, make_streets, tiny_config
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.inference.argmax import LogitsGeometry
from terrazzo.inference.predict import Scores


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A data set, its config, and a trained model with one NaN among the statistics of a batch norm."""
    root = tmp_path_factory.mktemp("nan")
    config = tiny_config(make_streets(root / "data"), steps=1)
    run = fit(config, root / "run")
    with safe_open(run.last, "pt") as file:
        weights, meta = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    name = next(name for name in weights if name.endswith("running_mean"))
    weights[name][0] = float("nan")
    save_file(weights, root / "nan.safetensors", meta)
    (root / "c.yaml").write_text(yaml.safe_dump(config))
    return root


@pytest.mark.parametrize("options", [[], ["--tta"], ["--ensemble", "nan.safetensors"]])
def test_no_score_from_nan(broken, options, capsys, monkeypatch):
    monkeypatch.chdir(broken)
    steps = {"type": "TestTimeAug", "transforms": [[{"type": "RandomFlip", "prob": 0.0}], [{"type": "LoadAnnotations"}],
             [{"type": "PackSegInputs"}]]}  # fmt: skip
    values = yaml.safe_load((broken / "c.yaml").read_text()) | {"tta_pipeline": [{"type": "LoadImageFromFile"}, steps]}
    (broken / "t.yaml").write_text(yaml.safe_dump(values))
    assert main(["test", "t.yaml", "nan.safetensors", *options]) == 1
    out, err = capsys.readouterr()
    assert "00.png: the model gives NaN" in err and "mIoU" not in out


def test_no_class_map_from_nan(broken, tmp_path, capsys):
    image = broken / "data/images/val/01.png"
    code = main(["predict", str(image), "--model", str(broken / "nan.safetensors"), "--out", str(tmp_path / "out")])
    assert code == 1 and f"{image}: the model gives NaN" in capsys.readouterr().err
    assert not [*(tmp_path / "out").glob("*.png")]
    with pytest.raises(UserError, match="gives NaN"):
        tz.load(broken / "nan.safetensors")(torch.zeros(32, 40, 3, dtype=torch.uint8).numpy())


@pytest.mark.parametrize(("value", "is_sound"), [(float("nan"), False), (float("inf"), True), (0.0, True)])
def test_one_nan_is_enough_and_infinity_is_a_score(value, is_sound):
    logits = torch.zeros(3, 2, 2)
    logits[1, 0, 1] = value
    scores = Scores(((logits, LogitsGeometry((2, 2), (2, 2), (2, 2))),))
    if is_sound:
        assert scores.check() is scores
    else:
        with pytest.raises(UserError, match=r"a\.png: the model gives NaN"):
            scores.check("a.png")
