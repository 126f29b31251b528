"""What a container gets that nobody said anything about. Pure.

Sources: OCI runtime-spec 1.0.2, "Default Filesystems"; the defaults that docker, podman and containerd share; capabilities(7).
"""

from typing import Any

VERSION = "1.0.2"
"""Of the runtime-spec: what is used here is in it."""

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
    "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
    "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""All that Linux knows, in its order."""

GIVEN = frozenset(
    (
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
        "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
    )
)  # fmt: skip
"""Those that containers have everywhere."""

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

NETWORK_FILES = ("/etc/hosts", "/etc/resolv.conf")
"""What a container that shares the machine's network shares too."""
QUEUES = ("/dev/shm", "/dev/mqueue")
"""And one that shares its means of talking to each other."""
SHARED = (*NETWORK_FILES, *QUEUES)


def mounts(*, terminals: bool) -> list[dict[str, Any]]:
    """The file systems of every container.

    Args:
        terminals: group 5, that of terminals, is there.
    """
    own = ["nosuid", "noexec", "nodev"]
    group = ["gid=5"] if terminals else []
    return [
        mount("/proc", "proc", "proc", *own),
        mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group),
        mount("/dev/shm", "tmpfs", "shm", *own, "mode=1777", "size=65536k"),
        mount("/dev/mqueue", "mqueue", "mqueue", *own),
        mount("/sys", "sysfs", "sysfs", *own, "ro"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", *own, "relatime", "ro"),
    ]


def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    """One mount, in the runtime's words."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def bound(destination: str, source: str, *options: str) -> dict[str, Any]:
    """A bind mount."""
    return mount(destination, "bind", source, "rbind", "rprivate", *options)
