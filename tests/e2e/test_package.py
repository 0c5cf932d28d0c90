"""The published packages: an sdist with every file of the project, and a self-contained wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser

import pytest

from tests.conftest import ROOT, SAMPLE_DATA


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The built sdist and wheel."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def in_sdist(packages):
    """The files of the sdist, relative to its folder."""
    with tarfile.open(packages[0]) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_sdist_has_every_tracked_file(in_sdist):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert tracked - in_sdist == set()


def test_the_sdist_has_what_its_readme_and_its_verbs_name(in_sdist):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", readme)
    scripts = re.findall(r"[\w/]+\.(?:py|txt)\b", " ".join(re.findall(r"python\S* \S+.*", readme)))
    files = {name for name in {*links, *scripts} if (ROOT / name).is_file()}
    assert {"bootstrap.py", "constraints.txt", "CONTRIBUTING.md"} <= files
    assert files | {"Makefile", ".ci/run", "pyproject.toml", "LICENSE"} <= in_sdist


def test_the_wheel_has_types_samples_and_whole_links(packages):
    with zipfile.ZipFile(packages[1]) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
        for sample in SAMPLE_DATA.iterdir():
            assert archive.read(f"convo_cli/sample_data/{sample.name}") == sample.read_bytes()
    assert "convo_cli/py.typed" in names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"convo_cli"}
    urls = dict(entry.split(", ") for entry in fields.get_all("Project-URL"))
    assert urls.keys() == {"Homepage", "Documentation", "Changelog", "Issues"}
    description = str(fields.get_payload())
    assert "](https://" in description
    assert re.findall(r"\]\((?!https://|#)", description) == []
    assert "Typing :: Typed" in fields.get_all("Classifier")
