"""The files of ``deploy/``: their commands, ports, probes and times fit the server and each other."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.balancers import program

from dspy_live.cli.app import make_app
from dspy_live.cli.serve_options import LAME_DUCK, ServeOptions
from dspy_live.server.app import _routes
from dspy_live.server.runs.registry import STOP_GRACE
from dspy_live.server.transport.routing import Router
from dspy_live.server.transport.serve import END_SECONDS, KEEP_ALIVE

DEPLOY = Path(__file__).parents[2] / "deploy"
PORT = 8000


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def options(words: list[str]) -> dict[str, Any]:
    """What ``dspy-live`` makes of a command line; one that it does not know fails here."""
    _, bound, _ = make_app().parse_args(words, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return bound.arguments


def last_moment(asked: dict[str, Any]) -> float:
    """Seconds from SIGTERM to the end of the process, at the latest."""
    lame_duck = LAME_DUCK if asked["lame_duck"] is None else asked["lame_duck"]
    drain = ServeOptions.drain if asked["drain"] is None else asked["drain"]
    return float(lame_duck + drain + STOP_GRACE + END_SECONDS)


def seconds(time: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", time).groups()  # type: ignore[union-attr]
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def dockerfile() -> dict[str, str]:
    """The last instruction of each kind."""
    joined = re.sub(r"\\\n", " ", text("Dockerfile"))
    lines = [line.partition(" ") for line in joined.splitlines() if line and not line.startswith("#")]
    return {word: rest for word, _, rest in lines}


def image_command(*args: str) -> list[str]:
    return [*json.loads(dockerfile()["ENTRYPOINT"])[1:], *args]


def manifests() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(text("kubernetes.yaml"))}


def test_the_image_serves_on_the_port_that_it_shows_and_as_nobody_in_particular() -> None:
    file = dockerfile()
    asked = options(image_command(*json.loads(file["CMD"])))
    assert (asked["host"], asked["port"]) == ("0.0.0.0", PORT) == ("0.0.0.0", int(file["EXPOSE"]))
    assert f"127.0.0.1:{PORT}/health/live" in file["HEALTHCHECK"]
    assert file["USER"] == "10001:10001"
    written = [part.partition("=")[2] for part in file["ENV"].split() if part.startswith(("HOME", "DSPY"))]
    assert all(path.startswith(file["VOLUME"]) for path in written)


def test_the_files_of_the_image_are_there() -> None:
    copied = [line.split()[1:-1] for line in text("Dockerfile").splitlines() if line.startswith("COPY ")]
    names = [name for group in copied if not group[0].startswith("--from") for name in group]
    assert names
    optional = {name for name in names if "*" in name}
    assert [name for name in names if name not in optional and not (DEPLOY.parent / name).exists()] == []
    # A pattern that finds nothing is an error, unless another source of the same line is there.
    assert all(set(group) - optional for group in copied)


def test_the_image_is_built_from_all_that_the_wheel_takes_in() -> None:
    """Pages were added to the wheel, and the image could not be built any more."""
    lines = [line.split()[1:-1] for line in text("Dockerfile").splitlines() if line.startswith("COPY ")]
    copied = {name for group in lines for name in group}
    wheel = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    taken = [*wheel["force-include"], *wheel["packages"]]
    assert [path for path in taken if not copied & {path, *map(str, Path(path).parents)}] == []


def test_the_image_takes_the_wheel_that_is_made_for_it(tmp_path: Path) -> None:
    """The pattern of the Dockerfile finds what `make native-wheel` writes for it, and nothing else in that folder."""
    (pattern,) = re.findall(r"^COPY .*?(dist/\S*\*\S*) ", text("Dockerfile"), re.MULTILINE)
    wheel = tmp_path / "dist" / "dspy_live_native-0.1.0-cp311-abi3-manylinux_2_17_x86_64.whl"
    wheel.parent.mkdir()
    wheel.touch()
    (wheel.parent / "dspy_live-0.1.0-py3-none-any.whl").touch()
    (wheel.parent / "dspy_live_native-0.1.0.tar.gz").touch()
    assert list(tmp_path.glob(pattern)) == [wheel]


def test_compose_gives_the_server_its_stores_and_its_time() -> None:
    file = yaml.safe_load(text("compose.yaml"))
    server = file["services"]["server"]
    asked = options(image_command(*server["command"]))
    assert seconds(server["stop_grace_period"]) > last_moment(asked)
    assert server["ports"] == [f"127.0.0.1:{PORT}:{asked['port']}"]
    assert server["read_only"] is True
    stores = [server["environment"][name] for name in ("DSPY_LIVE_CACHE", "DSPY_LIVE_LEDGER")]
    hosts = [re.sub(r"\$\{.*?\}", "x", url).rpartition("@")[2].removeprefix("redis://").split(":")[0] for url in stores]
    assert hosts == ["redis", "postgres"]
    assert set(server["depends_on"]) == set(hosts) <= set(file["services"])
    named = {volume.split(":")[0] for one in file["services"].values() for volume in one.get("volumes", ())}
    assert {name for name in named if name.isidentifier()} == set(file["volumes"])
    program_file = DEPLOY / "../examples/demo.py"
    assert program_file.exists()


def test_the_pods_probes_are_routes_that_ask_for_no_key() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    router = Router(_routes())
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert [probe["path"] for probe in probes] == ["/health/live", "/health/live", "/health/ready"]
    assert all(router.find("GET", probe["path"])[0].open for probe in probes)
    assert {probe["port"] for probe in probes} == {container["ports"][0]["name"]}
    notes = pod["metadata"]["annotations"]
    router.find("GET", notes["prometheus.io/path"])
    assert int(notes["prometheus.io/port"]) == PORT


def test_a_pod_is_out_of_its_service_before_it_refuses_and_gone_before_it_is_killed() -> None:
    spec = manifests()["Deployment"]["spec"]["template"]["spec"]
    container = spec["containers"][0]
    asked = options(image_command(*container["args"]))
    assert container["ports"][0]["containerPort"] == asked["port"] == PORT
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < asked["lame_duck"]
    assert spec["terminationGracePeriodSeconds"] > last_moment(asked)


def test_the_objects_of_the_manifest_name_each_other() -> None:
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    service = found["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    ports = found["Service"]["spec"]["ports"]
    assert (service["name"], service["port"]["name"]) == (found["Service"]["metadata"]["name"], ports[0]["name"])
    pod = found["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert ports[0]["targetPort"] == container["ports"][0]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == dockerfile()["USER"]


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_systemd_takes_the_unit_and_waits_long_enough(tmp_path: Path) -> None:
    unit = text("dspy-live@.service")
    command = re.search(r"^ExecStart=(\S+) (.*)$", unit, re.MULTILINE)
    assert command is not None
    asked = options(shlex.split(command[2].replace("%i", "8001")))
    assert asked["port"] == 8001
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > last_moment(asked)
    here = tmp_path / "dspy-live@.service"
    here.write_text(unit.replace(command[1], str(Path(sys.executable).with_name("dspy-live"))))
    verified = subprocess.run([program("systemd-analyze"), "verify", str(here)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_haproxy_sees_the_end_of_readiness_within_the_lame_duck_time() -> None:
    checks = re.search(r"check inter (\S+) fall (\d+)", text("haproxy.cfg"))
    assert checks is not None
    assert seconds(checks[1]) * (int(checks[2]) + 1) < LAME_DUCK
    kept = re.search(r"timeout http-keep-alive (\S+)", text("haproxy.cfg"))
    assert kept is not None
    assert seconds(kept[1]) < KEEP_ALIVE


def test_both_balancers_write_every_header_that_the_server_believes() -> None:
    for name, word in (("nginx.conf", "proxy_set_header"), ("haproxy.cfg", r"(?:set|del)-header")):
        written = set(re.findall(rf"{word} X-Forwarded-(\w+)", text(name)))
        assert written == {"For", "Proto", "Host", "Prefix"}, name


def test_the_commands_for_compose_name_the_program_by_its_whole_path() -> None:
    """Compose takes a relative path from the folder of its file, where the user's program is not."""
    told = text("compose.yaml") + (DEPLOY.parent / "docs/deploy/docker.md").read_text()
    programs = re.findall(r"PROGRAM=(\S+) .*docker compose -f deploy/compose.yaml", told)
    assert programs == ["$PWD/program.py"] * 2
    source = str(yaml.safe_load(text("compose.yaml"))["services"]["server"]["volumes"][0]).partition(":-")[2]
    assert (DEPLOY / source.partition("}")[0]).is_file(), "its default lies beside the file"
