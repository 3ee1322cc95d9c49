"""The site: its navigation, its generated reference, and a build without warnings."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import assemble
import costs
import pytest
import reference
import reference_zh

from support.paths import REPOSITORY
from support.tiny import environment
from terrazzo.cli.main import COMMANDS
from terrazzo.config.short_form.schema import key_names

NAVIGATION = re.search(r"^nav:\n(.*?)^\w", (REPOSITORY / "mkdocs.yml").read_text(), re.DOTALL | re.MULTILINE)[1]
LISTED = re.findall(r"(\S+\.md)$", NAVIGATION, re.MULTILINE)


def test_every_page_is_in_the_navigation_once():
    written = {page for page in assemble.sources() if not page.endswith(".zh.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (REPOSITORY / "docs" / "notebooks").glob("*.ipynb")}
    generated = {page for page in LISTED if page.startswith("reference/")}
    assert sorted(LISTED) == sorted(written | notebooks | generated)


def test_every_page_is_in_both_languages():
    english = {"names.md", "export-models.md", "changelog.md", "benchmarks.md", "street.md"}  # tables and records
    pages = set(assemble.sources())
    own = {page for page in pages - english if not page.endswith(".zh.md")}
    assert not [page for page in own if page.replace(".md", ".zh.md") not in pages]


def test_the_reference_names_every_command_and_its_options():
    text = "\n".join(reference.commands())
    assert set(re.findall(r"^### terrazzo (\w+)$", text, re.MULTILINE)) == COMMANDS.keys()
    assert "| `--work-dir D`" in text
    assert "#### terrazzo data init" in text


def test_the_reference_names_every_key_of_the_short_form():
    text = "\n".join(reference.config_keys())
    assert {key.rpartition(".")[2] for key in key_names()} <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert "| `crop` | text or integer or list | `[512, 512]` |" in text


def test_tables_of_the_reference_keep_their_columns():
    for line in [*reference.commands(), *reference.config_keys(), *reference.table(("a", "b"), [("x|y", "z")])]:
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5), line


@pytest.mark.parametrize(
    "link, page, source, leads",
    [
        ("training.md#colours", "data.md", "docs/data.md", "training.md#colours"),
        ("../ARCHITECTURE.md", "index.md", "docs/index.md", "architecture.md"),
        ("docs/scenes.md", "changelog.md", "CHANGELOG.md", "scenes.md"),
        ("faq.zh.md", "start.zh.md", "docs/start.zh.md", "faq.md"),
        ("../training.md", "reference/config.md", "docs/reference/config.md", "../training.md"),
        ("results/camvid.png", "results.md", "docs/results.md", "results/camvid.png"),
        ("../configs/drive.yaml", "results.md", "docs/results.md", "https://host/blob/main/configs/drive.yaml"),
        ("https://x.org/a.md", "data.md", "docs/data.md", "https://x.org/a.md"),
    ],
)
def test_links_lead_to_pages_or_to_the_repository(link, page, source, leads):
    known = {origin: name for name, origin in assemble.sources().items()}
    assert assemble.relinked(f"[a]({link})", page, source, known, "https://host") == f"[a]({leads})"
    assert assemble.relinked(f"```\n[a]({link})\n```", page, source, known, "https://host") == f"```\n[a]({link})\n```"


@pytest.mark.slow
def test_every_passage_of_the_reference_in_chinese_is_there_in_english():
    text = "\n".join(reference.pages().values())
    assert not [passage for passage in reference_zh.PASSAGES if passage not in text]


@pytest.mark.slow
def test_the_cost_of_every_recipe_is_known(monkeypatch):
    monkeypatch.setattr(costs, "measure", lambda name: pytest.fail(f"run docs/hooks/costs.py: {name} is new"))
    known = dict(costs.costs())
    assert known["fcn_r50-d8_4xb2-40k_cityscapes-512x1024"][0] == 49_497_734
    assert [name for name, cost in known.items() if cost is None] == [name for name in known if name.startswith("vpd")]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason='the site needs pip install "terrazzo[docs]"')
def test_the_site_builds_without_warnings(tmp_path):
    pages, config = tmp_path / "build" / "pages", tmp_path / "mkdocs.yml"
    settings = (REPOSITORY / "mkdocs.yml").read_text().replace("paths: [src]", f"paths: [{REPOSITORY / 'src'}]")
    config.write_text(settings)
    pages.mkdir(parents=True)
    for call in (
        [REPOSITORY / "docs" / "hooks" / "assemble.py", pages],
        ["-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", config],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, call)],
            capture_output=True,
            text=True,
            env=environment() | {"NO_MKDOCS_2_WARNING": "1"},
        )
        assert done.returncode == 0, done.stderr
    built = tmp_path / "build" / "site"
    assert "断点续训" in (built / "zh" / "start" / "index.html").read_text()
    assert "tz.load_config" in (built / "reference" / "api" / "index.html").read_text()
