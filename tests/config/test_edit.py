"""Set a key in a config file without changing anything else."""

import pytest

from terrazzo.config.edit import edited
from terrazzo.errors import UserError


def test_a_key_goes_into_an_empty_section(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {}  # mine\n")
    assert edited(path, {"model.depth": 18}) == "model: {depth: 18}  # mine\n"


@pytest.mark.parametrize("text", ["model: x\n", "model: [1, 2]\n"])
def test_a_key_inside_a_value_that_is_not_a_section(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"cannot set model.depth .* set it by hand"):
        edited(path, {"model.depth": 18})
