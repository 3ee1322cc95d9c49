"""What the files for Docker and Kubernetes say holds, and exported models are served without torch."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

from support.paths import REPOSITORY
from support.tiny import environment
from terrazzo.cli.main import make_parser
from terrazzo.serving.gate import OPEN_PATHS

IN_THE_IMAGE = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None
import numpy as np
import terrazzo.serving.app, terrazzo.serving.pool, terrazzo.serving.run
from terrazzo.serving.answers import MASKS
from terrazzo.serving.messages import Limits, ModelSource, Work
from terrazzo.serving.worker import Worker
mask = np.pad(np.zeros((9, 9), bool), 9, constant_values=True)
assert all(form(mask) for _, form in MASKS.values())
print(*Worker(Work([ModelSource("a", sys.argv[1])], Limits()), sys.stdout.buffer).facts()["a"]["classes"])
"""


@pytest.fixture
def packages():
    """The packages that the image installs."""
    text = (REPOSITORY / "Dockerfile").read_text()
    return re.search(r"constraints\.txt \\\n(.*?)\n\n", text, re.DOTALL)[1].replace("\\", " ").split()


def with_requirements(names):
    """Packages, and all that they require here."""
    found, waiting = set(), [*names]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(metadata.PackageNotFoundError):
            required = (Requirement(text) for text in metadata.requires(name) or ())
            waiting += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_the_packages_of_the_image_serve_an_exported_model(model, packages):
    pytest.importorskip("fastapi")
    inside = with_requirements(packages) | {"terrazzo"}
    owners = metadata.packages_distributions().items()
    others = [name for name, dists in owners if not inside & {dist.lower().replace("_", "-") for dist in dists}]
    assert "torch" in others and "numpy" not in others
    result = subprocess.run(
        [sys.executable, "-c", IN_THE_IMAGE, str(model), *others], env=environment(), capture_output=True, text=True
    )
    assert (result.stdout.strip(), result.returncode) == ("sky road car", 0), result.stderr


def test_the_docker_image_takes_the_packages_of_the_project(packages):
    text = (REPOSITORY / "Dockerfile").read_text()
    project = (REPOSITORY / "pyproject.toml").read_text()
    pinned = (REPOSITORY / "constraints.txt").read_text().lower().replace("_", "-")
    for package in packages:
        assert f'"{package}>=' in project and f"\n{package}==" in pinned, package
    assert "torch" not in packages
    for name in re.findall(r"^COPY (.*) /", text, re.MULTILINE):
        assert all((REPOSITORY / part).exists() for part in name.split())


def test_the_files_for_compose_and_kubernetes():
    compose = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]["terrazzo"]
    documents = yaml.safe_load_all((REPOSITORY / "examples" / "serving" / "kubernetes.yaml").read_text())
    deployment, service = documents
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for arguments in (compose["command"], container["args"]):
        timeout = make_parser("serve").parse_args(["serve", *arguments]).timeout
        grace = pod["terminationGracePeriodSeconds"] if arguments is container["args"] else 310
        assert compose["stop_grace_period"] == "310s" and grace > timeout
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN_PATHS
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
