"""The ceremony at the machine of the root: files in, files out, no process."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from pki import csr, journal
from pki.algorithms import spki_hash
from pki.bundle import FIRST_SEQUENCE, Bundle
from pki.ceremony import (
    Answers,
    NextRoot,
    Request,
    Requests,
    aloud,
    decode,
    encode,
    fingerprint,
    fingerprint_of,
    open_answers,
)
from pki.certificate import load_pem
from pki.constraints import permitting
from pki.durable import private_folder
from pki.following import read_next
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase
from pki.profiles import ROOT
from pki.rooted import is_rooted
from pki.spiffe import TrustDomain
from tests.federation.cli.command import Cli, Finished
from tests.pki.world import BASE, Ca, World


class Safe:
    """The machine of the root."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self.cli = cli
        self.folder = folder
        self.secret = folder / "passphrase"
        self.secret.touch(0o600)
        self.secret.write_text("correct horse battery staple\n")

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def init(self, *more: object) -> Finished:
        given = ("--base", BASE, "--out", self.root, "--passphrase-file", self.secret, *more)
        return self.cli("ca", "init", "--offline", *given)

    def sign(self, *given: object) -> Finished:
        return self.cli("ca", "sign", "--root", self.root, "--passphrase-file", self.secret, *given)

    def asking(self, name: str, *cas: Ca, base: str = BASE) -> tuple[Path, str]:
        """A file of requests, and its fingerprint."""
        wanted = tuple(
            Request(ca.trust_domain.name, csr.request(ca.key, ca.self_signed.subject)) for ca in cas
        )
        file = Requests(base=base, made_at=datetime.now(UTC), requests=wanted)
        (self.folder / name).write_bytes(encode(file))
        return self.folder / name, fingerprint(file)


@pytest.fixture
def safe(cli: Cli, tmp_path: Path) -> Safe:
    found = Safe(cli, tmp_path)
    assert found.init("-o", "json").code == 0
    return found


def test_a_root_is_made_encrypted_for_its_owner_alone_and_never_replaced(
    cli: Cli, tmp_path: Path, hardened: list[bool]
) -> None:
    safe = Safe(cli, tmp_path)
    made = safe.init("-o", "json")
    assert made.code == 0, made.err
    assert hardened, "the passphrase and the key are nobody else's to read"
    (root,) = load_pem((safe.root / "root" / "self-signed.pem").read_bytes())
    assert (root.not_valid_after_utc - root.not_valid_before_utc).days == ROOT.lifetime.days
    assert [
        path.stat().st_mode & 0o777 for path in (safe.root, safe.root / "root", safe.root / "root-keys")
    ] == [0o700] * 3
    (key,) = (safe.root / "root-keys").iterdir()
    assert key.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert key.stat().st_mode & 0o777 == 0o600
    again = safe.init()
    assert again.code == 1
    assert "never replaced" in again.err
    assert load_pem((safe.root / "root" / "self-signed.pem").read_bytes()) == (root,)


def test_a_root_whose_making_was_interrupted_is_begun_anew_and_what_is_left_of_it_is_named(
    cli: Cli, tmp_path: Path
) -> None:
    """A key of another passphrase that has no journal may go; one that has may have signed something."""
    safe = Safe(cli, tmp_path)
    before = FileKeyStore(private_folder(safe.root) / "root-keys", Passphrase.of(b"one before", "a test"))
    asyncio.run(before.create("ca-1"))
    (key,) = (safe.root / "root-keys").iterdir()
    refused = safe.init()
    assert refused.code == 1
    assert f"{key}: is not opened by the passphrase that is set" in refused.err
    assert "rest of an attempt that was interrupted" in refused.err
    assert "remove it" in refused.err
    private_folder(safe.root / "root")
    (safe.root / "root" / "journal").touch(0o600)
    signed = safe.init()
    assert signed.code == 1
    assert "remove it" not in signed.err
    (safe.root / "root" / "journal").unlink()
    key.unlink()
    assert safe.init().code == 0


def test_what_is_signed_is_shown_and_answers_those_who_asked(safe: Safe, world: World) -> None:
    file, digest = safe.asking("hub.requests", world.hub, world.east)
    done = safe.sign(file, "--out", safe.folder / "answers", "--expect", aloud(digest).upper(), "--yes")
    assert done.code == 0, done.err
    shown = done.out + done.err
    assert aloud(digest) in shown
    assert "hub.mesh.example" in shown
    assert "east.mesh.example" in shown
    answers = decode((safe.folder / "answers").read_bytes(), Answers)
    opened = open_answers(answers, BASE, None, datetime.now(UTC))
    for ca in (world.hub, world.east):
        assert is_rooted(ca.self_signed, opened.signed[ca.trust_domain], opened.root)
    lines = (safe.root / "root" / "journal").read_text()
    assert f"ceremony, requests {digest[:16]}" in lines
    journal.verify(safe.root / "root" / "journal", spki_hash(opened.root.public_key()))


def test_c10_a_root_signs_with_name_constraints_if_it_is_told_to(safe: Safe, world: World) -> None:
    file, digest = safe.asking("hub.requests", world.east)
    given = (file, "--out", safe.folder / "answers", "--expect", digest, "--yes", "--name-constraints")
    assert safe.sign(*given).code == 0
    answers = decode((safe.folder / "answers").read_bytes(), Answers)
    opened = open_answers(answers, BASE, None, datetime.now(UTC))
    signed = opened.signed[world.east.trust_domain]
    found = signed.extensions.get_extension_for_class(x509.NameConstraints)
    assert (found.critical, found.value) == (True, permitting(world.east.trust_domain))
    assert is_rooted(world.east.self_signed, signed, opened.root)


def test_several_files_become_one(safe: Safe, world: World) -> None:
    files = [safe.asking(name, ca) for name, ca in (("a", world.hub), ("b", world.west))]
    expected = [word for _, digest in files for word in ("--expect", digest)]
    done = safe.sign(*(path for path, _ in files), "--out", safe.folder / "answers", *expected, "-o", "json")
    assert done.code == 0, done.err
    assert [one["trust_domain"] for one in done.json["signs"]] == ["hub.mesh.example", "west.mesh.example"]


@pytest.mark.parametrize(
    "expect", [(), ("--yes",), ("--expect", "00" * 32), ("--expect", "00" * 32, "--yes")]
)
def test_nothing_is_signed_that_nobody_has_compared(
    safe: Safe, world: World, expect: tuple[str, ...]
) -> None:
    """Standard input is empty here: no answer is no."""
    file, _ = safe.asking("east.requests", world.east)
    before = (safe.root / "root" / "journal").read_bytes()
    done = safe.sign(file, "--out", safe.folder / "answers", *expect)
    assert done.code == 1
    assert not (safe.folder / "answers").exists()
    assert (safe.root / "root" / "journal").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file | {"version": 2}, "of version 2"),
        (lambda file: file | {"kind": "federation-ca-answers"}, "holds answers of a root"),
        (lambda file: file | {"fingerprint": "ab" * 32}, "damaged or was changed"),
        (
            lambda file: file | {"content": file["content"] | {"base": "other.example"}},
            "damaged or was changed",
        ),
        (lambda file: [file], "no file of a ceremony"),
    ],
    ids=["version", "kind", "fingerprint", "content", "shape"],
)
def test_a_file_that_is_not_as_it_was_made_is_refused_by_name(
    safe: Safe, world: World, change: object, said: str
) -> None:
    file, digest = safe.asking("east.requests", world.east)
    assert callable(change)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    done = safe.sign(file, "--out", safe.folder / "answers", "--expect", digest, "--yes")
    assert done.code == 2
    assert str(file) in done.err
    assert said in done.err
    assert "hint: " in done.err


def test_a_request_that_the_rule_of_the_root_refuses_is_not_signed(safe: Safe, world: World) -> None:
    """Right in every respect but its name, which is west's."""
    file, _ = safe.asking("east.requests", world.east)
    content = decode(file.read_bytes(), Requests)
    forged = msgspec.structs.replace(
        content, requests=(Request(world.west.trust_domain.name, content.requests[0].csr),)
    )
    file.write_bytes(encode(forged))
    done = safe.sign(file, "--out", safe.folder / "answers", "--expect", fingerprint(forged), "--yes")
    assert done.code == 1
    assert f"{file}: west.mesh.example: csr: its subject is not that of an authority of" in done.err


def test_of_several_files_the_one_that_is_refused_is_named_with_who_asks_in_it(
    safe: Safe, world: World
) -> None:
    """As a program of somebody else might ask: for a subject of its own."""
    good, first = safe.asking("good.requests", world.hub, world.west)
    bad, _ = safe.asking("bad.requests", world.hub, world.east)
    content = decode(bad.read_bytes(), Requests)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "east")])
    theirs = Request(world.east.trust_domain.name, csr.request(world.east.key, subject))
    forged = msgspec.structs.replace(content, requests=(content.requests[0], theirs))
    bad.write_bytes(encode(forged))
    expected = ("--expect", first, "--expect", fingerprint(forged), "--yes")
    done = safe.sign(good, bad, "--out", safe.folder / "answers", *expected)
    assert done.code == 1
    assert f"{bad}: east.mesh.example: csr: its subject carries no epoch" in done.err


def test_another_key_for_a_name_is_signed_only_in_a_higher_epoch(safe: Safe, world: World) -> None:
    """The journal remembers, also what other files asked for; the same key may be signed again."""
    domain = world.east.trust_domain
    made = [
        safe.asking(name, ca)
        for name, ca in (
            ("first", world.east),
            ("again", world.east),
            ("other", world.authority(domain)),
            ("newer", world.authority(domain, epoch=2)),
        )
    ]
    done = [
        safe.sign(file, "--out", file.with_suffix(".answers"), "--expect", digest, "--yes")
        for file, digest in made
    ]
    assert [one.code for one in done] == [0, 0, 1, 0]
    for one, before in zip(
        (done[0], done[1], done[3]), ("nothing", "the same key", "the key of epoch 1"), strict=True
    ):
        assert before in one.out
    assert (
        "epoch: it is 1, and another key was signed for spiffe://east.mesh.example in epoch 1" in done[2].err
    )


def test_a_request_for_another_federation_is_not_signed(safe: Safe, world: World) -> None:
    file, digest = safe.asking("east.requests", world.east, base="other.example")
    done = safe.sign(file, "--out", safe.folder / "answers", "--expect", digest, "--yes")
    assert done.code == 2
    assert f"{file}: it is of the federation other.example, and this root of {BASE}" in done.err


def test_a_clock_that_is_behind_the_request_is_told_and_nothing_signed(safe: Safe, world: World) -> None:
    """A machine without a network has nobody who corrects its clock, and what it signs would have ended too early."""
    file, _ = safe.asking("east.requests", world.east)
    content = decode(file.read_bytes(), Requests)
    later = msgspec.structs.replace(content, made_at=datetime.now(UTC) + timedelta(days=2))
    file.write_bytes(encode(later))
    done = safe.sign(file, "--out", safe.folder / "answers", "--expect", fingerprint(later), "--yes")
    assert done.code == 1
    assert " s behind the request that is to be signed" in done.err
    assert not (safe.folder / "answers").exists()


def test_a_wrong_passphrase_changes_nothing(safe: Safe, world: World) -> None:
    file, digest = safe.asking("east.requests", world.east)
    safe.secret.write_text("something else\n")
    done = safe.sign(file, "--out", safe.folder / "answers", "--expect", digest, "--yes")
    assert done.code == 1
    assert "passphrase" in done.err
    assert not (safe.folder / "answers").exists()


@pytest.mark.parametrize(
    ("secret", "said"), [(b"a", "shorter than 8 characters"), (b"\xff" * 12, "not UTF-8")]
)
def test_a_new_root_takes_no_passphrase_that_is_guessed_or_that_nobody_can_type(
    cli: Cli, tmp_path: Path, secret: bytes, said: str
) -> None:
    safe = Safe(cli, tmp_path)
    safe.secret.write_bytes(secret + b"\n")
    refused = safe.init()
    assert refused.code == 1
    assert str(safe.secret) in refused.err
    assert said in refused.err
    assert not safe.root.exists()


def test_an_answer_never_replaces_a_file(safe: Safe, world: World) -> None:
    file, digest = safe.asking("east.requests", world.east)
    assert safe.sign(file, "--out", file, "--expect", digest, "--yes").code == 2
    assert decode(file.read_bytes(), Requests).base == BASE


def test_no_signature_is_spent_where_the_answers_could_not_be_kept(
    safe: Safe, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is asked for a passphrase before: the one here is wrong."""
    file, digest = safe.asking("east.requests", world.east)
    before = (safe.root / "root" / "journal").read_bytes()
    safe.secret.write_text("something else\n")
    names = sorted(path.name for path in safe.folder.iterdir())

    def refused(out: Path, why: str) -> None:
        done = safe.sign(file, "--out", out, "--expect", digest, "--yes")
        assert done.code == 1
        assert f"{out}: {why}" in done.err
        assert (safe.root / "root" / "journal").read_bytes() == before
        assert sorted(path.name for path in safe.folder.iterdir()) == names

    refused(safe.folder / "none" / "answers", "No such file or directory")
    refused(safe.secret / "answers", "Not a directory")

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    refused(safe.folder / "answers", "No space left on device")


@pytest.mark.parametrize("base", ["Mesh.example", "", "a..b", "*.example"])
def test_a_base_that_cannot_be_is_wrong_usage(cli: Cli, tmp_path: Path, base: str) -> None:
    done = cli("ca", "init", "--offline", "--base", base, "--out", tmp_path / "root")
    assert done.code == 2
    assert not (tmp_path / "root").exists()


def organisation(folder: Path, days: int = 3650) -> tuple[Path, Path]:
    """Certificate and key of a root as OpenSSL makes it."""
    certificate, key = folder / "corp.pem", folder / "corp.key"
    key.touch(0o600)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-noenc"]
    command += ["-subj", "/O=Example Ltd", "-days", str(days), "-keyout", str(key), "-out", str(certificate)]
    command += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_a_root_of_an_organisation_signs_from_its_new_folder(cli: Cli, tmp_path: Path, world: World) -> None:
    safe = Safe(cli, tmp_path)
    certificate, key = organisation(tmp_path)
    (root,) = load_pem(certificate.read_bytes())
    given = ("--key", key, "--base", BASE, "--out", safe.root, "--passphrase-file", safe.secret)
    taken = cli("ca", "import-root", certificate, *given, "--expect", fingerprint_of(root))
    assert taken.code == 0, taken.err
    assert all("ENCRYPTED" in path.read_text() for path in (safe.root / "root-keys").iterdir())
    file, digest = safe.asking("east.requests", world.east)
    done = safe.sign(file, "--out", tmp_path / "answers", "--expect", digest, "--yes")
    assert done.code == 0, done.err
    opened = open_answers(decode((tmp_path / "answers").read_bytes(), Answers), BASE, root, datetime.now(UTC))
    assert is_rooted(world.east.self_signed, opened.signed[world.east.trust_domain], root)
    other, digest = safe.asking("other.requests", world.east, base="other.example")
    refused = safe.sign(other, "--out", tmp_path / "more", "--expect", digest, "--yes")
    assert f"{other}: it is of the federation other.example, and this root of {BASE}" in refused.err
    assert (
        "never replaced"
        in cli("ca", "import-root", certificate, *given, "--expect", fingerprint_of(root)).err
    )


def test_a_root_that_breaks_a_rule_is_not_imported_and_told_why(cli: Cli, tmp_path: Path) -> None:
    certificate, key = organisation(tmp_path, days=30)
    given = ("--key", key, "--base", BASE, "--out", tmp_path / "root")
    refused = cli("ca", "import-root", certificate, *given)
    assert refused.code == 2
    assert str(certificate) in refused.err
    assert "days left, and what it signs lives for 366" in refused.err
    assert not (tmp_path / "root").exists()


def test_a_key_of_another_root_or_one_that_others_may_read_is_refused(cli: Cli, tmp_path: Path) -> None:
    safe = Safe(cli, tmp_path)
    certificate, key = organisation(tmp_path)
    digest = fingerprint_of(load_pem(certificate.read_bytes())[0])
    given = ("--base", BASE, "--out", safe.root, "--passphrase-file", safe.secret, "--expect", digest)
    (tmp_path / "other").mkdir()
    _, other = organisation(tmp_path / "other")
    unasked = cli("ca", "import-root", certificate, "--key", other, *given[:-2])
    assert unasked.code == 2
    assert f"{other}: is not the key of {certificate}" in unasked.err
    assert aloud(digest) not in unasked.err, "nobody is asked about a root that cannot be taken"
    key.chmod(0o644)
    loose = cli("ca", "import-root", certificate, "--key", key, *given)
    assert loose.code == 1
    assert "lets others in" in loose.err
    assert not safe.root.exists()
    key.chmod(0o600)
    elsewhere = cli("ca", "import-root", certificate, "--key", key, *given, "--base", "UPPER!")
    assert elsewhere.code == 2
    assert "'UPPER!' cannot be the base of trust domains; allowed: a DNS name in lower case" in elsewhere.err
    assert not safe.root.exists()


def test_a_file_with_more_than_the_certificate_is_no_root(cli: Cli, tmp_path: Path) -> None:
    certificate, key = organisation(tmp_path)
    digest = fingerprint_of(load_pem(certificate.read_bytes())[0])
    alone = certificate.read_bytes()
    given = ("--key", key, "--base", BASE, "--out", tmp_path / "root", "--expect", digest)
    for more in (alone + b"garbage\n", alone + key.read_bytes(), b"garbage\n" + alone):
        certificate.write_bytes(more)
        refused = cli("ca", "import-root", certificate, *given)
        assert refused.code == 2
        assert f"{certificate}: holds more than a certificate" in refused.err
        assert "PRIVATE KEY" not in refused.err
    assert not (tmp_path / "root").exists()


def test_a_root_hands_over_to_the_next_one(safe: Safe, cli: Cli, world: World) -> None:
    """What comes out leads a hub from one to the other; a second file, for the same root, leads on from the first."""
    new, files = safe.folder / "root-2", [safe.folder / "next.root", safe.folder / "again.root"]
    given = ("--out", new, "--follows", safe.root)
    (old,) = load_pem((safe.root / "root" / "self-signed.pem").read_bytes())
    held = Bundle(TrustDomain.parse(BASE), FIRST_SEQUENCE, (old,))
    for number, file in enumerate(files):
        made = safe.init(*given, "--hand-over", file, "-o", "json")
        assert made.code == 0, made.err
        (root,) = load_pem((new / "root" / "self-signed.pem").read_bytes())
        assert made.json["fingerprint"] == fingerprint_of(root)
        assert made.json["follows"] == fingerprint_of(old)
        found = read_next(decode(file.read_bytes(), NextRoot), BASE, held, datetime.now(UTC))
        assert found.certificate == root
        assert [version.sequence - 4 * number for version in found.versions] == [2, 3, 4, 5]
    request, digest = safe.asking("east.requests", world.east)
    signed = cli(
        *(
            "ca",
            "sign",
            request,
            "--root",
            new,
            "--out",
            safe.folder / "answers",
            "--expect",
            digest,
            "--yes",
        ),
        *("--passphrase-file", safe.secret),
    )
    assert signed.code == 0, signed.err


def test_a_root_follows_no_other_without_a_file_and_the_key_of_that_one(safe: Safe, cli: Cli) -> None:
    new, file = safe.folder / "root-2", safe.folder / "next.root"
    alone = safe.init("--follows", safe.root)
    assert (alone.code, "belong together" in alone.err) == (2, True), alone.err
    itself = safe.init("--follows", safe.root, "--hand-over", file)
    assert (itself.code, "the folder of the root before" in itself.err) == (2, True), itself.err
    other = safe.folder / "other"
    other.touch(0o600)
    other.write_text("not the one\n")
    given = ("--base", BASE, "--out", new, "--follows", safe.root, "--hand-over", file)
    wrong = cli("ca", "init", "--offline", *given, "--passphrase-file", other)
    assert (wrong.code, "passphrase" in wrong.err) == (1, True), wrong.err
    assert not file.exists()
    assert not new.exists(), "nothing was changed"
    own = cli(
        *("ca", "init", "--offline", *given, "--passphrase-file", other),
        *("--follows-passphrase-file", safe.secret),
    )
    assert own.code == 0, own.err
    again = safe.init("--follows", safe.root, "--out", new, "--hand-over", file)
    assert (again.code, "exists already" in again.err) == (2, True), again.err


def test_a_root_of_an_organisation_takes_the_place_of_one_of_ours(safe: Safe, cli: Cli) -> None:
    certificate, key = organisation(safe.folder)
    (root,) = load_pem(certificate.read_bytes())
    new, file = safe.folder / "root-2", safe.folder / "next.root"
    given = ("--key", key, "--base", BASE, "--out", new, "--passphrase-file", safe.secret)
    taken = cli("ca", "import-root", certificate, *given, "--expect", fingerprint_of(root))
    assert taken.code == 0, taken.err
    made = safe.init("--out", new, "--follows", safe.root, "--hand-over", file, "-o", "json")
    assert made.code == 0, made.err
    assert made.json["fingerprint"] == fingerprint_of(root)
    (old,) = load_pem((safe.root / "root" / "self-signed.pem").read_bytes())
    held = Bundle(TrustDomain.parse(BASE), FIRST_SEQUENCE, (old,))
    found = read_next(decode(file.read_bytes(), NextRoot), BASE, held, datetime.now(UTC))
    assert found.certificate == root
