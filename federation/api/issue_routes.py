"""What an agent answers to an operator who asks for a workload's certificate by its name."""

from __future__ import annotations

from federation.api.messages import IssuedCertificate, NewCertificate
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.issuer import Issuer, IssuingAuthority
from pki import csr
from pki.algorithms import ALL_KINDS, spki
from pki.certificate import load_der, pem
from pki.errors import InvalidSpiffeId, Refused
from pki.policy import PROCESSES, role_of
from pki.spiffe import SpiffeId

WORKLOAD = "name a workload: spiffe://<trust domain>/ns/…/sa/…"


class IssueRoutes:
    """The route of one cluster's issuer."""

    def __init__(self, issuer: Issuer, authority: IssuingAuthority) -> None:
        self._issuer = issuer
        self._authority = authority

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/certificates", "Issue a certificate to a workload", Access.OPERATOR, self.issue,
                  IssuedCertificate, NewCertificate, told=("spiffe_id", "serial", "granted")),
        )  # fmt: skip

    async def issue(self, call: Call) -> IssuedCertificate:
        """One certificate, as the limits of this cluster allow. Raises ApiProblem."""
        body: NewCertificate = call.body
        try:
            identity = SpiffeId.parse(body.spiffe_id)
        except InvalidSpiffeId as error:
            raise ApiProblem(400, "spiffe-id", str(error), WORKLOAD) from error
        try:
            key = csr.parse(body.csr.encode(), ALL_KINDS).public_key
            given = await self._issuer.give(call.principal.name, identity, spki(key), body.lifetime)
        except Refused as refused:
            status = 403 if refused.field == "identity" else 400
            hint = WORKLOAD if role_of(identity) in PROCESSES else "see `issuing` in the agent's settings"
            raise ApiProblem(status, refused.field, refused.reason, hint) from refused
        chain = tuple(map(load_der, given.chain))
        return IssuedCertificate(
            serial=f"{chain[0].serial_number:x}",
            certificates=pem(chain).decode(),
            bundle=self._authority.bundle().pem().decode(),
            expires_at=chain[0].not_valid_after_utc,
            requested=given.requested,
            granted=given.granted,
            limited_by=given.limited_by,
        )
