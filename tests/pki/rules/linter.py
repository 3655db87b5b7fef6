"""What an independent linter (pkilint: RFC 5280 and its successors) finds in a certificate or a CRL.

A finding is given as its code and severity, such as "pkix.crl_number_extension_absent ERROR"; what is only said for
information is left out.
"""

from __future__ import annotations

from pkilint import loader, pkix
from pkilint.document import Document
from pkilint.pkix import certificate, crl, extension, name
from pkilint.validation import ValidationFindingSeverity, ValidatorContainer


def of_certificate(data: bytes) -> set[str]:
    """Findings in a certificate (DER)."""
    rules = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    return _findings(rules, loader.load_der_certificate(data, "certificate"))


def of_crl(data: bytes) -> set[str]:
    """Findings in a certificate revocation list (DER)."""
    rules = crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )
    return _findings(rules, loader.load_der_crl(data, "crl"))


def _findings(rules: ValidatorContainer, document: Document) -> set[str]:
    return {
        f"{found.finding.code} {found.finding.severity.name}"
        for result in rules.validate(document.root)
        for found in result.finding_descriptions
        if found.finding.severity < ValidationFindingSeverity.INFO
    }
