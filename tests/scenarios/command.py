"""The command line, as a user runs it: a process of its own, its exit code and what it says."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)

    @property
    def said(self) -> str:
        return self.out + self.err


async def federation(
    *arguments: str | Path, environment: dict[str, str] | None = None, limit: str = ""
) -> Finished:
    """`federation ARGUMENTS…` until it ends by itself; `limit` is a line of shell before it, such as `ulimit -f 1`."""
    argv = [sys.executable, "-m", "federation.cli.main", *map(str, arguments)]
    if limit:
        argv = ["/bin/sh", "-c", f'{limit}; exec "$@"', "sh", *argv]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean(environment),
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"{argv} did not end: {out.decode()}{err.decode()}") from None
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def clean(environment: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of this process, without what the user at this machine may have set for the command line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
    return {
        **kept,
        "NO_COLOR": "1",
        "XDG_CONFIG_HOME": "/nonexistent",
        **(environment or {}),
    }
