"""What a client process costs: `pullonce pull` of an image that is there, alone and twenty at once.

./dev bench clients
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from pullonce.demo.registry import DemoImage, DemoRegistry

ALONE = 20
MANY = 20


def cpu() -> float:
    """Processor seconds of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(command: list[str], environ: dict[str, str], count: int) -> tuple[float, float]:
    """Processor and wall seconds of `count` processes at once, without those they ask."""
    before, started = cpu(), time.monotonic()
    clients = [subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) for _ in range(count)]
    codes = [client.wait() for client in clients]
    if any(codes):
        raise SystemExit("a pull failed")
    return cpu() - before, time.monotonic() - started


def main() -> None:
    command = str(Path(sys.executable).parent / "pullonce")
    with tempfile.TemporaryDirectory() as home, DemoRegistry(DemoImage()) as registry:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")} | {"PULLONCE_HOME": home}
        up = subprocess.Popen([command, "up"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert up.stdout is not None
        try:
            if not up.stdout.readline():
                raise SystemExit("the services do not start")
            pull = [command, "pull", registry.reference]
            measured(pull, environ, 1)
            floor = median(measured([sys.executable, "-c", "pass"], environ, 1)[0] for _ in range(ALONE))
            alone = [measured(pull, environ, 1) for _ in range(ALONE)]
            many = min(measured(pull, environ, MANY) for _ in range(3))
        finally:
            up.terminate()
            up.wait()
    one = median(each for each, _ in alone), median(wall for _, wall in alone)
    print(f"an empty Python program    {floor * 1e3:7.1f} ms of processor time")
    print(f"one pull of what is there  {one[0] * 1e3:7.1f} ms, {one[1] * 1e3:.1f} ms wall")
    print(f"{MANY} of them at once        {many[0] * 1e3:7.1f} ms, {many[1] * 1e3:.1f} ms wall")


if __name__ == "__main__":
    main()
