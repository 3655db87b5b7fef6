"""Chains as they occur in rotations, in other people's hierarchies and in attacks, made once from real keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki import issue
from pki.algorithms import spki
from pki.spiffe import SpiffeId, TrustDomain
from pki.verifiers import Role
from tests.pki.verifying.real import Case
from tests.pki.world import granted, new_key, serial

EAST = TrustDomain.parse("east.mesh.example")
KEYS: dict[bytes, ec.EllipticCurvePrivateKey] = {}
"""The keys of all leaves, by public key."""

BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


@dataclass(frozen=True)
class Ca:
    """An authority by anybody's profile. `name` alone is its subject unless `subject` says another."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    certificate: x509.Certificate | None = None

    @property
    def cert(self) -> x509.Certificate:
        assert self.certificate is not None
        return self.certificate


@dataclass(frozen=True)
class Maker:
    """Makes certificates around `now` with whatever is asked for, right or wrong."""

    now: datetime

    def make(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        by: ec.EllipticCurvePrivateKey,
        *,
        ca: bool = True,
        length: int | None = None,
        uris: Sequence[str] = (),
        start: timedelta = timedelta(hours=-1),
        end: timedelta = timedelta(days=30),
        eku: Sequence[x509.ObjectIdentifier] | None = None,
        cert_sign: bool | None = None,
        key_ids: bool = True,
        constraints: x509.NameConstraints | None = None,
        unknown: bool = False,
    ) -> x509.Certificate:
        second = self.now.replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .not_valid_before(second + start)
            .not_valid_after(second + end)
            .add_extension(x509.BasicConstraints(ca, length if ca else None), critical=True)
            .add_extension(_usage(ca if cert_sign is None else cert_sign, not ca), critical=True)
        )
        if key_ids:
            builder = builder.add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            ).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
            )
        if uris:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(names, critical=not subject)
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(eku)), critical=False)
        if constraints is not None:
            builder = builder.add_extension(constraints, critical=True)
        if unknown:
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.99.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x05\x00"), critical=True)
        return builder.sign(by, hashes.SHA256())

    def root(self, name: str, **given: object) -> Ca:
        key = new_key()
        return Ca(name, key, self.make(name, key, name, key, **given))  # type: ignore[arg-type]

    def below(
        self, above: Ca, name: str, key: ec.EllipticCurvePrivateKey | None = None, **given: object
    ) -> Ca:
        key = key or new_key()
        return Ca(name, key, self.make(name, key, above.name, above.key, **given))  # type: ignore[arg-type]

    def leaf(self, above: Ca, *uris: str, **given: object) -> x509.Certificate:
        wanted = uris or (f"spiffe://{EAST}/gateway/eastwest",)
        asked = {"ca": False, "uris": wanted, "eku": BOTH, **given}
        return self.make("", leaf_key(), above.name, above.key, **asked)  # type: ignore[arg-type]


def cases() -> list[Case]:
    """Every case, with a name to find it by; valid around the present, because a TLS server has no other clock."""
    now = datetime.now(UTC)
    return [*_ours(now), *_paths(Maker(now), now), *_constraints(Maker(now), now), *_forms(Maker(now), now)]


@dataclass(frozen=True)
class Dual:
    """A cluster's authority as we make it: one key, a self-signed form and one by the root."""

    trust_domain: TrustDomain
    key: ec.EllipticCurvePrivateKey
    self_signed: x509.Certificate
    rooted: x509.Certificate

    def leaf(self, uri: str, now: datetime) -> x509.Certificate:
        own = SpiffeId.gateway(self.trust_domain, "eastwest")
        forms = (self.self_signed, self.rooted)
        template = issue.leaf(granted(own), leaf_key().public_key(), forms, serial(), now)
        return issue.sign(replace(template, uri=uri), self.key)


def leaf_key() -> ec.EllipticCurvePrivateKey:
    key = new_key()
    KEYS[spki(key.public_key())] = key
    return key


def dual(trust_domain: TrustDomain, root: Ca, now: datetime) -> Dual:
    key = new_key()
    own = issue.cluster_authority(trust_domain, 1, key.public_key(), serial(), now)
    by_root = issue.rooted_authority(trust_domain, 1, key.public_key(), root.cert, serial(), now)
    return Dual(trust_domain, key, issue.sign(own, key), issue.sign(by_root, root.key))


def _ours(now: datetime) -> Iterator[Case]:
    """Our own profiles, in the form that gateways present."""
    key = new_key()
    template = issue.root_authority("mesh.example", 1, key.public_key(), serial(), now)
    root = Ca("root", key, issue.sign(template, key))
    east, west = dual(EAST, root, now), dual(TrustDomain.parse("west.mesh.example"), root, now)
    gateway = str(SpiffeId.gateway(EAST, "eastwest"))
    chain = (east.leaf(gateway, now), east.rooted)
    yield Case("the dual form for a holder of the anchor", chain, (east.self_signed,), EAST, now)
    yield Case("the dual form for a holder of the root", chain, (root.cert,), EAST, now)
    yield Case("as a server", chain, (east.self_signed,), EAST, now, Role.SERVER)
    yield Case("the leaf alone for a holder of the anchor", chain[:1], (east.self_signed,), EAST, now)
    yield Case("the leaf alone for a holder of the root", chain[:1], (root.cert,), EAST, now)
    yield Case("old and new anchor", chain, (west.self_signed, east.self_signed), EAST, now)
    forged = (west.leaf(gateway, now), west.rooted)
    yield Case(
        "forged by another cluster, for a holder of the anchor", forged, (east.self_signed,), EAST, now
    )
    yield Case("forged by another cluster, for a holder of the root", forged, (root.cert,), EAST, now)
    yield Case("the anchor is the root-signed form", chain, (east.rooted,), EAST, now)
    yield Case("another cluster's anchor alone", chain, (west.self_signed,), EAST, now)


def _paths(make: Maker, now: datetime) -> Iterator[Case]:
    """Which issuer is tried, and what becomes of a wrong first try."""
    old, new = make.root("old root"), make.root("new root")
    key = new_key()
    by_old, by_new = make.below(old, "ca", key, length=0), make.below(new, "ca", key, length=0)
    leaf = make.leaf(by_old)
    for first, second, order in ((by_old, by_new, "old first"), (by_new, by_old, "new first")):
        chain = (leaf, first.cert, second.cert)
        yield Case(f"a cross-signed pair, {order}, for a holder of the old", chain, (old.cert,), EAST, now)
        yield Case(f"a cross-signed pair, {order}, for a holder of the new", chain, (new.cert,), EAST, now)
    bridge = make.below(old, "new root", new.key)
    for holder in (old, new):
        chain = (leaf, by_new.cert, bridge.cert)
        yield Case(f"a bridge, for a holder of the {holder.name}", chain, (holder.cert,), EAST, now)
    short = make.root("short root", length=1)
    under = make.below(short, "new root", new.key)
    yield Case(
        "a bridge under a root of path length 1", (leaf, by_new.cert, under.cert), (short.cert,), EAST, now
    )
    stranger = make.root("ca")
    yield Case("a self-signed stranger is presented", (leaf, stranger.cert), (old.cert,), EAST, now)
    yield Case("the root is presented too", (leaf, by_old.cert, old.cert), (old.cert,), EAST, now)
    dead = make.below(old, "ca", key, start=timedelta(days=-9), end=timedelta(days=-1))
    yield Case("the expired form first", (leaf, dead.cert, by_old.cert), (old.cert,), EAST, now)
    yield Case("only the expired form", (leaf, dead.cert), (old.cert,), EAST, now)
    low = make.below(old, "low", length=0)
    lower = make.below(low, "lower")
    chain = (make.leaf(lower), lower.cert, low.cert)
    yield Case("one authority too many", chain, (old.cert,), EAST, now)
    yield Case("one too many under the anchor itself", chain[:2], (low.cert,), EAST, now)
    gone = make.below(old, "gone", start=timedelta(days=-9), end=timedelta(days=-1))
    yield Case("the anchor is an expired intermediate", (make.leaf(gone),), (gone.cert,), EAST, now)
    west = x509.NameConstraints([x509.UniformResourceIdentifier("west.mesh.example")], None)
    bound = make.below(old, "bound", constraints=west)
    yield Case("the anchor is a constrained intermediate", (make.leaf(bound),), (bound.cert,), EAST, now)
    anchor = make.root("tight", length=0)
    beneath = make.below(anchor, "beneath")
    yield Case("path length of a root", (make.leaf(beneath), beneath.cert), (anchor.cert,), EAST, now)
    same = [make.root("one of many", key_ids=False) for _ in range(121)]
    sparse = make.leaf(same[-1], key_ids=False)
    yield Case(
        "121 roots of one subject without key identifiers",
        (sparse,),
        tuple(one.cert for one in same),
        EAST,
        now,
    )
    many = [make.root("one of many") for _ in range(121)]
    yield Case(
        "121 roots of one subject with key identifiers",
        (make.leaf(many[-1]),),
        tuple(one.cert for one in many),
        EAST,
        now,
    )


def _constraints(make: Maker, now: datetime) -> Iterator[Case]:
    def limits(*hosts: str, excluded: bool = False) -> x509.NameConstraints:
        trees = [x509.UniformResourceIdentifier(host) for host in hosts]
        return x509.NameConstraints(None, trees) if excluded else x509.NameConstraints(trees, None)

    root = make.root("root")
    for what, constraint in (
        ("the trust domain", limits("east.mesh.example")),
        ("another trust domain", limits("west.mesh.example")),
        ("what is above the trust domain", limits("mesh.example")),
    ):
        ca = make.below(root, "ca", constraints=constraint)
        yield Case(f"URIs are constrained to {what}", (make.leaf(ca), ca.cert), (root.cert,), EAST, now)
    ca = make.below(root, "ca", constraints=limits("east.mesh.example", excluded=True))
    yield Case("the trust domain is excluded", (make.leaf(ca), ca.cert), (root.cert,), EAST, now)
    tight = make.root("constrained root", constraints=limits("west.mesh.example"))
    yield Case("the anchor itself is constrained to another", (make.leaf(tight),), (tight.cert,), EAST, now)
    names = x509.NameConstraints([x509.DNSName("west.mesh.example")], None)
    ca = make.below(root, "ca", constraints=names)
    yield Case(
        "DNS names are constrained, and there is none", (make.leaf(ca), ca.cert), (root.cert,), EAST, now
    )


def _forms(make: Maker, now: datetime) -> Iterator[Case]:
    """What single certificates say."""
    root = make.root("root")
    ca = make.below(root, "ca", length=0)

    def case(
        name: str, *chain: x509.Certificate, anchors: tuple[Ca, ...] = (root,), role: Role = Role.CLIENT
    ) -> Case:
        return Case(name, chain, tuple(one.cert for one in anchors), EAST, now, role)

    two = (f"spiffe://{EAST}/a", "spiffe://west.mesh.example/a")
    yield case("two URIs, ours first", make.leaf(ca, *two), ca.cert)
    yield case("two URIs, ours last", make.leaf(ca, *two[::-1]), ca.cert)
    yield case("another trust domain's name", make.leaf(ca, two[1]), ca.cert)
    yield case("an expired leaf", make.leaf(ca, start=timedelta(days=-2), end=timedelta(minutes=-5)), ca.cert)
    yield case("a leaf of tomorrow", make.leaf(ca, start=timedelta(days=1)), ca.cert)
    yield case("a leaf that outlives its authority", make.leaf(ca, end=timedelta(days=300)), ca.cert)
    yield case("a leaf with an unknown critical extension", make.leaf(ca, unknown=True), ca.cert)
    client = [ExtendedKeyUsageOID.CLIENT_AUTH]
    yield case("a client's leaf as a client", make.leaf(ca, eku=client), ca.cert)
    yield case("a server's leaf as a client", make.leaf(ca, eku=[ExtendedKeyUsageOID.SERVER_AUTH]), ca.cert)
    server = make.below(root, "servers", eku=[ExtendedKeyUsageOID.SERVER_AUTH])
    yield case("a client below an authority for servers", make.leaf(server), server.cert)
    no_ca = make.below(root, "no ca", ca=False)
    yield case("the issuer is no authority", make.leaf(no_ca), no_ca.cert)
    no_sign = make.below(root, "no sign", cert_sign=False)
    yield case("the issuer may not sign certificates", make.leaf(no_sign), no_sign.cert)
    bare = make.below(root, "bare")
    yield case("a leaf without an authority key identifier", make.leaf(bare, key_ids=False), bare.cert)
    old = make.root("old root", start=timedelta(days=-30), end=timedelta(days=-1))
    yield case("the anchor has expired", make.leaf(old), anchors=(old,))
    wrong = Ca("ca", new_key(), ca.certificate)
    yield case("a signature by another key", replace_signature(make, wrong, ca), ca.cert)


def replace_signature(make: Maker, wrong: Ca, right: Ca) -> x509.Certificate:
    """A leaf that names the right authority, without a key identifier that would betray it, and another key signed."""
    return make.leaf(replace(wrong, name=right.name), key_ids=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def _usage(cert_sign: bool, digital: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital, False, False, False, False, cert_sign, cert_sign, False, False)
