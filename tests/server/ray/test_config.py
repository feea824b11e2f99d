from pathlib import Path

import pytest

from mezzotint.cli.deploy_ray import command
from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.errors import MezzotintError
from mezzotint.server.ray.config import GRPC_PORT, HTTP_PORT, Deployment, Resources, Scale, deployment_of


def test_a_deployment_of_nothing_but_a_bundle_has_the_defaults_of_the_command_line() -> None:
    defaults = {param.name: param.default for param in command.params}
    own = {name: defaults[name] for name in ("replicas", "target_requests", "num_cpus", "num_gpus", "device")}
    limits = {name: defaults[name] for name in ("autoscale", "max_queue_size", "drain_seconds")}
    assert deployment_of("x") == deployment_of("x", **own, **limits) == Deployment(Path("x"))
    assert (defaults["port"], defaults["http_port"]) == (GRPC_PORT, HTTP_PORT)


def test_a_fixed_number_of_replicas_is_one_option_and_a_range_is_another() -> None:
    assert deployment_of("x", replicas=3).options()["num_replicas"] == 3
    scaled = deployment_of("x", replicas=3, autoscale="2:8", target_requests=6).options()
    assert "num_replicas" not in scaled
    assert scaled["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 6}


def test_serve_hands_a_replica_more_than_it_takes_in_so_that_the_replica_refuses() -> None:
    deployment = deployment_of("x", max_queue_size=7)
    core = deployment.server.core
    assert deployment.options()["max_ongoing_requests"] > core.max_queue_size + core.max_started_images


def test_a_replica_gets_as_many_threads_as_ray_sets_cores_aside_and_at_least_one() -> None:
    assert [Resources(num_cpus).num_threads for num_cpus in (0.0, 0.5, 1.0, 3.5, 8.0)] == [1, 1, 1, 3, 8]
    assert deployment_of("x", num_cpus=4.0, device="gpu").load.num_threads == 4
    options = deployment_of("x", num_cpus=4.0, num_gpus=0.5).options()
    assert options["ray_actor_options"] == {"num_cpus": 4.0, "num_gpus": 0.5}


def test_a_replica_that_is_replaced_has_the_time_to_drain() -> None:
    assert deployment_of("x", drain_seconds=77.0).options()["graceful_shutdown_timeout_s"] == 77.0


def test_words_are_at_the_same_path_on_every_node() -> None:
    here = Path.cwd()
    one, two = EmbeddingPath(here / "words"), EmbeddingPath(here / "x.pt", "grim")
    assert deployment_of("x", embedding=["words", "grim=x.pt"]).load.embeddings == (one, two)
    assert deployment_of("x", embedding="words").load.embeddings == (one,)


@pytest.mark.parametrize("text", ["3", "0:2", "4:2", "a:b", "1:2:3", "-1:2", ":"])
def test_a_range_of_replicas_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MezzotintError, match="autoscale="):
        deployment_of("x", autoscale=text)


@pytest.mark.parametrize(
    "wrong", [{"replicas": 0}, {"target_requests": 0}, {"num_cpus": -1.0}, {"num_gpus": float("nan")}]
)
def test_what_no_cluster_has_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(MezzotintError, match="must be"):
        deployment_of("x", **wrong)


def test_a_scale_of_one_number_is_fixed() -> None:
    assert Scale(2, 2).options() == {"num_replicas": 2}
