"""Functions of the packages, called as their own documentation calls them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from terrazzo.errors import UserError


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


def test_functions_of_processes_and_batches_in_one_process():
    from mmengine import dist
    from mmengine.dataset import default_collate
    from mmengine.logging import MessageHub
    from mmengine.structures import InstanceData, LabelData

    x = torch.arange(3.0)
    assert torch.equal(dist.all_gather(x)[0], x) and dist.get_local_rank() == 0
    dist.all_reduce(x, "mean")
    assert x.tolist() == [0, 1, 2] and 0 <= dist.sync_random_seed() < 2**31
    batch = default_collate([{"x": 1, "name": "a", "size": (2, 3)}, {"x": 2, "name": "b", "size": (4, 5)}])
    assert batch["x"].tolist() == [1, 2] and batch["name"] == ["a", "b"] and batch["size"][1].tolist() == [3, 5]
    hub = MessageHub.get_instance("functions")
    hub.update_scalar("loss", 1.0)
    hub.update_scalar("loss", 3.0, 2)
    scalar = hub.get_scalar("loss")
    assert (scalar.current(), scalar.mean(), scalar.mean(1), scalar.max()) == (3, 4 / 3, 1.5, 3)
    one = InstanceData(x=torch.ones(2), y=[1, 2], metainfo={"k": 1})
    both = InstanceData.cat([one, one])
    assert both.metainfo_keys() == ["k"] and both.y == [1, 2, 1, 2] and len(both.x) == 4
    assert LabelData.label_to_onehot(torch.tensor([1]), 3).tolist() == [0, 1, 0]
    assert LabelData.onehot_to_label(torch.tensor([0, 1, 1])).tolist() == [1, 2]


def test_names_that_terrazzo_cannot_run_say_so_when_they_are_used():
    from mmcv.ops import RoIAlign, batched_nms

    class Mine(RoIAlign):
        pass

    for use in (Mine, batched_nms):
        with pytest.raises(UserError, match=r"terrazzo has no (RoIAlign|batched_nms) that runs: it is"):
            use()


def test_carafe_and_deformable_convolution_of_given_weights():
    from mmcv.ops import CARAFEPack, carafe, deform_conv2d

    x = torch.randn(2, 4, 5, 6)
    middle = torch.zeros(2, 2 * 9, 10, 12)
    middle[:, [4, 13]] = torch.tensor([1.0, 2.0])[:, None, None]  # of each group, the place itself
    found = carafe(x, middle, 3, 2, 2)
    want = nn.functional.interpolate(x, scale_factor=2) * torch.tensor([1.0, 1, 2, 2])[:, None, None]
    torch.testing.assert_close(found, want)
    layer = CARAFEPack(4, 2)
    assert layer(x).shape == (2, 4, 10, 12) and layer.content_encoder.weight.shape == (100, 64, 3, 3)
    weight = torch.randn(8, 2, 3, 3, requires_grad=True)
    out = deform_conv2d(x, torch.zeros(2, 18, 5, 6), weight, 1, 1, 1, 2)
    torch.testing.assert_close(out, nn.functional.conv2d(x, weight, padding=1, groups=2), atol=1e-5, rtol=1e-5)
    out.sum().backward()
    assert weight.grad.abs().sum() > 0


def test_a_moving_average_of_weights():
    from mmengine.model import ExponentialMovingAverage

    model = nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(model, 0.25, interval=2)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert average.module.weight.item() == 1.5  # 1, nothing, a quarter of the way to 3


def test_sections_are_merged():
    from mmengine import ConfigDict

    section = ConfigDict(a={"b": 1, "c": [1]}, d={"x": 1})
    section.merge({"a": {"e": {"f": 1}}, "d": {"_delete_": True, "y": 2}})
    assert section == {"a": {"b": 1, "c": [1], "e": {"f": 1}}, "d": {"y": 2}} and section.a.e.f == 1
