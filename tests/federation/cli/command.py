"""The command line inside this process: exit code and both outputs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from federation.cli.main import main


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@dataclass(frozen=True, slots=True)
class Cli:
    """Calls `federation ARGUMENTS…`."""

    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Finished:
        self.patch.setattr(sys, "argv", ["federation", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = self.capture.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(left.value.code, int)
        return Finished(left.value.code, out, err)
