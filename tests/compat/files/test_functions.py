"""Functions of the packages, called as their own documentation calls them."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def test_functions_of_files_take_a_backend(tmp_path):
    from mmengine import fileio

    path, backend = tmp_path / "notes.txt", {"backend": "local"}
    fileio.put_text("größer", path, backend)
    assert fileio.get_text(path, "utf-8", backend) == "größer"
    assert fileio.exists(path, None) and fileio.isfile(path, backend_args=backend) and not fileio.isdir(path, None)
    assert fileio.get(filepath=path, backend_args=backend) == "größer".encode()
    assert fileio.join_path(tmp_path, "a", "b", backend_args=None) == str(tmp_path / "a" / "b")
    assert [*fileio.list_dir_or_file(tmp_path, True, True, ".txt", False, backend)] == ["notes.txt"]
    assert fileio.list_from_file(path, "- ", 0, 0, "utf-8", None, backend) == ["- größer"]
    with fileio.get_local_path(path, backend) as found:
        assert found == path
    fileio.dump({"a": 1}, tmp_path / "a.json", "json", None, backend)
    assert fileio.load(tmp_path / "a.json", "json", None, backend) == {"a": 1}
    fileio.remove(path, backend)
    assert not fileio.exists(path)
    fileio.FileClient.infer_client(uri=path).put_text("größer", path, "latin-1")
    assert path.read_bytes() == "größer".encode("latin-1")


def test_losses_and_metrics_of_earlier_releases_take_their_arguments_by_position():
    from mmseg.core.evaluation.metrics import mean_fscore, mean_iou
    from mmseg.models.losses import binary_cross_entropy

    logits, labels = torch.randn(2, 1, 4, 5), torch.randint(0, 2, (2, 4, 5))
    want = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float(), reduction="none")
    torch.testing.assert_close(binary_cross_entropy(logits, labels, None, "none", None, None, 255).squeeze(), want)
    torch.testing.assert_close(binary_cross_entropy(logits, labels, None, "mean", 7.0), want.sum() / 7)
    predicted, truth = [torch.tensor([[0, 0], [1, 0]]).numpy()], [torch.tensor([[1, 1], [2, 9]]).numpy()]
    assert mean_iou(predicted, truth, 3, 255, -1, {9: 2}, True)["IoU"].tolist() == pytest.approx([2 / 3, 1 / 2, -1])
    assert mean_fscore(predicted, truth, 3, 255, -1, {9: 2}, True, 2)["Recall"].tolist() == pytest.approx(
        [1, 1 / 2, -1]
    )


def test_functions_of_one_name_are_those_of_their_package():
    import mmseg.utils
    from mmcv import tensor2imgs
    from mmengine.model import stack_batch
    from mmengine.utils.dl_utils import tensor2imgs as of_engine

    images = [torch.ones(3, 4, 5), torch.ones(3, 6, 2)]
    batch = stack_batch(images, 4, 9)
    assert batch.shape == (2, 3, 8, 8) and batch[0, 0, 4, 0] == 9
    assert mmseg.utils.stack_batch(images, size=(8, 8))[0].shape == batch.shape
    x = torch.arange(3.0).view(1, 3, 1, 1)
    assert of_engine(x, to_bgr=True)[0].tolist() == tensor2imgs(x, to_rgb=True)[0].tolist() == [[[2, 1, 0]]]
    with pytest.raises(ImportError, match="has no 'sigmoid_focal_loss'"):
        from mmseg.models.losses.focal_loss import sigmoid_focal_loss  # noqa: F401
