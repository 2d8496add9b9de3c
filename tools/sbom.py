"""Print what cartoray is made of as CycloneDX JSON: packages of requirements.lock, jars of the embedded servers.

    .venv/bin/python tools/sbom.py > cartoray.cdx.json

The lock files say what is installed and with which hash sums, so nothing has to be installed or asked for this.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)((?:.*\\\n)*.*)", re.MULTILINE)
_JAR = re.compile(
    r"^(?P<group>.+)/(?P<name>[^/]+)/(?P<version>[^/]+)/(?P=name)-(?P=version)(?:-(?P<classifier>[^/]+))?\.jar "
    r"sha256:(?P<hash>\w{64})$",
    re.MULTILINE,
)


def packages(lock: str) -> Iterator[Component]:
    """Of requirements.lock: each with the hash sums of its files, of which one is installed."""
    for name, number, rest in _PACKAGE.findall(lock):
        yield _component(PackageURL("pypi", None, name, number), re.findall(r"--hash=sha256:(\w{64})", rest))


def jars(lock: str) -> Iterator[Component]:
    """Of a lock file of `cartoray/stack`, which has a line for each."""
    for found in _JAR.finditer(lock):
        group = found["group"].replace("/", ".")
        more = {"classifier": found["classifier"]} if found["classifier"] else None  # a platform, say
        yield _component(PackageURL("maven", group, found["name"], found["version"], more), [found["hash"]])


def _component(url: PackageURL, hashes: list[str]) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        group=url.namespace,
        name=url.name,
        version=url.version,
        purl=url,
        bom_ref=url.to_string(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in hashes],
    )


def bom() -> Bom:
    found = Bom(components=packages((ROOT / "requirements.lock").read_text()))
    for server in ("kafka", "neo4j"):  # they share some jars, which are in the set of components once
        found.components.update(jars((ROOT / "cartoray" / "stack" / f"{server}.lock").read_text()))
    found.metadata.component = Component(type=ComponentType.APPLICATION, name="cartoray", version=version("cartoray"))
    found.register_dependency(found.metadata.component, found.components)
    return found


if __name__ == "__main__":
    sys.stdout.write(make_outputter(bom(), OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2) + "\n")
