"""What the hub answers about operators: who they are, access for a new one, and the next certificate for an old one.

A certificate is renewed for the key that it is for, by whoever shows it while it is valid: an answer that was lost
costs a second call and nothing else, and a key that was never registered gets nothing. After its end only an operator
of the hub can give access anew.
"""

from __future__ import annotations

from cryptography import x509

from federation.access import OperatorStore
from federation.api.messages import (
    CreatedOperator,
    Done,
    NewOperator,
    OperatorInfo,
    Renew,
    Renewed,
)
from federation.api.routes import Access, ApiProblem, Call, Route, not_found, turned_away
from federation.attest import spki_of
from federation.banned import WhyBanned
from pki.algorithms import spki_hash
from pki.certificate import public_key
from pki.errors import Refused
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Denied, decide
from pki.profiles import LONGEST_LEAF
from pki.spiffe import SpiffeId


class OperatorRoutes:
    """The routes about the operators of one hub, which others reach at `url`."""

    def __init__(self, operators: OperatorStore, authority: Lineage, url: str, why_banned: WhyBanned) -> None:
        self._operators = operators
        self._authority = authority
        self._url = url
        self._why_banned = why_banned

    def routes(self) -> tuple[Route, ...]:
        do = Access.OPERATOR
        return (
            Route("GET", "/v1/operators", "Operators", do, self.listed, tuple[OperatorInfo, ...]),
            Route("POST", "/v1/operators", "Add an operator", do, self.create, CreatedOperator, NewOperator,
                  told=("name", "role")),
            Route("DELETE", "/v1/operators/{name}", "Remove an operator", do, self.remove, Done),
            Route("POST", "/v1/renew", "Renew the certificate shown", Access.PEER, self.renew, Renewed, Renew),
        )  # fmt: skip

    async def listed(self, _: Call) -> tuple[OperatorInfo, ...]:
        return tuple(
            OperatorInfo(name=one.name, role=one.role, kind="bearer" if one.token_hash else "certificate")
            for one in await self._operators.listed()
        )

    async def create(self, call: Call) -> CreatedOperator:
        """The certificate comes first: without an operator of its key, which a crash may leave out, it is nobody's."""
        body: NewOperator = call.body
        await self._operators.ensure_free(body.name)
        key, chain = None, None
        if body.csr is not None:
            key = spki_of(body.csr)
            identity = SpiffeId.operator(self._authority.trust_domain, body.name)
            chain = await self._issue(body.csr, identity, Attestation.ADMINISTRATOR)
        secret = await self._operators.create(body.name, body.role, key=key)
        return CreatedOperator(
            name=body.name,
            role=body.role,
            url=self._url,
            server_name=f"federation.{self._authority.trust_domain}",
            bundle=self._authority.bundle().pem().decode(),
            token=secret,
            certificates=(chain,) if chain else (),
        )

    async def renew(self, call: Call) -> Renewed:
        body: Renew = call.body
        caller = call.principal
        assert caller.identity is not None
        assert caller.certificate is not None
        if spki_of(body.csr) != spki_hash(public_key(caller.certificate)):
            raise ApiProblem(
                400,
                "csr",
                "the request is for another key than the certificate shown",
                "renew with the same key, or have a new operator made for another one",
            )
        chain = await self._issue(body.csr, caller.identity, Attestation.RENEWAL, caller.certificate)
        return Renewed(certificates=(chain,))

    async def remove(self, call: Call) -> Done:
        name = call.params["name"]
        if not await self._operators.remove(name):
            raise not_found("operator", name, "see `federation operator list`")
        return Done(done=f"operator {name} has no access any more")

    async def _issue(
        self, request: str, identity: SpiffeId, by: Attestation, replaces: x509.Certificate | None = None
    ) -> str:
        """A chain (PEM). Raises ApiProblem."""
        if (reason := self._why_banned(identity, spki_of(request))) is not None:
            raise turned_away(reason)
        grant = decide(Attested(identity, by, LONGEST_LEAF), self._authority.trust_domain)
        if isinstance(grant, Denied):
            raise ApiProblem(403, "denied", str(grant))
        try:
            issued = await self._authority.issue(
                request.encode(), grant, who=str(identity), why=by.value, replaces=replaces
            )
        except Refused as error:
            raise ApiProblem(400, "csr", str(error)) from error
        return issued.pem().decode()
