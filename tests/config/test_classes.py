"""A recipe's model for other classes."""

import copy

import pytest

from terrazzo.config.classes import set_classes

LOSS = {"type": "CrossEntropyLoss"}


def model(*losses: dict) -> dict:
    head = {"num_classes": 19, "out_channels": 19, "loss_decode": [copy.deepcopy(loss) for loss in losses]}
    return {"decode_head": head, "auxiliary_head": [copy.deepcopy(head), {"num_classes": 2, "out_channels": 1}]}


def test_every_head_and_loss_is_adapted_where_weights_are_dropped():
    spec = model(LOSS | {"class_weight": [1.0] * 19}, LOSS | {"class_weight": [2.0] * 19})
    with pytest.warns(UserWarning, match="class weights of the config are ignored: they are for its own 19 classes"):
        set_classes(spec, ["a", "b", "c"])
    boundary = spec["auxiliary_head"].pop()
    assert boundary == {"num_classes": 2, "out_channels": 1}
    for head in (spec["decode_head"], *spec["auxiliary_head"]):
        assert head == {"num_classes": 3, "out_channels": 3, "loss_decode": [LOSS, LOSS]}


def test_weights_of_masks_keep_that_of_no_class(recwarn):
    spec = model(LOSS | {"class_weight": [1.0] * 19 + [0.1]})
    set_classes(spec, ["a", "b"])
    assert spec["decode_head"]["loss_decode"][0]["class_weight"] == [1.0, 1.0, 0.1] and not recwarn.list


def test_weights_stay_for_as_many_classes(recwarn):
    spec = model(LOSS | {"class_weight": list(range(19))})
    set_classes(spec, [str(number) for number in range(19)])
    assert spec["decode_head"]["loss_decode"][0]["class_weight"] == list(range(19)) and not recwarn.list


def test_a_text_encoder_reads_the_names():
    spec = model() | {"text_encoder": {"dataset_name": "voc"}}
    set_classes(spec, ["background", "cat", "dog"])
    assert spec["text_encoder"] == {"vocabulary": ["cat", "dog"]}
