"""The real verifiers, asked about chains: what each says of a list of cases, an empty text where it believes.

`folder` is that of one test; programs in Go and Java are compiled once, into the folder of the whole run above it. They
are what a developer's machine has.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pki.certificate import der, pem
from pki.spiffe import TrustDomain
from pki.verifiers import Role

HERE = Path(__file__).parent
PATIENCE = 180.0
"""Seconds that a compiler may take."""


@dataclass(frozen=True)
class Case:
    """What is presented (leaf first) to somebody who holds `anchors` for `trust_domain`."""

    name: str
    presented: tuple[x509.Certificate, ...]
    anchors: tuple[x509.Certificate, ...]
    trust_domain: TrustDomain
    now: datetime
    role: Role = Role.CLIENT


def openssl(cases: Sequence[Case], folder: Path) -> list[str]:
    said = []
    purposes = {Role.CLIENT: "sslclient", Role.SERVER: "sslserver"}
    for case in cases:
        (folder / "anchors.pem").write_bytes(pem(case.anchors))
        (folder / "leaf.pem").write_bytes(pem(case.presented[:1]))
        (folder / "above.pem").write_bytes(pem(case.presented[1:]))
        command = ["openssl", "verify", "-attime", str(int(case.now.timestamp()))]
        command += ["-purpose", purposes[case.role], "-no-CApath", "-no-CAstore"]
        command += ["-CAfile", str(folder / "anchors.pem")]
        if case.presented[1:]:
            command += ["-untrusted", str(folder / "above.pem")]
        done = subprocess.run(
            [*command, str(folder / "leaf.pem")],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        said.append("" if done.returncode == 0 else done.stdout + done.stderr or "refused")
    return said


def pyca(cases: Sequence[Case], _: Path) -> list[str]:
    said = []
    for case in cases:
        try:
            policy = PolicyBuilder().store(Store(list(case.anchors))).time(case.now)
            policy.build_client_verifier().verify(case.presented[0], list(case.presented[1:]))
            said.append("")
        except (VerificationError, ValueError) as error:
            said.append(str(error) or "refused")
    return said


def go(cases: Sequence[Case], folder: Path) -> list[str]:
    asked = [
        {
            "Presented": [base64.b64encode(der(one)).decode() for one in case.presented],
            "Anchors": [base64.b64encode(der(one)).decode() for one in case.anchors],
            "At": int(case.now.timestamp()),
            "Role": case.role.value,
        }
        for case in cases
    ]
    return ask_go(asked, folder)


def ask_go(asked: Sequence[Mapping[str, object]], folder: Path) -> list[str]:
    """Each may carry `Key` and `Pem`, which then have to be a pair."""
    program = folder.parent / "verify-go"
    if not program.exists():
        environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(folder / "go"), "GOFLAGS": ""}
        _run([_found("go"), "build", "-o", str(program), str(HERE / "verify.go")], environment)
        shutil.rmtree(folder / "go", ignore_errors=True)
    answered: list[str] = json.loads(_run([str(program)], given=json.dumps(asked)))
    return answered


def java(cases: Sequence[Case], folder: Path) -> list[str]:
    classes = folder.parent / "verify-java"
    if not classes.exists():
        _run([_found("javac"), "-d", str(classes), str(HERE / "Verify.java")])
    lines = []
    for case in cases:
        presented, anchors = (
            ",".join(base64.b64encode(der(one)).decode() for one in each)
            for each in (case.presented, case.anchors)
        )
        lines.append(f"{int(case.now.timestamp())}\t{presented}\t{anchors}\t{case.role.value}\n")
    return _run(
        [_found("java"), "-Xshare:auto", "-cp", str(classes), "Verify"], given="".join(lines)
    ).splitlines()


def _found(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is needed: without it nobody knows whether the model of its verifier is true"
    return found


def _run(command: Sequence[str], environment: dict[str, str] | None = None, given: str = "") -> str:
    done = subprocess.run(
        command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
