"""Requests for certificates that nobody may get anything for, and greedy ones of which only the key counts.

Built byte by byte where the library would not make them.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID, SignatureAlgorithmOID

from pki import csr
from pki.algorithms import spki
from tests.pki.world import new_key

DER, PEM = Encoding.DER, Encoding.PEM
KEY = new_key()
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()

AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey | ed25519.Ed25519PrivateKey

UPN = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def signed(key: AnyKey, digest: hashes.SHA256 | hashes.SHA224 | None = None) -> bytes:
    """An honest request (PEM) for any kind of key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    chosen = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, chosen).public_bytes(PEM)


def greedy(*names: x509.GeneralName, extensions: tuple[x509.ExtensionType, ...] = ()) -> bytes:
    """A request (PEM) with our key that asks for more."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(PEM)


def tlv(tag: int, *content: bytes) -> bytes:
    """One DER element."""
    body = b"".join(content)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + body


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def identifier(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytes([40 * first + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        encoded += bytes(reversed(groups))
    return tlv(0x06, encoded)


def by_hand(
    public: bytes,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    digest: hashes.HashAlgorithm,
    algorithm: x509.ObjectIdentifier,
) -> bytes:
    """A request (DER) for a SubjectPublicKeyInfo, signed with `key`, whatever it is."""
    info = tlv(0x30, integer(0), tlv(0x30), public, tlv(0xA0))
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(info, padding.PKCS1v15(), digest)
    else:
        signature = key.sign(info, ec.ECDSA(digest))
    return tlv(0x30, info, tlv(0x30, identifier(algorithm.dotted_string)), tlv(0x03, b"\0", signature))


def rsa_of(bits: int, even: bool = False) -> bytes:
    """The SubjectPublicKeyInfo of an RSA key that nobody has, and that takes no time to make."""
    modulus = (1 << (bits - 1)) + (0 if even else 1)
    numbers = tlv(0x30, integer(modulus), integer(65537))
    return tlv(0x30, tlv(0x30, identifier("1.2.840.113549.1.1.1"), b"\x05\x00"), tlv(0x03, b"\0", numbers))


def explicit_parameters() -> bytes:
    """P-256 spelled out instead of named (SEC 1 §C.2): the key is the same, the parser may be led elsewhere."""
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    a, b = p - 3, 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    base = bytes.fromhex(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    field = tlv(0x30, identifier("1.2.840.10045.1.1"), integer(p))
    curve = tlv(0x30, tlv(0x04, a.to_bytes(32)), tlv(0x04, b.to_bytes(32)))
    domain = tlv(0x30, integer(1), field, curve, tlv(0x04, base), integer(n), integer(1))
    point = spki(KEY.public_key())[-65:]
    return tlv(0x30, tlv(0x30, identifier("1.2.840.10045.2.1"), domain), tlv(0x03, b"\0", point))


def off_the_curve() -> bytes:
    public = bytearray(spki(KEY.public_key()))
    public[-1] ^= 1
    return bytes(public)


def altered() -> bytes:
    data = bytearray(x509.load_pem_x509_csr(csr.request(KEY)).public_bytes(DER))
    data[-1] ^= 1
    return bytes(data)


def anothers_key() -> bytes:
    """An honest request in which somebody else's key was put."""
    mine = x509.load_pem_x509_csr(csr.request(KEY)).public_bytes(DER)
    return mine.replace(spki(KEY.public_key()), spki(new_key().public_key()))


GOOD = csr.request(KEY)
GOOD_DER = x509.load_pem_x509_csr(GOOD).public_bytes(DER)
ECDSA, RSA = SignatureAlgorithmOID.ECDSA_WITH_SHA256, SignatureAlgorithmOID.RSA_WITH_SHA256
MANY = [x509.DNSName(f"{number}.example") for number in range(100_000)]

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cannot be parsed"),
    "no request": (b"\x30\x03\x02\x01\x00", "cannot be parsed"),
    "1 MiB": (b"\x30" * 2**20, "1048576 bytes, allowed are 16384"),
    "1 MiB of PEM": (b"-----BEGIN CERTIFICATE REQUEST-----\n" + b"A" * 2**20, "allowed are 16384"),
    "100,000 SANs": (greedy(*MANY), "allowed are 16384"),
    "two in one PEM": (GOOD + csr.request(new_key()), "not exactly one PEM block"),
    "the same twice": (GOOD + GOOD, "not exactly one PEM block"),
    "a certificate besides": (GOOD + GOOD.replace(b" REQUEST", b""), "not exactly one PEM block"),
    "text before": (b"x" + GOOD, "not exactly one PEM block"),
    "text behind": (GOOD + b"x", "not exactly one PEM block"),
    "a header in PEM": (
        GOOD.replace(b"-\n", b"-\nProc-Type: 4,ENCRYPTED\n\n", 1),
        "not exactly one PEM block",
    ),
    "cut": (GOOD[:-40], "not exactly one PEM block"),
    "trailing data": (GOOD_DER + b"\x00", "cannot be parsed"),
    "an altered signature": (altered(), "possession"),
    "somebody else's key": (anothers_key(), "possession"),
    "ECDSA with SHA-1": (
        by_hand(spki(KEY.public_key()), KEY, hashes.SHA1(), x509.ObjectIdentifier("1.2.840.10045.4.1")),
        "possession",
    ),
    "RSA with SHA-1": (
        by_hand(spki(RSA_KEY.public_key()), RSA_KEY, hashes.SHA1(), SignatureAlgorithmOID.RSA_WITH_SHA1),
        "possession",
    ),
    "RSA with MD5": (
        by_hand(spki(RSA_KEY.public_key()), RSA_KEY, hashes.MD5(), SignatureAlgorithmOID.RSA_WITH_MD5),
        "possession",
    ),
    "SHA-224": (signed(KEY, hashes.SHA224()), "possession"),
    "RSA-1024": (by_hand(rsa_of(1024), RSA_KEY, hashes.SHA256(), RSA), "RSA with 1024 bits"),
    "RSA-4104": (by_hand(rsa_of(4104), RSA_KEY, hashes.SHA256(), RSA), "RSA with 4104 bits"),
    "RSA-16384": (
        by_hand(rsa_of(16384), RSA_KEY, hashes.SHA256(), RSA),
        "RSA with 16384 bits",
    ),
    "RSA with an even modulus": (
        by_hand(rsa_of(2048, even=True), RSA_KEY, hashes.SHA256(), RSA),
        "even modulus",
    ),
    "RSA with e = 3": (signed(rsa.generate_private_key(3, 2048)), "RSA with exponent 3"),
    "P-192": (signed(ec.generate_private_key(ec.SECP192R1())), "the curve secp192r1"),
    "P-521": (signed(ec.generate_private_key(ec.SECP521R1())), "the curve secp521r1"),
    "secp256k1": (signed(ec.generate_private_key(ec.SECP256K1())), "the curve secp256k1"),
    "brainpool": (signed(ec.generate_private_key(ec.BrainpoolP256R1())), "the curve brainpoolP256r1"),
    "explicit parameters": (
        by_hand(explicit_parameters(), KEY, hashes.SHA256(), ECDSA),
        "usual encoding, with a named curve",
    ),
    "a point off the curve": (by_hand(off_the_curve(), KEY, hashes.SHA256(), ECDSA), "cannot be read"),
    "DSA": (signed(dsa.generate_private_key(1024)), "neither ECDSA nor RSA"),
    "Ed25519 where nobody allowed it": (signed(ED25519_KEY), "ed25519 is not among the allowed keys"),
}
"""Each with what the refusal says."""

IGNORED: dict[str, bytes] = {
    "CA:true": greedy(extensions=(x509.BasicConstraints(ca=True, path_length=None),)),
    "keyCertSign": greedy(
        extensions=(x509.KeyUsage(True, False, False, False, False, True, True, False, False),)
    ),
    "a UPN": greedy(UPN),
    "somebody else's SPIFFE ID": greedy(
        x509.UniformResourceIdentifier("spiffe://hub.mesh.example/federation")
    ),
    "50 names": greedy(*MANY[:50]),
    "an unknown critical extension": greedy(extensions=(UNKNOWN,)),
    "name constraints": greedy(extensions=(x509.NameConstraints([x509.DNSName("")], None),)),
    "a subject": csr.request(
        KEY, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federation.hub\x00.")])
    ),
    "challengePassword": x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
    .sign(KEY, hashes.SHA256())
    .public_bytes(PEM),
}
"""What they ask for is not looked at: they are worth as much as `GOOD`."""
