"""Container packages of an invented organization: versions, manifests, layers, attestations, and the Dockerfiles."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
UPDATED = "2024-09-15T17:30:00Z"
STEPS = {  # package → what its layers ran, the base first
    "kettle": ["ADD rootfs.tar / # base", "RUN /bin/sh -c apk add boiler", "RUN /bin/sh -c boiler --fill"],
    "teapot": ["ADD rootfs.tar / # base", "RUN /bin/sh -c apk add infuser", "RUN /bin/sh -c infuser --leaves loose"],
    "orphan": ["ADD rootfs.tar / # base", "RUN /bin/sh -c true"],
}
DOCKERFILES = {
    "kettle": "FROM invented/base:1\nRUN apk add boiler\nRUN boiler --fill\n",
    "teapot": "FROM invented/base:1\nRUN apk add infuser\nRUN infuser --leaves loose\nCMD pour\n",
}


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def images(login: str, url: str, api: str) -> dict[str, Any]:
    """Path → answer, for the API below /orgs, and for the registry below /v2."""
    packages: list[Any] = []
    found: dict[str, Any] = {}
    for name, steps in STEPS.items():
        packages.append(
            {
                "name": name,
                "package_type": "container",
                "visibility": "private",
                "html_url": f"{url}/packages/container/{name}",
                "repository": None if name == "orphan" else {"html_url": f"{url}/{name}"},
                "created_at": UPDATED,
                "updated_at": UPDATED,
            }
        )
        single = _image(found, login, name, "amd64", steps)
        other = _image(found, login, name, "arm64", [*steps, "RUN /bin/sh -c rest"])
        index = digest(f"{login}/{name}/index")
        attested = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        found[f"/v2/{login}/{name}/manifests/{index}"] = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{"digest": single}, {"digest": other}, {"digest": digest(f"{index} attested"), **attested}],
        }
        versions = [(index, ["1.1", "latest"]), (single, ["1.0"]), (digest(f"{name} gone"), []), ("not-a-digest", [])]
        found[f"/orgs/{login}/packages/container/{name}/versions"] = [
            {"name": what, "updated_at": UPDATED, "metadata": {"container": {"tags": tags}}} for what, tags in versions
        ]
        if name == "kettle":
            found[f"/orgs/{login}/attestations/{single}"] = _attestations(f"{url}/{name}")
    found[f"/orgs/{login}/packages"] = packages
    items = [
        {
            "path": "Dockerfile",
            "sha": digest(text)[7:47],
            "html_url": f"{url}/{name}/blob/main/Dockerfile",
            "repository": {"full_name": f"{login}/{name}"},
        }
        for name, text in DOCKERFILES.items()
    ]
    # asked for 100, so no second page is asked for
    found[f"/search/code filename:dockerfile org:{login}"] = {"total_count": len(items), "items": items}
    for name, text in DOCKERFILES.items():
        content = base64.b64encode(text.encode()).decode()
        found[f"/repos/{login}/{name}/contents/Dockerfile"] = {"encoding": "base64", "content": content}
    return found


def _image(found: dict[str, Any], login: str, name: str, architecture: str, steps: list[str]) -> str:
    at = f"/v2/{login}/{name}"
    config, this = digest(f"{at} {architecture} config"), digest(f"{at} {architecture}")
    found[f"{at}/blobs/{config}"] = {
        "architecture": architecture,
        "os": "linux",
        "variant": "v8" if architecture == "arm64" else None,
        "rootfs": {"diff_ids": [digest(f"{login} {step}") for step in steps]},
        "history": [{"created_by": "ENV LEAVES=loose", "empty_layer": True}, *({"created_by": s} for s in steps)],
    }
    found[f"{at}/manifests/{this}"] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"digest": config},
        "layers": [
            {"digest": digest(f"{login} {step} packed"), "mediaType": f"{MANIFEST}+layer", "size": 1_000 + len(step)}
            for step in steps
        ],
    }
    return this


def _attestations(repository: str) -> dict[str, Any]:
    statement = {
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "externalParameters": {
                    "workflow": {"repository": repository, "ref": "refs/heads/main", "path": ".github/steep.yml"}
                },
                "resolvedDependencies": [{"uri": f"git+{repository}", "digest": {"gitCommit": "c0ffee" * 6 + "c0ff"}}],
            }
        },
    }
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    inline = {"id": 1, "bundle": {"dsseEnvelope": {"payload": payload}}}
    return {"attestations": [inline, {"id": 2, "bundle": None, "bundle_url": "https://bundles.example/2"}]}
