"""The protocol of Label Studio's ML backends: tasks in, brush strokes or polygons as pre-annotations out."""

from __future__ import annotations

import binascii
import json
import urllib.error
import urllib.request
import xml.etree.ElementTree as xml
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

from terrazzo.errors import some
from terrazzo.serving.gate import Refused

CONTROLS = ("BrushLabels", "PolygonLabels")  # the first one of a labelling interface is filled
LONGEST_CONFIG = 1 << 20  # characters
SECONDS = 30.0  # for Label Studio to send an image


@dataclass(frozen=True)
class Interface:
    """The part of a labelling interface that is filled: a control for an image, and its labels by lower-case name."""

    control: str  # its name
    kind: str  # brushlabels or polygonlabels
    image: str  # the name of the image's tag
    key: str  # of the task's data that holds the image
    labels: dict[str, str]

    @classmethod
    def read(cls, text: Any) -> Interface:
        """The interface in a labelling config. Raises Refused for one without an image and labels for regions."""
        if not isinstance(text, str) or len(text) > LONGEST_CONFIG or "<!" in text.replace("<!--", ""):
            raise Refused(422, "label_config is not the XML of a labelling interface")
        try:
            root = xml.fromstring(text)
        except xml.ParseError as problem:
            raise Refused(422, f"label_config is not the XML of a labelling interface: {problem}") from None
        control = next((tag for tag in root.iter() if tag.tag in CONTROLS), None)
        if control is None:
            raise Refused(422, f"the labelling interface has no {' or '.join(CONTROLS)} that could be filled")
        target = control.get("toName", "")
        image = next((tag for tag in root.iter("Image") if tag.get("name") == target), None)
        if image is None:
            raise Refused(422, f"the labelling interface has no Image called '{target}'")
        values = [label.get("value", "") for label in control.iter("Label")]
        aliases = [label.get("alias", "") for label in control.iter("Label")]
        labels = dict(zip((name.lower() for name in (*aliases, *values)), (*values, *values), strict=True))
        labels.pop("", None)
        return cls(control.get("name", ""), control.tag.lower(), target, image.get("value", "").lstrip("$"), labels)

    def classes(self, known: list[str]) -> tuple[str, ...]:
        """The model's classes that have a label. Raises Refused where none has."""
        found = tuple(name for name in known if name.lower() in self.labels)
        if not found:
            raise Refused(
                422, f"no label of the interface is a class of the model ({some(known, 12)}): give them its names"
            )
        return found

    def result(self, found: Mapping[str, Any], version: str) -> dict[str, Any]:
        """The prediction of a task from the server's own JSON with masks of this interface's kind."""
        size = {"original_width": found["width"], "original_height": found["height"], "image_rotation": 0}
        regions = []
        for entry in found["classes"]:
            label = {self.kind: [self.labels[entry["name"].lower()]]}
            if self.kind == "brushlabels":
                values: list[dict[str, Any]] = [{"format": "rle", "rle": entry["brush"]}] if entry["pixels"] else []
            else:
                across, down = 100 / found["width"], 100 / found["height"]
                values = [
                    {"points": [[x * across, y * down] for x, y in ring], "closed": True} for ring in entry["rings"]
                ]
            common = {"from_name": self.control, "to_name": self.image, "type": self.kind, **size}
            regions += [{"id": uuid4().hex[:10], **common, "value": value | label} for value in values]
        return {"result": regions, "score": found["confidence"], "model_version": version}


class Images:
    """Images of tasks: those inside a task, and those of one Label Studio, with its key."""

    def __init__(self, address: str | None, key: str | None, most: int) -> None:
        self.address, self.key, self.most = address and address.rstrip("/") + "/", key, most

    def read(self, place: Any) -> tuple[bytes, str]:
        """The bytes of an image and its name. Raises Refused for one that lies elsewhere, or cannot be had."""
        if not isinstance(place, str) or not place:
            raise Refused(422, "a task has no image under the name that the labelling interface has for it")
        if place.startswith("data:"):
            try:
                return b64decode(place.partition(",")[2], validate=True), "the task's image"
            except (binascii.Error, ValueError):
                raise Refused(422, "the image inside a task is not base64") from None
        if self.address is None:
            raise Refused(422, f"{place[:200]} is not fetched: start the server with --label-studio ADDRESS")
        address = urljoin(self.address, place)
        if origin(address) != origin(self.address):
            raise Refused(422, f"{place[:200]} is not fetched: it is not an address of {self.address}")
        name = urlsplit(address).path.rpartition("/")[2] or "the task's image"
        return self.fetch(address), name

    def fetch(self, address: str) -> bytes:
        """The file that Label Studio has at an address of its own."""
        request = urllib.request.Request(address, headers=self.headers())
        try:
            with urllib.request.build_opener(Redirects).open(request, timeout=SECONDS) as answer:
                data = answer.read(self.most + 1)
        except (OSError, ValueError) as problem:
            raise Refused(422, f"{address} cannot be fetched ({problem}): is LABEL_STUDIO_API_KEY set?") from None
        if len(data) > self.most:
            raise Refused(413, f"{address} has more than {self.most} bytes, the limit of this server")
        return data

    def headers(self) -> dict[str, str]:
        """The header of the key: a personal token is exchanged for one that lives for minutes, a legacy one is not."""
        if not self.key:
            return {}
        if self.key.count(".") != 2:
            return {"Authorization": f"Token {self.key}"}
        assert self.address is not None
        body = json.dumps({"refresh": self.key}).encode()
        request = urllib.request.Request(
            urljoin(self.address, "api/token/refresh"), body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return {"Authorization": f"Bearer {json.loads(answer.read(1 << 16))['access']}"}
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise Refused(422, f"Label Studio does not take LABEL_STUDIO_API_KEY ({problem})") from None


class Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects to where Label Studio stores images, which are not told its key."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and origin(newurl) != origin(req.full_url):
            request.remove_header("Authorization")
        return request


def origin(address: str) -> tuple[str, str]:
    """Scheme and host, with the port, of an address."""
    parts = urlsplit(address)
    return parts.scheme, parts.netloc


def tasks_of(content: Any) -> list[Mapping[str, Any]]:
    """The tasks in a request. Raises Refused for anything else."""
    tasks = content.get("tasks") if isinstance(content, dict) else None
    tasks = tasks if isinstance(tasks, list) else [tasks]
    if not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
        raise Refused(422, "JSON is taken from Label Studio alone: `tasks` with `data`; send an image as it is")
    return tasks
