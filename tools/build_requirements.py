"""Print what the build needs, one requirement a line, for the resolver that locks it."""

import tomllib
from pathlib import Path

print(
    *tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"], sep="\n"
)
