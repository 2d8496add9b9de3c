"""`make sbom` names everything that the lock files pin, with its hash sums, in a form that others read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "cartoray" / "stack" / f"{server}.lock" for server in ("kafka", "neo4j")]


@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    """Package URL → component."""
    command = [sys.executable, str(ROOT / "tools" / "sbom.py")]
    bom = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (bom["bomFormat"], bom["metadata"]["component"]["name"]) == ("CycloneDX", "cartoray")
    return {component["purl"]: component for component in bom["components"]}


def hashes(component: Any) -> set[str]:
    return {each["content"] for each in component["hashes"] if each["alg"] == "SHA-256"}


def test_it_has_every_package_and_every_jar_and_no_more(components: dict[str, Any]) -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = {line.split()[0] for line in lines if not line.startswith((" ", "#"))}
    jars = {line for lock in LOCKS for line in lock.read_text().splitlines() if not line.startswith("#")}
    named = {"{name}=={version}".format(**component) for component in components.values()}
    assert packages <= named
    assert len(components) == len(packages) + len(jars)


def test_it_has_their_hash_sums(components: dict[str, Any]) -> None:
    of_packages = set(re.findall(r"--hash=sha256:(\w+)", (ROOT / "requirements.lock").read_text()))
    of_jars = {sum_ for lock in LOCKS for sum_ in re.findall(r"sha256:(\w+)", lock.read_text())}
    assert {sum_ for component in components.values() for sum_ in hashes(component)} == of_packages | of_jars


def test_a_jar_is_named_as_maven_names_it(components: dict[str, Any]) -> None:
    (neo4j,) = [url for url in components if url.startswith("pkg:maven/org.neo4j/neo4j@")]
    assert components[neo4j]["group"] == "org.neo4j"
