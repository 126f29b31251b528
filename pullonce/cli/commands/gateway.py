"""How other runtimes come to use pullonce."""

import argparse
import os

from pullonce.cli.commands.arguments import Command, plain_name, subcommands

RUNTIMES = ("containerd", "kubelet", "docker", "podman", "crio", "k3s", "rke2")


def _config(config: argparse.ArgumentParser) -> None:
    config.add_argument("runtime", metavar="RUNTIME", choices=RUNTIMES, help=", ".join(RUNTIMES))
    config.add_argument("--write", action="store_true", help="add it; what is there stays, and of each file a copy is kept")
    config.add_argument(
        "--registry", metavar="HOST", action="append", default=[], help="mirror only this registry (repeatable)"
    )
    config.add_argument(
        "--door", metavar="DOOR", action="append", default=[], choices=("snapshotter", "mirror", "cri", "view"),
        help="use only this door of the gateway: snapshotter, mirror, cri or view (repeatable; default: all that fit)",
    )  # fmt: skip
    _where(config)


def _doctor(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument(
        "runtime", metavar="RUNTIME", nargs="?", default="all", choices=("all", *RUNTIMES),
        help=f"all that are there (default), {', '.join(RUNTIMES)}",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print JSON")
    _where(doctor)


def _where(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--root", metavar="DIR", default="/", help="root file system to look at (default /)")
    sub.add_argument(
        "--config", metavar="FILE", type=os.path.abspath, help="the runtime's main file below the root (default: the usual one)"
    )
    sub.add_argument(
        "--containerd-version", metavar="N", default="", help="of the containerd that reads it (default: what is installed)"
    )
    sub.add_argument(
        "--store", metavar="NAME", type=plain_name, default="", help="store whose gateway it is (default: PULLONCE_STORE)"
    )


def _gateway(gateway: argparse.ArgumentParser) -> None:
    subcommands(
        gateway,
        {
            "config": Command("print what to add to a runtime's configuration, or add it", "gateway:config", _config),
            "doctor": Command("say what keeps a runtime from using pullonce, and how to mend it", "doctor:doctor", _doctor),
        },
    )


COMMANDS = {
    "gateway": Command("have containerd, kubelet, docker, podman, CRI-O and k3s use pullonce", "gateway:config", _gateway),
}
