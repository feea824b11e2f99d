"""``Dockerfile`` and ``compose.yaml``: read as text, and their commands run where no container runtime is needed."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
INSTRUCTIONS = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "VOLUME", "USER", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}  # fmt: skip
# Those keys of the Compose specification that the file may use; a mistyped one is in none of them.
KEYS = {
    "": {"services", "volumes", "configs"},
    "service": {
        *("build", "image", "command", "environment", "ports", "volumes", "read_only", "tmpfs", "cap_drop", "user"),
        *("security_opt", "healthcheck", "stop_grace_period", "restart", "deploy", "depends_on", "configs", "profiles"),
    },
    "healthcheck": {"test", "interval", "timeout", "start_period", "retries"},
    "volume": {"type", "source", "target", "read_only"},
    "limits": {"cpus", "memory"},
}  # fmt: skip
OTHER_USER = 10001


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions in their order, with lines that go on joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def of_last_stage(word: str) -> list[str]:
    return [rest for found, rest in stages()[-1] if found == word]


def ignored(name: str) -> bool:
    """Whether ``.dockerignore``, which lets in what it names alone, keeps a top-level path out of the build."""
    return f"!{name}" not in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_every_instruction_is_one_and_every_base_is_pinned_and_slim() -> None:
    assert {word for word, _ in instructions()} == INSTRUCTIONS
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", bases.pop())
    assert "latest" not in DOCKERFILE


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    names = set()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            names |= set(rest.split()[:-1])
    assert {"pyproject.toml", "src"} <= names
    for name in names:
        assert (ROOT / name).exists(), name
        assert not ignored(name), name
    packages = {path.resolve().name for path in (ROOT / "src" / "mezzotint").iterdir() if path.is_symlink()}
    assert packages <= names


def test_what_comes_from_another_stage_was_made_there() -> None:
    made = " ".join(rest for _, rest in stages()[0])
    (copied,) = [rest for rest in of_last_stage("COPY") if rest.startswith("--from=build ")]
    assert copied.split()[1] in made


def test_the_extra_that_is_installed_exists_and_nothing_is_left_in_a_cache() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    commands = [rest for word, rest in instructions() if word == "RUN" and "pip" in rest]
    assert commands
    assert {name for command in commands for name in re.findall(r"\[([a-z]+)\]", command)} == {"serve"} <= set(extras)
    assert all("--no-cache-dir" in command for command in commands)


def test_the_server_runs_as_somebody_without_rights_and_is_asked_how_it_is() -> None:
    (user,) = of_last_stage("USER")
    assert user == str(OTHER_USER)
    (check,) = of_last_stage("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2]) == ["mezzotint", "health", "localhost:8001"]
    assert of_last_stage("STOPSIGNAL") == ["SIGTERM"]
    assert of_last_stage("EXPOSE") == ["8001"]
    cache = re.search(r"XDG_CACHE_HOME=(\S+)", of_last_stage("ENV")[0])
    assert cache is not None
    assert json.loads(of_last_stage("VOLUME")[0]) == [cache[1]]


def test_every_key_of_the_compose_file_is_one() -> None:
    assert set(COMPOSE) <= KEYS[""]
    for service in COMPOSE["services"].values():
        assert set(service) <= KEYS["service"]
        assert set(service.get("healthcheck", {})) <= KEYS["healthcheck"]
        assert set(service.get("deploy", {})) <= {"resources"}
        assert set(service.get("deploy", {}).get("resources", {}).get("limits", {})) <= KEYS["limits"]
        assert "latest" not in service["image"]
        for volume in service["volumes"]:
            if isinstance(volume, dict):
                assert set(volume) <= KEYS["volume"]
            else:
                assert volume.split(":")[0] in COMPOSE["volumes"]


def test_compose_gives_a_server_no_more_than_it_needs() -> None:
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    server = COMPOSE["services"]["mezzotint"]
    assert server["tmpfs"] == ["/tmp"]
    (bundle,) = [volume for volume in server["volumes"] if isinstance(volume, dict)]
    assert bundle["read_only"] is True
    assert f"MEZZOTINT_SERVE_BUNDLES={bundle['target']}" in of_last_stage("ENV")[0]
    assert f"cache:{json.loads(of_last_stage('VOLUME')[0])[0]}" in server["volumes"]
    check = of_last_stage("HEALTHCHECK")[0].partition("CMD ")[2]
    assert server["healthcheck"]["test"] == ["CMD", *json.loads(check)]


def test_prometheus_asks_the_port_that_the_server_answers_on_and_grafana_asks_prometheus() -> None:
    from mezzotint.cli.serve import command

    (port,) = [param.default for param in command.params if param.name == "metrics_port"]
    texts = {
        name: config.get("content") or (ROOT / config["file"]).read_text(encoding="utf-8")
        for name, config in COMPOSE["configs"].items()
    }
    configs = {name: yaml.safe_load(text) for name, text in texts.items()}
    (job,) = configs["prometheus"]["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"mezzotint:{port}"]}]
    assert configs["datasource"]["datasources"][0]["url"] == "http://prometheus:9090"
    targets = {config["source"]: config["target"] for config in COMPOSE["services"]["grafana"]["configs"]}
    (provider,) = configs["dashboards"]["providers"]
    assert targets["dashboard"].startswith(f"{provider['options']['path']}/")
    assert configs["dashboard"]["title"] == "Mezzotint"
    assert COMPOSE["services"]["mezzotint"]["environment"]["MEZZOTINT_SERVE_METRICS_HOST"] == "0.0.0.0"
    for service in COMPOSE["services"].values():
        assert {config["source"] for config in service.get("configs", [])} <= set(configs)


def test_compose_waits_longer_than_the_server_drains() -> None:
    server = COMPOSE["services"]["mezzotint"]
    drain = float(server["environment"]["MEZZOTINT_SERVE_DRAIN_SECONDS"])
    assert float(server["stop_grace_period"].removesuffix("s")) >= drain + 5


def test_every_environment_variable_of_the_server_is_one_of_its_options() -> None:
    from mezzotint.cli.serve import command

    options = {f"MEZZOTINT_SERVE_{param.name}".upper() for param in command.params}
    used = set(re.findall(r"MEZZOTINT_SERVE_\w+", DOCKERFILE)) | set(COMPOSE["services"]["mezzotint"]["environment"])
    assert used <= options


class Image:
    """What the Dockerfile makes, in a folder instead of a container."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def inside(self, text: str) -> str:
        """Return a text whose absolute paths lie in this folder, and whose port is a free one."""
        text = re.sub(r"(?<![\w.])/(?=(source|wheels|opt|cache|bundle)\b)", f"{self.folder}/", text)
        return text.replace("8001", str(self.port))

    def build(self) -> None:
        """Carry out the first stage, with this machine's Python as the base."""
        source = self.folder / "source"
        source.mkdir()
        for word, rest in stages()[0]:
            if word == "COPY":
                self._copy(rest.split(), source)
            elif word == "RUN":
                command = re.sub(r"^python\b", sys.executable, self.inside(rest))
                environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
                done = subprocess.run(
                    ["sh", "-ec", command], cwd=source, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def _copy(self, paths: list[str], source: Path) -> None:
        for name in paths[:-1]:
            if (ROOT / name).is_dir():
                skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(ROOT / name, source / paths[-1], symlinks=True, ignore=skip)
            else:
                shutil.copy(ROOT / name, source / paths[-1])

    @property
    def environment(self) -> dict[str, str]:
        (values,) = of_last_stage("ENV")
        found = dict(part.split("=", 1) for part in shlex.split(values))
        found["PATH"] = found["PATH"].replace("$PATH", os.environ["PATH"])
        own = {"MEZZOTINT_SERVE_HOST": "127.0.0.1", "MEZZOTINT_SERVE_PORT": str(self.port), "HOME": "/nonexistent"}
        return {key: self.inside(value) for key, value in found.items()} | own


@pytest.fixture(scope="module")
def image(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    made = Image(folder)
    made.build()
    shutil.copytree(emoji_bundle, folder / "bundle")
    return made


READ_ONLY = """\
mount --bind "$1" "$1"
mount -o remount,ro,bind /
cd /
shift
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


def confined(writable: Path, *command: str | Path) -> list[str | Path]:
    """Return a command that runs without rights, under a root that is read-only but for one folder, as in compose."""
    return ["unshare", "--mount", "sh", "-ec", READ_ONLY, "confined", writable, *command]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_dockerfile_builds_serves_where_nothing_but_the_cache_can_be_written(image: Image) -> None:
    cache = image.folder / "cache"
    cache.mkdir()
    options = {"env": image.environment, "capture_output": True, "text": True, "check": False}
    tried = subprocess.run(confined(cache, "touch", image.folder / "x", cache / "x"), **options)  # type: ignore[call-overload]
    if "Read-only file system" not in tried.stderr:
        pytest.skip(f"this machine gives no mount namespace: {tried.stderr}")
    assert [path.name for path in cache.iterdir()] == ["x"]
    (entry,), (arguments,) = of_last_stage("ENTRYPOINT"), of_last_stage("CMD")
    program = image.folder / "opt" / "mezzotint" / "bin" / json.loads(entry)[0]
    check = json.loads(image.inside(of_last_stage("HEALTHCHECK")[0].partition("CMD ")[2]))
    command = confined(cache, program, *json.loads(arguments))
    with subprocess.Popen(command, env=image.environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "serving on" in server.stdout.readline()
            asked = subprocess.run([program, *check[1:]], **options)  # type: ignore[call-overload]
            assert asked.returncode == 0, asked.stderr
        finally:
            server.terminate()
    assert server.returncode == 0
    assert subprocess.run([program, *check[1:]], **options).returncode == 1  # type: ignore[call-overload]
    assert any(path.is_file() for path in cache.rglob("mezzotint/**/*"))
