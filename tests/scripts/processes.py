"""Starting the scripts beside this file as real processes, and ending every one of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"]
RECIPE = SCRIPTS.parent.parent / "recipes" / "launch" / "gpus_fsdp2.yaml"
SHARDS = ["-m", "accelerate.commands.launch", "--config_file", str(RECIPE), "--mixed_precision", "no", "--main_process_port"]
FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_USE_CPU")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextlib.contextmanager
def started(
    script: str, settings: Any, folder: Path, *, launcher: list[str] | None = None, **env: str
) -> Iterator[subprocess.Popen]:
    """The process of ``python [launcher] script settings.json``; whatever it left running is killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("settings-*.json")))
    path = folder / f"settings-{number}.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    plain = {k: v for k, v in os.environ.items() if k not in FOREIGN}
    own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "TQDM_DISABLE": "1", **env}
    log = folder / f"log-{number}.txt"
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, *(launcher or []), str(SCRIPTS / script), str(path)],
            env={**plain, **own},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that a launcher's workers end with it
        )
    process.log = log
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(process: subprocess.Popen, timeout: float = 120) -> None:
    """Wait for a good end; the tail of what it printed is the message of a bad one."""
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        code = f"hangs after {timeout} s"
    assert code == 0, f"{code}: ...{process.log.read_text(encoding='utf-8')[-3000:]}"


def kill_when(
    process: subprocess.Popen,
    moment: Callable[[], bool],
    timeout: float = 120,
    number: int = signal.SIGKILL,
    log: Path | None = None,
) -> None:
    """kill -9, or another signal, as soon as ``moment`` comes; waits for the end."""
    end = time.monotonic() + timeout
    while not moment():
        text = (log or process.log).read_text(encoding="utf-8")[-3000:]
        assert process.poll() is None, f"ended before the moment came: ...{text}"
        assert time.monotonic() < end, f"the moment never came: ...{text}"
        time.sleep(0.002)
    process.send_signal(number)
    process.wait(timeout)
