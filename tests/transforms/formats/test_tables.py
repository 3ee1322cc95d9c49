"""Tables of classes that are not quite as they should be."""

from __future__ import annotations

import pytest

from terrazzo.errors import UserError
from terrazzo.transforms.formats.tables import read_class_table


@pytest.mark.parametrize(("name", "text", "words"), [("labelmap.txt", "road:1,2,3::\nsky", "sky: '' is not a colour")])
def test_a_table_that_lacks_something_is_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}.*{words}"):
        read_class_table(tmp_path / name)
