"""Run a command as on a fresh machine: Python, make and gcc, no optional tool, no network.

    python tests/bare.py COMMAND...

gcc is kept but makes no 32-bit programs, as on Debian without gcc-multilib. Everything else that
`tools` knows is left out of the PATH. The command runs in a network namespace that has nothing but
loopback; where none can be made, that is said loudly, and only pip is kept from its index.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

HIDDEN = (
    "aarch64-linux-gnu-*", "arm-none-eabi-*", "chrom*", "clang*", "cmake*", "curl", "fish", "ip",
    "ld.lld*", "lld*", "ninja", "nm", "node*", "npm", "npx", "openssl", "qemu-*", "unzip",
    "wasm-ld*", "x86_64-linux-gnu-nm", "zsh",
)  # fmt: skip
"""Patterns of the names of optional programs."""
NARROW = ("cc", "gcc")
"""Compilers that are kept, for 64 bits alone."""

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def bare_path(path: str, folder: Path) -> str:
    """A PATH without the optional programs of `path`; folders that have one are mirrored."""
    entries: list[str] = []
    for number, entry in enumerate(path.split(os.pathsep)):
        programs = os.listdir(entry) if os.path.isdir(entry) else []
        if not any(_is_hidden(name) or name in NARROW for name in programs):
            entries.append(entry)
            continue
        mirror = folder / str(number)
        mirror.mkdir(parents=True)
        for name in programs:
            if name in NARROW:
                _without_32_bits(mirror / name, Path(entry) / name)
            elif not _is_hidden(name):
                (mirror / name).symlink_to(Path(entry) / name)
        entries.append(str(mirror))
    return os.pathsep.join(entries)


def _is_hidden(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in HIDDEN)


def _without_32_bits(path: Path, compiler: Path) -> None:
    """A compiler that says of -m32 what it says without the headers."""
    path.write_text(
        "#!/bin/sh\n"
        'case " $* " in *" -m32 "*)\n'
        '    echo "fatal error: bits/libc-header-start.h: No such file or directory" >&2\n'
        "    exit 1\n"
        "esac\n"
        f'exec {compiler} "$@"\n'
    )
    path.chmod(0o755)


def leave_network() -> str:
    """Move this process to a namespace with loopback alone; why it cannot be done, or nothing."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET) != 0:
        # Whoever is not root may do it in a user namespace, where that is allowed.
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return os.strerror(ctypes.get_errno())
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    return ""


def main() -> int:
    if len(sys.argv) < 2 or shutil.which(sys.argv[1]) is None:
        print(__doc__, file=sys.stderr)
        return 2
    environment = dict(os.environ)
    refusal = leave_network()
    if refusal:
        print(
            f"WARNING: THERE IS A NETWORK HERE ({refusal}): only pip is kept from it",
            file=sys.stderr,
        )
        environment["PIP_NO_INDEX"] = "1"
    with tempfile.TemporaryDirectory(prefix="bare-") as folder:
        environment["PATH"] = bare_path(environment["PATH"], Path(folder))
        with contextlib.suppress(KeyboardInterrupt):
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
    return 130


if __name__ == "__main__":
    sys.exit(main())
