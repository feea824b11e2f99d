import subprocess
from pathlib import Path

import pytest

from benchmarks.cluster import environment_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RAY_SERVICE = Path(__file__).parents[3] / "docs" / "kubernetes" / "rayservice.yaml"
BUILD = """
import sys
import yaml
from ray.serve.schema import ServeDeploySchema
from mezzotint.server.ray.deploy import build

(service, *_) = yaml.safe_load_all(open(sys.argv[1], encoding="utf-8"))
config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
(function,) = config.grpc_options.grpc_servicer_functions
(application,) = config.applications
print(function, application.import_path, type(build(application.args | {"bundle": sys.argv[2]})).__name__)
"""


def test_serve_reads_the_config_of_the_ray_service_and_makes_its_application_of_a_real_bundle(
    emoji_bundle: Path,
) -> None:
    done = subprocess.run(
        [environment_python(), "-c", BUILD, RAY_SERVICE, emoji_bundle], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "mezzotint.server.ray.door:add_to_server",
        "mezzotint.server.ray.deploy:build",
        "Application",
    ]
