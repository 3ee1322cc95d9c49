"""Every writer with odd content: what is written is read back as it was."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import save

from support.fuzz import MANY, QUICK, fuzz, scalars, values
from terrazzo.config.config import Config
from terrazzo.config.edit import edited
from terrazzo.config.load import load_config
from terrazzo.config.reading.section import lookup
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.labelling.tools import TOOLS
from terrazzo.inference.saved_config import describe
from terrazzo.inference.scenes.rasters import save_png
from terrazzo.models.checkpoint import read_checkpoint
from terrazzo.serving.gate import Refused
from terrazzo.serving.page import Kept
from terrazzo.system.painting import save_class_map
from terrazzo.system.printable import printable
from terrazzo.transforms.formats.tables import read_class_table
from terrazzo.transforms.label_files import read_label
from terrazzo.viz.matrix import matrix_csv

times = pytest.mark.parametrize("times", [QUICK, MANY])

letters = st.characters(exclude_categories=["Cs"])
words = st.sampled_from(["a", "b", "c", "a_1", "名"])


@times
@pytest.mark.parametrize("name", ["a.py", "a.yaml", "a.json"])
def test_a_written_config_is_read_as_it_was(name, tmp_path, times):
    path = tmp_path / name

    def use(content: Any) -> None:
        Config(content).dump(path)
        found = load_config(path, upgrade=False).to_dict()
        assert repr(found) == repr(content)

    fuzz(st.dictionaries(words, scalars | st.lists(scalars, max_size=3), max_size=4), use, 30, times)


@times
def test_the_description_of_weights_is_read_as_it_was(tmp_path, times):
    def use(content: Any) -> None:
        names, config = content
        (tmp_path / "a.safetensors").write_bytes(save({"a": torch.ones(1)}, describe({"model": config}, names, [])))
        meta = read_checkpoint(tmp_path / "a.safetensors").meta
        assert meta["classes"] == names and meta["config"].keys() == {"model"}

    fuzz(
        st.tuples(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3), values),
        use,
        30,
        times,
    )


names = st.lists(st.text(letters, min_size=1, max_size=9), min_size=1, max_size=4, unique=True)
maps = st.builds(
    lambda height, width, seed: np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8),
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 9**9),
)  # fmt: skip


@times
def test_the_facts_of_a_model_are_read_as_they_were(times):
    def use(classes: list[str]) -> None:
        facts = ModelFacts(classes, [[1, 2, 3]] * len(classes), source=classes[0])
        assert ModelFacts.read(facts.texts(), "m.onnx") == facts

    fuzz(names, use, 10, times)


@times
def test_a_class_map_is_read_as_it_was(tmp_path, times):
    def use(labels: np.ndarray) -> None:
        save_class_map(tmp_path / "a.png", labels, [(index, 0, 0) for index in range(256)])
        save_class_map(tmp_path / "b.png", labels)
        save_png(tmp_path / "c.png", labels)
        assert all((read_label(tmp_path / f"{name}.png") == labels).all() for name in "abc")

    fuzz(maps, use, 10, times)


@times
@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_key_that_is_set_in_a_config_is_read_as_it_was(name, tmp_path, times):
    path = tmp_path / name

    def use(change: Any) -> None:
        key, value = change
        path.write_text('{"a": 1, "b": {"c": [1, 2]}}')
        path.write_text(edited(path, {key: value}))
        assert repr(lookup(load_config(path, upgrade=False), key)) == repr(value)

    keys = st.sampled_from(["a", "b.c", "b.d", "x", "x.y"])
    fuzz(st.tuples(keys, scalars | st.lists(scalars, max_size=3)), use, 20, times)


@times
def test_the_names_in_a_table_of_confusions_are_read_as_they_were(times):
    def use(classes: list[str]) -> None:
        rows = list(csv.reader(io.StringIO(matrix_csv(np.eye(len(classes)), classes), newline="")))
        assert rows[0][1:] == [row[0] for row in rows[1:]] == [printable(name) for name in classes]

    fuzz(names, use, 20, times)


PARSERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads, ".geojson": json.loads, ".xml": ElementTree.fromstring, ".yaml": yaml.safe_load,
}  # fmt: skip


@times
@pytest.mark.parametrize("tool", TOOLS)
def test_what_labelling_tools_get_is_well_formed(tool, tmp_path, times):
    def use(content: Any) -> None:
        classes, labels = content
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        made = TOOLS[tool](folder, classes, [[index, 0, 0] for index in range(len(classes))])
        made.add(PurePosixPath("a.png"), labels % len(classes), folder / "a.png")
        made.finish()
        for path in folder.rglob("*.*"):
            PARSERS.get(path.suffix, lambda text: text)(path.read_text() if path.suffix != ".png" else "")
        for path in folder.glob("*.txt"):  # a class a line
            assert len(path.read_text().splitlines()) == len(classes) + 2 * (tool == "cvat") + (tool == "fiftyone")

    fuzz(st.tuples(names, maps), use, 8, times)


@times
def test_kept_labels_are_read_as_they_were_or_refused(tmp_path, times):
    def use(content: Any) -> None:
        classes, labels = content
        labels = labels % len(classes)
        image, mask = (cv2.imencode(".png", array)[1].tobytes() for array in (np.dstack([labels] * 3), labels))
        kept = Kept(Path(tempfile.mkdtemp(dir=tmp_path)))
        with suppress(Refused):
            place = kept.keep(image, "a.png", labels.shape, mask, classes)
            assert (read_label(kept.folder / place.replace("images", "labels")) == labels).all()
            assert len(read_class_table(kept.folder / "classes.txt")) == len(classes)

    fuzz(st.tuples(names, maps), use, 10, times)
