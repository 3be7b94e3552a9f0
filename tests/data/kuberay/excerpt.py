"""Make schema.json: of KubeRay's custom resource definitions what the manifests of jobs/cluster use. See README.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
MANIFESTS = HERE.parents[2] / "jobs" / "cluster"
CRDS = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}
KEPT = ("type", "enum", "required", "pattern", "anyOf", "minimum", "format")  # of each schema; no descriptions


def excerpt(schema: dict[str, Any], values: list[Any], where: str) -> dict[str, Any]:
    """The part of an OpenAPI schema that these values use.

    Raises:
        KeyError: a value has a field that the schema has not.
    """
    kept = {name: schema[name] for name in KEPT if name in schema}
    if "items" in schema:
        kept["items"] = excerpt(schema["items"], [item for value in values for item in value], f"{where}[]")
    elif "properties" in schema:
        fields = {name for value in values for name in value}
        if unknown := sorted(fields - schema["properties"].keys()):
            raise KeyError(f"{where} has no {', '.join(unknown)}")
        kept["required"] = schema.get("required", [])
        kept["additionalProperties"] = False
        kept["properties"] = {
            name: excerpt(schema["properties"][name], [v[name] for v in values if name in v], f"{where}.{name}")
            for name in sorted(fields)
        }
    elif "additionalProperties" in schema:
        kept["additionalProperties"] = excerpt(schema["additionalProperties"], [], where)
    return kept


def main(bases: Path) -> None:
    """Read the definitions in a folder, and write schema.json."""
    manifests = [one for path in MANIFESTS.glob("ray*.yaml") for one in yaml.safe_load_all(path.read_text())]
    schemas = {}
    for kind, name in CRDS.items():
        (version,) = (v for v in yaml.safe_load((bases / name).read_text())["spec"]["versions"] if v["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {  # which the API server checks by itself
            "type": "object",
            "properties": {field: {"type": "string"} for field in ("name", "namespace")},
        }
        schemas[kind] = excerpt(schema, [one for one in manifests if one["kind"] == kind], kind)
    (HERE / "schema.json").write_text(json.dumps(schemas, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
