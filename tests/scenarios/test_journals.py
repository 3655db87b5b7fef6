"""Nobody takes back what an authority has signed: others keep the heads of its journals, and say so."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from federation.demo.asking import ask, until
from federation.demo.clusters import BASE
from federation.demo.world import World
from federation.listen import HostPort
from tests.scenarios.command import Finished
from tests.scenarios.command import federation as run

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def at_hub(world: World, *arguments: str) -> Finished:
    return await run("--hub", f"unix://{world.hub_socket}", *arguments)


async def kept_at_hub(world: World, owner: str) -> list[Any]:
    heads = await ask(world.hub_socket, "/v1/ca/heads")
    return [one for one in heads if one["owner"] == owner and one["kind"] == "kept"]


async def own(world: World, cluster: str) -> Any:
    heads = await ask(world.clusters[cluster].socket, "/v1/ca/heads")
    (found,) = (one for one in heads if one["kind"] == "own")
    return found


async def anchored(world: World, cluster: str) -> None:
    """Wait until the hub keeps the newest head of this cluster."""

    async def kept() -> bool:
        mine = await own(world, cluster)
        return [(one["lines"], one["hash"]) for one in await kept_at_hub(world, cluster)] == [
            (mine["lines"], mine["hash"])
        ]

    await until(f"the head of {cluster} at the hub", kept, watch=world.processes)


async def verdicts(world: World, *arguments: str) -> tuple[int, list[Any]]:
    done = await at_hub(world, "ca", "audit", "verify", *arguments, "-o", "json")
    return done.code, done.json


async def test_every_journal_is_vouched_for_by_others(federation: World) -> None:
    for name in federation.clusters:
        await anchored(federation, name)
        code, (found,) = await verdicts(federation, "--from", name)
        assert (code, found["problem"], found["owner"]) == (0, None, name)
        assert found["vouched_by"] == ["hub"]
        assert found["vouched_lines"] == found["lines"] > 0

    async def told() -> bool:
        _, found = await verdicts(federation)
        return all(one["vouched_by"] == ["central", "east", "west"] for one in found)

    await until("the hub's heads at every agent", told)
    code, found = await verdicts(federation)
    assert code == 0
    assert sorted(one["journal"] for one in found) == ["authority/journal", "root/journal"]


async def test_what_was_signed_is_told_with_who_asked_and_why(federation: World) -> None:
    done = await at_hub(federation, "ca", "audit", "-o", "json")
    assert done.code == 0, done.said
    joins = {
        one["who"]: one for one in done.json if one["journal"] == "root/journal" and "join" in one["why"]
    }
    assert joins.keys() == federation.clusters.keys()
    assert joins["east"]["identity"] == f"spiffe://east.{BASE}"
    assert joins["east"]["outcome"] == "released"
    gateways = joins["west"]["identity"] + "/gateway/eastwest"
    told = await at_hub(federation, "ca", "audit", "--from", "west", "--identity", gateways)
    assert told.code == 0, told.said
    assert "gateway-1" in told.out
    assert "gateway-2" in told.out
    empty = await at_hub(federation, "ca", "audit", "--since", "2099-01-01T00:00:00Z")
    assert empty.out == "nothing was signed\n"
    wrong = await at_hub(federation, "ca", "audit", "--since", "yesterday")
    assert wrong.code == 2, wrong.said
    assert "RFC 3339" in wrong.said


async def test_a_journal_that_was_cut_is_refused_by_the_hub_until_somebody_accepts_it(
    federation: World,
) -> None:
    east = federation.clusters["east"]
    journal = east.folder / "agent" / "authority" / "journal"
    await anchored(federation, "east")
    await east.agent.stop()
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:-2]))
    try:
        await east.agent.start()

        async def alarmed() -> bool:
            return "was cut" in str((await ask(federation.hub_socket, "/v1/status"))["problems"])

        await until("the hub's alarm", alarmed, watch=(east.agent,))
        code, (found,) = await verdicts(federation, "--from", "east")
        assert code == 1
        assert "ends here" in found["problem"]
        check = await at_hub(federation, "check")
        assert check.code == 1
        assert "the journal of east" in check.out
        alone = await run("ca", "audit", "verify", str(journal), "--alone")
        assert alone.code == 0, alone.said
        assert "nobody vouches for its end" in alone.out
        against = await run("--hub", f"unix://{federation.hub_socket}", "ca", "audit", "verify", str(journal))
        assert against.code == 1, against.said
        others = await run(
            "--hub", f"unix://{federation.clusters['west'].socket}", "ca", "audit", "verify", str(journal)
        )
        assert others.code == 1, "another agent keeps the head as well"
    finally:
        await east.agent.stop()
        journal.write_bytes(whole)
        await east.agent.start()
    await until("the return of east", federation.served, watch=federation.processes)
    accepted = await at_hub(federation, "ca", "audit", "accept", "east")
    assert accepted.code == 0, accepted.said
    await anchored(federation, "east")
    assert (await verdicts(federation, "--from", "east"))[0] == 0


async def ready(address: HostPort) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/readyz") as answer:
        return answer.status, await answer.text()


async def test_an_agent_that_cannot_write_its_journal_signs_nothing_and_says_so(
    federation: World, tmp_path: Path
) -> None:
    """A limit of the kernel on the size of its files (setrlimit(2)); its log goes elsewhere, as that is a file too."""
    west = federation.clusters["west"]
    telemetry, log = HostPort.of(west.address(0), 9465), west.agent.log

    async def issue(folder: str) -> Finished:
        workload = f"spiffe://west.{BASE}/ns/default/sa/test"
        return await run(
            "--hub", f"unix://{west.socket}", "ca", "issue", workload, "--out", tmp_path / folder
        )

    await west.agent.stop()
    west.agent.log = Path(os.devnull)
    try:
        await west.agent.start()
        await until("the return of west", federation.served, watch=federation.processes)
        assert (await ready(telemetry))[0] == 200
        assert (await issue("first")).code == 0
        before = await own(federation, "west")
        resource.prlimit(west.agent.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        refused = await issue("second")
        assert refused.code == 1, refused.said
        assert "nothing was signed" in refused.said
        assert not (tmp_path / "second").exists(), "an operator asks again with another key"
        status, text = await ready(telemetry)
        assert status == 503
        assert "nothing can be signed" in text
        assert "journal cannot be written: File too large" in text
        check = await run("--hub", f"unix://{west.socket}", "check")
        assert check.code == 1
        assert "journal cannot be written" in check.out
        assert await own(federation, "west") == before
        resource.prlimit(west.agent.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert (await issue("third")).code == 0

        async def well() -> bool:
            return (await ready(telemetry))[0] == 200

        await until("the agent being ready again", well, watch=(west.agent,))
        assert (await own(federation, "west"))["lines"] > before["lines"]
    finally:
        await west.agent.stop()
        west.agent.log = log
        await west.agent.start()


async def test_the_revocation_list_is_public_and_names_who_is_revoked(federation: World) -> None:
    address = HostPort.of(federation.hub_api.host, 9464)

    async def fetched() -> x509.CertificateRevocationList:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{address}/crl/root.crl") as answer,
        ):
            assert answer.status == 200
            assert answer.content_type == "application/pkix-crl"
            return x509.load_der_x509_crl(await answer.read())

    assert [one.serial_number for one in await fetched()] == []
    refused = await at_hub(federation, "ca", "revoke", "nobody", "--reason", "superseded")
    assert refused.code == 1, refused.said
    done = await at_hub(federation, "ca", "revoke", "west", "--reason", "key-compromise", "--why", "a test")
    assert done.code == 0, done.said
    (revoked,) = await fetched()
    shown = await at_hub(federation, "ca", "crl", "-o", "json")
    assert [one["serial"] for one in shown.json["revoked"]] == [f"{revoked.serial_number:x}"]
    for more in ((), ("--all",)):
        again = await at_hub(federation, "ca", "revoke", "west", *more, "--reason", "key-compromise")
        assert again.code == 1, again.said
    told = await at_hub(federation, "ca", "audit", "-o", "json")
    (west,) = (one for one in told.json if one["serial"] == f"{revoked.serial_number:x}")
    assert (west["outcome"], west["note"].partition(",")[0]) == ("revoked", "key-compromise")
