"""A machine like Kaggle's: `python machine.py FOLDER COMMAND...`, within `unshare --mount --net`.

FOLDER appears as /kaggle: `input` read-only, `working` and `temp` writable. All else is unchanged,
except that paths in $HIDDEN are empty and those in $READ_ONLY can't be written. The loopback is the
only network. The command runs there, and its status is returned.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

# An empty folder that every machine has: mounts on it are visible to this process alone.
ROOT = Path("/mnt")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def freeze(path: Path) -> None:
    mount("--bind", path, path)
    mount("-o", "remount,bind,ro", path)


def build_root(root: Path, folder: Path) -> None:
    """Make a root with the content of / and /kaggle, which / itself lacks."""
    mount("-t", "tmpfs", "tmpfs", root)
    for entry in Path("/").iterdir():
        if entry.is_symlink():
            (root / entry.name).symlink_to(entry.readlink())
        elif entry.is_dir() and entry != root:
            (root / entry.name).mkdir()
            mount("--rbind", entry, root / entry.name)
    (root / "kaggle").mkdir(exist_ok=True)
    mount("--bind", folder, root / "kaggle")
    freeze(root / "kaggle" / "input")


def start_loopback() -> None:
    up_and_running, set_flags = 0x1 | 0x40, 0x8914  # IFF_UP | IFF_RUNNING, SIOCSIFFLAGS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", up_and_running))


def main() -> int:
    start_loopback()
    # Mounts stay invisible outside.
    mount("--make-rprivate", "/")
    for path in os.environ.pop("READ_ONLY").split(os.pathsep):
        freeze(Path(path))
    for path in os.environ.pop("HIDDEN").split(os.pathsep):
        mount("-t", "tmpfs", "tmpfs", path)
    build_root(ROOT, Path(sys.argv[1]))
    os.chroot(ROOT)
    os.chdir("/kaggle/working")
    return subprocess.run(sys.argv[2:]).returncode


if __name__ == "__main__":
    sys.exit(main())
