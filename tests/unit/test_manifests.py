"""The manifests that are shipped fit the schemas of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CRDS = ROOT.parent / "shared" / "kuberay-crds"


def test_cluster_yaml_fits_rays_schema() -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / "cluster.yaml").read_text()), schema)


def closed(schema: Any) -> Any:
    """A CRD's schema with unknown fields refused, as the API server refuses them."""
    if isinstance(schema, dict):
        closed_ = {key: closed(value) for key, value in schema.items()}
        if "properties" in closed_ and not closed_.get("x-kubernetes-preserve-unknown-fields"):
            closed_.setdefault("additionalProperties", False)
        if closed_.get("x-kubernetes-int-or-string"):
            closed_.pop("type", None)
        return closed_
    return [closed(entry) for entry in schema] if isinstance(schema, list) else schema


@pytest.mark.skipif(not CRDS.exists(), reason="KubeRay's CRDs are not beside the checkout")
def test_rayjob_fits_kuberays_crd() -> None:
    crd = yaml.safe_load((CRDS / "rayjobs.yaml").read_text())
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = closed(version["schema"]["openAPIV3Schema"])
    for name in ("apiVersion", "kind", "metadata"):
        schema["properties"][name] = {}
    manifest = yaml.safe_load((ROOT / "kuberay" / "rayjob.yaml").read_text())
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest | {"spec": manifest["spec"] | {"unknown": 1}}, schema)
