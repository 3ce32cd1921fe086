"""Try deploy/Dockerfile where no image can be pulled: carry its steps out in root file systems made by debootstrap.

Run as root on Debian: ``python scripts/try_dockerfile.py FOLDER``. FOLDER/root is the base image, made when it is not
there. The last stage is then mounted read-only and its entry point run in it as its user: the health check must pass,
a request must be answered, SIGTERM must end it with status 0. What this machine needs to reach a package index (its
pip.conf, certificates and ``PIP_…`` variables) is lent to the steps and is no part of the result.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "import dspy\n\nprogram = dspy.Predict('question -> answer')\n"
PORT = 8000


@dataclass
class Stage:
    """A stage of the Dockerfile, with what its steps have set so far."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    folder: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the file's instructions as word and rest."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def lend(stage: Stage) -> dict[str, str]:
    """Put what pip needs to find its index here into a stage, and return the variables that say where it is."""
    lent = stage.root / "run" / "lent"
    shutil.rmtree(lent, ignore_errors=True)
    lent.mkdir(parents=True)
    shutil.copy("/etc/resolv.conf", stage.root / "etc" / "resolv.conf")
    found = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k == "SSL_CERT_FILE"}
    if Path("/etc/pip.conf").exists():
        found.setdefault("PIP_CONFIG_FILE", "/etc/pip.conf")
    for name, value in found.items():
        if value.startswith("/") and Path(value).is_file():
            shutil.copy(value, lent / name)
            found[name] = f"/run/lent/{name}"
    return found


def run_in(stage: Stage, words: list[str], *, env: dict[str, str], read_only: bool = False) -> subprocess.Popen[bytes]:
    """Run a command in a stage's root, in mounts of its own."""
    root = shlex.quote(str(stage.root))
    steps = ["mount --make-rprivate /", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
    steps += [f"mount --bind /dev {root}/dev"]
    if read_only:
        steps += [f"mount -t tmpfs tmpfs {root}/tmp", f"mount -t tmpfs -o uid=10001 tmpfs {root}/data"]
        steps += [f"mount -o remount,ro,bind {root}"]
    inner = f"cd {shlex.quote(stage.folder)} && exec {shlex.join(words)}"
    steps.append(f"exec {shutil.which('chroot')} --userspec={stage.user} {root} /bin/sh -c {shlex.quote(inner)}")
    return subprocess.Popen(["unshare", "-m", "sh", "-ec", "\n".join(steps)], env={**stage.env, **env})


def step(stage: Stage, word: str, rest: str, stages: dict[str, Stage]) -> None:
    """Carry one instruction out."""
    if word == "RUN":
        status = run_in(stage, ["sh", "-ec", rest], env=lend(stage)).wait()
        shutil.rmtree(stage.root / "run" / "lent")
        assert status == 0, f"RUN ended with {status}: {rest}"
    elif word == "COPY":
        *sources, target = rest.split()
        base = ROOT
        if sources[0].startswith("--from="):
            base = stages[sources.pop(0).removeprefix("--from=")].root
        for source in sources:
            # As for COPY, a pattern may find nothing where there is another source.
            found = sorted(base.glob(source)) if "*" in source else [base / source.lstrip("/")]
            for path in found:
                copy(path, stage, target, many=len(sources) > 1 or target.endswith("/"))
    elif word == "ENV":
        stage.env.update(part.split("=", 1) for part in rest.split())
    elif word == "WORKDIR":
        stage.folder = rest
        (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "USER":
        stage.user = rest
    elif word == "ENTRYPOINT":
        stage.entry = json.loads(rest)
    elif word == "CMD":
        stage.command = json.loads(rest)
    elif word == "HEALTHCHECK":
        stage.check = json.loads(rest.partition("CMD ")[2])
    else:
        assert word in ("VOLUME", "EXPOSE", "STOPSIGNAL"), f"{word} is not known here"


def copy(source: Path, stage: Stage, target: str, *, many: bool) -> None:
    """Copy as COPY does: a folder's content, a file into a folder or under a name."""
    inside = stage.root / (Path(stage.folder) / target).relative_to("/")
    if source.is_dir():
        shutil.copytree(source, inside, symlinks=True, dirs_exist_ok=True)
        return
    (inside if many else inside.parent).mkdir(parents=True, exist_ok=True)
    shutil.copy(source, inside)


def build(folder: Path) -> Stage:
    """Carry out all stages and return the last one."""
    base = folder / "root"
    if not base.exists():
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(base)], check=True)
    stages: dict[str, Stage] = {}
    stage = None
    for word, rest in instructions((ROOT / "deploy" / "Dockerfile").read_text()):
        began = time.monotonic()
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            root = folder / name
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "-a", str(base), str(root)], check=True)
            stage = stages[name] = Stage(root)
        else:
            assert stage is not None
            step(stage, word, rest, stages)
        print(f"{time.monotonic() - began:6.1f} s  {word} {rest[:90]}", flush=True)
    assert stage is not None
    return stage


def try_it(stage: Stage) -> None:
    """Run the entry point read-only as its user, ask it, stop it."""
    (stage.root / "app" / "program.py").write_text(PROGRAM)
    env = {"DSPY_LIVE_KEYS": "team=secret", "DSPY_LIVE_SIM": "ttft=0 tps=none jitter=0"}
    words = [*stage.entry, *stage.command, "--sim", "--lame-duck", "0.5"]
    began = time.monotonic()
    server = run_in(stage, words, env=env, read_only=True)
    try:
        while run_in(stage, stage.check, env={}, read_only=True).wait():
            assert server.poll() is None, f"the server ended with {server.returncode}"
            assert time.monotonic() - began < 60, "the health check did not pass"
            time.sleep(0.2)
        print(f"healthy after {time.monotonic() - began:.1f} s")
        headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
        body = json.dumps({"question": "Are you there?"}).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", body, headers)
        with urllib.request.urlopen(asked, timeout=20) as reply:
            print("answered:", sorted(json.loads(reply.read())))
        who = Path(f"/proc/{server.pid}/status").read_text()
        assert re.search(r"^Uid:\s+10001\s+10001", who, re.MULTILINE), who
        server.terminate()
        status = server.wait(60)
        assert status == 0, f"SIGTERM ended it with {status}"
    finally:
        server.kill()
    size = subprocess.run(["du", "-sm", str(stage.root)], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"ended with status 0; the file system has {size} MB")


if __name__ == "__main__":
    try_it(build(Path(sys.argv[1]).resolve()))
