"""The Kubernetes files of ``docs/kubernetes`` say what our command line and code say. They are linted, not applied."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mezzotint.cli import deploy_ray, serve
from mezzotint.server.config import ServerConfig
from mezzotint.server.probes import LIVE, READY
from mezzotint.server.ray.config import GRPC_PORT, HTTP_PORT, deployment_of
from mezzotint.server.ray.deploy import build
from mezzotint.server.ray.door import SERVICER
from tests.test_container import COMPOSE, of_last_stage

FOLDER = Path(__file__).parents[1] / "docs" / "kubernetes"
PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
RAY_KEYS = {"name", "route_prefix", "import_path", "args"}
METRICS_PORT = 8002


def documents(name: str) -> dict[str, dict[str, Any]]:
    """Return the objects of a file by their kind."""
    found = list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))
    return {document["kind"]: document for document in found}


RAY = documents("rayservice.yaml")
PLAIN = documents("server.yaml")
TRITON = yaml.safe_load((FOLDER / "triton-values.yaml").read_text(encoding="utf-8"))
SERVE_CONFIG = yaml.safe_load(RAY["RayService"]["spec"]["serveConfigV2"])
CLUSTER = RAY["RayService"]["spec"]["rayClusterConfig"]
(WORKERS,) = CLUSTER["workerGroupSpecs"]


def pods() -> Iterator[dict[str, Any]]:
    """Yield every pod's spec."""
    yield CLUSTER["headGroupSpec"]["template"]["spec"]
    yield WORKERS["template"]["spec"]
    yield PLAIN["Deployment"]["spec"]["template"]["spec"]
    yield {"containers": [TRITON], "volumes": TRITON["volumes"]}


def worker() -> dict[str, Any]:
    (container,) = WORKERS["template"]["spec"]["containers"]
    return dict(container)


def server() -> dict[str, Any]:
    (container,) = PLAIN["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_ray_service_offers_our_methods_on_our_ports() -> None:
    assert SERVE_CONFIG["grpc_options"] == {"port": GRPC_PORT, "grpc_servicer_functions": [SERVICER]}
    assert SERVE_CONFIG["http_options"]["port"] == HTTP_PORT
    module, _, function = SERVICER.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    for container in (worker(), CLUSTER["headGroupSpec"]["template"]["spec"]["containers"][0]):
        assert {"name": "grpc", "containerPort": GRPC_PORT} in container["ports"]


def test_the_application_is_built_by_our_function_from_options_that_there_are() -> None:
    (application,) = SERVE_CONFIG["applications"]
    assert set(application) == RAY_KEYS
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    assert set(application["args"]) <= {param.name for param in deploy_ray.command.params}
    deployment = deployment_of(**application["args"])
    assert deployment.bundle.name == application["name"], (
        "the application's name is the model's, by which calls are sent"
    )


def test_there_are_nodes_for_as_many_replicas_as_there_may_be_each_with_what_it_needs() -> None:
    scale = deployment_of(**SERVE_CONFIG["applications"][0]["args"]).scale
    resources = deployment_of(**SERVE_CONFIG["applications"][0]["args"]).resources
    assert (WORKERS["minReplicas"], WORKERS["maxReplicas"]) == (scale.least, scale.most)
    assert WORKERS["minReplicas"] <= WORKERS["replicas"] <= WORKERS["maxReplicas"]
    limits = worker()["resources"]["limits"]
    assert float(limits["nvidia.com/gpu"]) == resources.num_gpus
    assert float(limits["cpu"]) > resources.num_cpus, "the proxy and Ray itself need something too"
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no replica on the head"


def test_the_ray_version_is_one_that_the_extra_allows_and_that_was_tried() -> None:
    constraints = (FOLDER.parents[1] / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={CLUSTER['rayVersion']}" in constraints.splitlines()
    assert "ray[serve]>=2.60" in PYPROJECT


def test_a_pod_lives_longer_than_its_replicas_drain() -> None:
    drain = SERVE_CONFIG["applications"][0]["args"]["drain_seconds"]
    assert WORKERS["template"]["spec"]["terminationGracePeriodSeconds"] >= drain + 5
    environment = {entry["name"]: entry["value"] for entry in server()["env"]}
    grace = PLAIN["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= float(environment["MEZZOTINT_SERVE_DRAIN_SECONDS"]) + 5


def test_every_environment_variable_of_the_server_is_one_of_its_options() -> None:
    options = {f"MEZZOTINT_SERVE_{param.name}".upper() for param in serve.command.params}
    assert {entry["name"] for entry in server()["env"]} <= options


def test_probes_ask_what_the_server_answers_and_allow_for_its_start() -> None:
    ports = {port["name"]: port["containerPort"] for port in server()["ports"]}
    assert ports == {"grpc": ServerConfig().port, "metrics": METRICS_PORT}
    (default,) = [param.default for param in serve.command.params if param.name == "metrics_port"]
    assert default == METRICS_PORT
    for probe, path in (("startupProbe", READY), ("readinessProbe", READY), ("livenessProbe", LIVE)):
        assert server()[probe]["httpGet"] == {"path": path, "port": "metrics"}
    startup = server()["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
    assert {entry["name"]: entry["value"] for entry in server()["env"]}["MEZZOTINT_SERVE_METRICS_HOST"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("objects", "template"), [(RAY, WORKERS["template"]), (PLAIN, PLAIN["Deployment"]["spec"]["template"])]
)
def test_a_service_finds_its_pods_and_their_ports(objects: dict[str, Any], template: dict[str, Any]) -> None:
    spec = objects["Service"]["spec"]
    by_hand = {key: value for key, value in spec["selector"].items() if not key.startswith("ray.io/")}
    assert by_hand.items() <= template["metadata"]["labels"].items()
    named = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    for port in spec["ports"]:
        assert named[port["targetPort"]] == port["port"]


def test_the_network_policy_closes_the_port_that_asks_nobody_who_they_are() -> None:
    spec = RAY["NetworkPolicy"]["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= WORKERS["template"]["metadata"]["labels"].items()
    assert spec["ingress"][0]["ports"] == [{"protocol": "TCP", "port": GRPC_PORT}]
    assert all(rule["from"] for rule in spec["ingress"])


@pytest.mark.parametrize("pod", list(pods()))
def test_every_mount_has_a_volume_bundles_are_read_only_and_requests_are_limits(pod: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (container,) = pod["containers"]
    for mount in container["volumeMounts"]:
        claim = volumes[mount["name"]].get("persistentVolumeClaim")
        assert claim is None or (claim["readOnly"] and mount["readOnly"])
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_bundle_lies_where_it_is_mounted() -> None:
    mounts = {mount["mountPath"] for mount in worker()["volumeMounts"]}
    assert str(Path(SERVE_CONFIG["applications"][0]["args"]["bundle"]).parent) in mounts
    environment = {entry["name"]: entry["value"] for entry in server()["env"]}
    mounts = {mount["mountPath"] for mount in server()["volumeMounts"]}
    assert str(Path(environment["MEZZOTINT_SERVE_BUNDLES"]).parent) in mounts
    assert "/cache" in mounts


def test_the_plain_server_runs_as_the_image_and_compose_do() -> None:
    spec = PLAIN["Deployment"]["spec"]["template"]["spec"]
    (user,) = of_last_stage("USER")
    assert spec["securityContext"] == {"runAsUser": int(user), "runAsNonRoot": True}
    assert server()["image"] == COMPOSE["services"]["mezzotint"]["image"]
    assert server()["args"] == COMPOSE["services"]["mezzotint"]["command"]
    assert server()["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_image_is_the_latest() -> None:
    images = [
        container["image"] for pod in pods() for container in pod["containers"] if isinstance(container["image"], str)
    ]
    for image in (*images, TRITON["image"]["imageName"]):
        assert ":" in image
        assert not image.endswith(":latest")


def test_triton_waits_for_what_it_runs_and_reads_the_folder_that_is_mounted() -> None:
    arguments = dict(argument.removeprefix("--").partition("=")[::2] for argument in TRITON["serverArgs"])
    assert {"mountPath": arguments["model-repository"], "name": "models", "readOnly": True} in TRITON["volumeMounts"]
    assert float(arguments["exit-timeout-secs"]) >= ServerConfig().drain_seconds
    assert 1 <= TRITON["autoscaling"]["minReplicas"] <= TRITON["autoscaling"]["maxReplicas"]
