"""Write cartoray/stack/{kafka,neo4j}.lock: every jar that the embedded servers need, with its SHA-256.

    .venv/bin/python tools/lock_artifacts.py            # the versions in LOCKS below
    .venv/bin/python tools/lock_artifacts.py --check    # exit 1 if a lock file differs from what would be written

Run it after changing a version in LOCKS. Takes a minute and 200 MB of download the first time; jars and POMs stay in
the local Maven repository. The resolver is jgo's, in pure Python. It is given a project that depends on the artifacts,
not the artifacts themselves: for those it takes their own dependencyManagement as a BOM and lets test scopes leak in
(17 jars too many for Neo4j), while for a project it answers exactly what Maven does.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from jgo.maven import POM, MavenContext

STACK = Path(__file__).resolve().parent.parent / "cartoray" / "stack"
LOCKS = {
    # log4j-slf4j-impl: Kafka logs nothing without it. Its distribution has it in libs/, its POM not: keep the version
    # at that of log4j-core, which comes with Kafka.
    "kafka": ("org.apache.kafka:kafka_2.13:4.4.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"),
    "neo4j": ("org.neo4j:neo4j:2026.08.1",),
}
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>cartoray</groupId><artifactId>stack</artifactId><version>1</version>
<dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def resolve(coordinates: tuple[str, ...]) -> dict[str, Path]:
    """Path in a Maven repository → local file, of the runtime dependencies of `coordinates` and of themselves."""
    context = MavenContext(timeout=60)
    with tempfile.TemporaryDirectory() as folder:
        pom = Path(folder) / "pom.xml"
        pom.write_text(_POM.format("".join(_DEPENDENCY.format(*entry.split(":")) for entry in coordinates)))
        _, nodes = context.pom_dependency_list(POM(pom))
    jars = {}
    for node in nodes:
        artifact, scope = node.dep.artifact, node.dep.scope
        if scope in {"compile", "runtime", None}:
            path = artifact.component.path_prefix / artifact.filename
            jars[path.as_posix()] = artifact.resolve()
    return jars


def render(coordinates: tuple[str, ...], jars: dict[str, Path]) -> str:
    """The text of a lock file: the jars sorted by path, a hash sum each."""
    size_mb = sum(path.stat().st_size for path in jars.values()) / 1e6
    lines = [
        f"# {' '.join(coordinates)} with runtime dependencies: {len(jars)} jars, {size_mb:.0f} MB.",
        "# Written by tools/lock_artifacts.py; do not edit.",
    ]
    for name, path in sorted(jars.items()):
        lines.append(f"{name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the lock files of the embedded stack.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a lock file is out of date")
    check = parser.parse_args().check
    stale = 0
    for name, coordinates in LOCKS.items():
        target, text = STACK / f"{name}.lock", render(coordinates, resolve(coordinates))
        same = target.exists() and target.read_text() == text
        stale += not same
        if not check:
            target.write_text(text)
        outcome = "up to date" if same else "differs" if check else "written"
        sys.stdout.write(f"{target.name}: {text.count('.jar ')} jars, {outcome}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
