"""The recipes of jobs/cluster: fields that KubeRay knows, and what makes them safe to copy."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from cluster_recipes import RECIPES, ROOT, dockerfile

from poolscore.engine.config import Config, load_config

SCHEMAS = json.loads((ROOT / "tests" / "data" / "kuberay" / "schema.json").read_text())
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
VERSION = re.search('^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]
KINDS = {"RayJob": "rayjob.yaml", "RayCluster": "raycluster.yaml"}


def objects() -> list[dict[str, Any]]:
    files = ("access.yaml", "raycluster.yaml", "rayjob.yaml")
    return [one for name in files for one in yaml.safe_load_all((RECIPES / name).read_text())]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (one for one in objects() if one["kind"] == kind)
    return found


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The cluster that both manifests describe."""
    spec: dict[str, Any] = manifest("RayJob")["spec"]["rayClusterSpec"]
    return spec


@pytest.fixture
def job() -> Config:
    return load_config(RECIPES / "poolscore.yaml")


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """Specifications of all pods: head, workers, submitter."""
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    templates = [group["template"] for group in groups] + [manifest("RayJob")["spec"]["submitterPodTemplate"]]
    return [template["spec"] for template in templates]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def nodes_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each field below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if isinstance(value, dict):
            yield (*path, name)
        yield from nodes_of(inner, (*path, name))


@pytest.mark.parametrize("kind", KINDS)
def test_kuberay_knows_every_field(kind: str) -> None:
    jsonschema.validate(manifest(kind), SCHEMAS[kind], cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_field_is_found_wherever_it_is(kind: str) -> None:
    """But for the names in free maps: labels, selectors, resources, Ray's own parameters."""
    free = {"nodeSelector", "rayStartParams", "requests", "limits"}
    right, validator = manifest(kind), jsonschema.Draft202012Validator(SCHEMAS[kind])
    fields = [path for path in nodes_of(right) if not free & set(path[:-1])]
    assert len(fields) > 80
    for *path, name in fields:
        wrong = copy.deepcopy(right)
        inner: Any = wrong
        for step in path:
            inner = inner[step]
        inner[f"{name}x"] = inner.pop(name)
        assert not validator.is_valid(wrong), (*path, name)


def test_both_describe_the_same_cluster(cluster: dict[str, Any]) -> None:
    assert manifest("RayCluster")["spec"] == cluster


def test_the_dashboard_is_for_the_namespace_alone(cluster: dict[str, Any]) -> None:
    head = cluster["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert head["enableIngress"] is False
    assert not {"Ingress", "Service", "Route", "HTTPRoute", "Gateway"} & {one["kind"] for one in objects()}
    text = "".join(path.read_text() for path in RECIPES.glob("*.yaml"))
    assert not re.search("LoadBalancer|NodePort|hostNetwork|hostPort", text)
    policy = manifest("NetworkPolicy")["spec"]
    assert (policy["podSelector"], policy["policyTypes"]) == ({}, ["Ingress"])
    inside, operator = policy["ingress"]
    assert inside == {"from": [{"podSelector": {}}]}  # without a namespaceSelector: this namespace
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    (who,) = operator["from"]
    assert who["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    # Anybody may give a pod that label, but not in the operator's namespace.
    assert who["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-operator"}}


def test_ray_wants_a_token(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == CONSTRAINTS["ray"]
    for pod in pods(cluster):
        assert "RAY_AUTH_TOKEN" not in environment(pod["containers"][0])  # which would be a token in a file


def test_the_driver_is_on_no_gpu_machine_and_on_no_preemptible_one(cluster: dict[str, Any]) -> None:
    head, spec = cluster["headGroupSpec"]["template"]["spec"], manifest("RayJob")["spec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-gpus": "0"}
    assert not [name for name in head["containers"][0]["resources"]["limits"] if "gpu" in name]
    assert "tolerations" not in head
    assert head["nodeSelector"] == {"eks.amazonaws.com/capacityType": "ON_DEMAND"}
    # With any of these, or that variable, Ray places the driver wherever there is room.
    assert not [name for name in spec if name.startswith("entrypoint") and name != "entrypoint"]
    assert "RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES" not in environment(head["containers"][0])


def test_workers_are_preemptible_and_come_and_go(cluster: dict[str, Any]) -> None:
    (group,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, 8)
    pod = group["template"]["spec"]
    assert pod["nodeSelector"] == {"eks.amazonaws.com/capacityType": "SPOT"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # Ray gives a drained node so long, and Kubernetes a little longer.
    wait = int(environment(pod["containers"][0])["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert 0 < pod["terminationGracePeriodSeconds"] - wait <= 15


def test_a_driver_that_dies_gets_another_cluster_and_nothing_stays(cluster: dict[str, Any]) -> None:
    spec = manifest("RayJob")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["entrypoint"] == "poolscore score /etc/poolscore/poolscore.yaml || test $? -eq 3"
    for code, to_kubernetes in ((0, 0), (3, 0), (2, 1), (4, 1), (130, 1)):
        line = spec["entrypoint"].replace("poolscore score /etc/poolscore/poolscore.yaml", f"(exit {code})")
        assert subprocess.run(line, shell=True, check=False).returncode == to_kubernetes  # as Ray starts it
    (mount,) = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/etc/poolscore"


def test_pods_have_no_more_rights_than_they_need(cluster: dict[str, Any]) -> None:
    """Those of the Pod Security Standard that the namespace enforces."""
    (enforced,) = manifest("Namespace")["metadata"]["labels"].values()
    assert enforced == "restricted"
    containers = [container for pod in pods(cluster) for container in pod["containers"]]
    for context in [*(c["securityContext"] for c in containers), cluster["autoscalerOptions"]["securityContext"]]:
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
    for pod in pods(cluster):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers:
        assert container["image"] == f"registry.example.com/poolscore:{VERSION}"  # pinned, one for all
        assert environment(container)["RAY_USAGE_STATS_ENABLED"] == "0"
        assert container["resources"]["limits"]["memory"]


def test_only_the_driver_has_the_identity_that_may_delete(cluster: dict[str, Any]) -> None:
    accounts = {one["metadata"]["name"] for one in objects() if one["kind"] == "ServiceAccount"}
    head, worker, submitter = pods(cluster)
    assert {head["serviceAccountName"], worker["serviceAccountName"]} == accounts
    assert (head["serviceAccountName"], worker["serviceAccountName"]) == ("poolscore-driver", "poolscore-worker")
    assert worker["automountServiceAccountToken"] is submitter["automountServiceAccountToken"] is False
    keys = [pod["containers"][0]["envFrom"] for pod in (head, worker)]  # where the storage knows no such identities
    assert keys == [
        [{"secretRef": {"name": f"poolscore-storage-{role}", "optional": True}}] for role in ("driver", "worker")
    ]


def test_the_job_asks_for_what_a_pod_has(cluster: dict[str, Any], job: Config) -> None:
    (group,) = cluster["workerGroupSpecs"]
    cores = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert job.run.decode_threads is not None
    assert job.run.threads + job.run.decode_threads == cores
    assert job.run.max_workers == group["maxReplicas"]
    assert job.run.device == "cuda"  # 'auto' would see no GPU at the start, and score on processors
    assert job.run.deadline is None  # which would begin anew with each attempt
    assert job.model.is_file
    assert not job.model.trust
    assert job.prices.gpu_hour


def arguments(instruction: str) -> list[str]:
    return [value for name, value in dockerfile() if name == instruction]


def test_the_image_is_pinned_and_not_root() -> None:
    first, *further = arguments("FROM")
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04 AS base", first)
    assert further == ["base AS wheel", "base"]
    (user,) = arguments("USER")
    uid = user.partition(":")[0]
    assert uid.isdecimal()  # by which Kubernetes knows that it is not root
    assert int(uid) > 0
    assert {pod["securityContext"]["runAsUser"] for pod in pods(manifest("RayCluster")["spec"])} == {int(uid)}
    assert arguments("ENTRYPOINT") == ["[]"]
    settings = " ".join(arguments("ENV"))
    assert "RAY_USAGE_STATS_ENABLED=0" in settings
    assert "HF_HUB_OFFLINE=1" in settings


def test_the_image_holds_what_the_package_is_built_from() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    least = re.search('requires-python = ">=3\\.(\\d+)"', pyproject)
    versions = {int(found) for found in re.findall(r"python3\.(\d+)", (RECIPES / "Dockerfile").read_text())}
    assert least is not None
    assert len(versions) == 1
    assert versions.pop() >= int(least[1])
    copied = [name for value in arguments("COPY") if "--from" not in value for name in value.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    needed = {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"}  # LICENSE, README: named in pyproject.toml
    folders = set(re.findall(r'"poolscore\.\w+" = "(\w+)"', pyproject))
    assert set(copied) == needed | folders
    (install,) = (value for value in arguments("RUN") if "pip install" in value)
    (wanted,) = re.findall(r"\[([a-z0-9,]+)\]", install)
    assert {f"{extra} = [" in pyproject for extra in wanted.split(",")} == {True}
    assert f"--constraint /opt/poolscore/{'constraints.txt'}" in install
