"""What the files for Docker and Kubernetes say holds, and exported models are served without torch."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from support.paths import REPOSITORY
from support.tiny import environment
from terrazzo.cli.main import make_parser
from terrazzo.serving.gate import OPEN_PATHS

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import terrazzo.serving.app, terrazzo.serving.pool, terrazzo.serving.run
from terrazzo.serving.messages import Limits, ModelSource, Work
from terrazzo.serving.worker import Worker
print(*Worker(Work([ModelSource("a", sys.argv[1])], Limits()), sys.stdout.buffer).facts()["a"]["classes"])
"""


def test_exported_models_are_served_without_torch(model):
    pytest.importorskip("fastapi")
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(model)], env=environment(), capture_output=True, text=True
    )
    assert (result.stdout.strip(), result.returncode) == ("sky road car", 0), result.stderr


def test_the_docker_image_takes_the_packages_of_the_project():
    text = (REPOSITORY / "Dockerfile").read_text()
    packages = re.search(r"constraints\.txt \\\n(.*?)\n\n", text, re.DOTALL)[1].replace("\\", " ").split()
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
