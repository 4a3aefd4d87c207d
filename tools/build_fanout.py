"""Compiles bridge/media/fanout.c to bridge/media/_fanout.so: ``python tools/build_fanout.py``, and for every wheel.

Only a C compiler is needed: neither Python's headers nor OpenSSL's. Where there is none, the package is built
without it, and the relay says at its start that it fans out in Python.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = "bridge/media/_fanout.so"


def build() -> str:
    """Compile; "" or why not. The old library is replaced at once, so that a running process keeps its own."""
    command = [*shlex.split(os.environ.get("CC", "cc")), "-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra"]
    target = ROOT / TARGET
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fanout-") as made_in:
        made = Path(made_in) / target.name
        try:
            result = subprocess.run(  # noqa: S603
                [*command, str(ROOT / "bridge/media/fanout.c"), "-o", str(made), "-ldl"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        if result.returncode:
            return result.stderr.strip() or f"{command[0]} ended with {result.returncode}"
        made.replace(target)
    return ""


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # called by hand
    pass
else:

    class FanOutHook(BuildHookInterface):  # type: ignore[misc,type-arg]
        """hatchling calls it before it packs a wheel, an editable one too."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            reason = build()
            if reason:
                self.app.display_warning(f"eyvan is built without its fan-out in C: {reason}")
                (ROOT / TARGET).unlink(missing_ok=True)
                return
            build_data["artifacts"].append("/" + TARGET)
            if version != "editable":
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{platform}"  # by ctypes: any Python, one kind of machine


if __name__ == "__main__":
    sys.exit(build() or 0)
