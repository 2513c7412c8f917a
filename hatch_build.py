"""Builds the compiled drift kernels where there is a C compiler; without one, installs without them."""

import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "retrain_assets/drift"
FLAGS = ["-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"]


class KernelsBuildHook(BuildHookInterface):  # type: ignore[misc]
    """`_kernels.so` beside `_kernels.c`; it uses no Python headers, so it serves every version."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the result into the wheel; a failure only costs speed."""
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
        if self.target_name != "wheel" or sys.platform == "win32" or not compiler:
            return
        source, target = (Path(self.root, FOLDER, name) for name in ("_kernels.c", "_kernels.so"))
        command = [*compiler.split(), *FLAGS, str(source), "-o", str(target), "-lm"]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            warnings.warn(
                f"drift kernels not compiled, numpy is used: {built.stderr}", stacklevel=1
            )
            return
        build_data["artifacts"].append(f"/{FOLDER}/_kernels.so")
        if version != "editable":
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
