"""`federation ca export`: what other systems read of this hierarchy.

A key for another system is made here, by whoever exports, and goes to no process of ours: the hub gets a request and
gives a certificate.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from federation.cli.arguments import CLUSTER, NAMESPACE
from federation.cli.call import WrongArgument, ask, segment
from federation.cli.output import emit, output_option
from federation.cli.paths import GivenPath
from federation.errors import FederationError

if TYPE_CHECKING:
    from pki.spiffe import TrustDomain

KEYED = ("istio", "linkerd", "consul", "cert-manager")
CONSUMERS = (*KEYED, "spiffe", "pem")
LISTED = ("istio", "pem")
NAMESPACED = ("istio", "linkerd", "cert-manager")


@click.command()
@click.argument("consumer", metavar="CONSUMER", type=click.Choice(CONSUMERS))
@click.option(
    "--cluster",
    type=CLUSTER,
    required=True,
    metavar="NAME",
    help="The cluster that it is for; spiffe, pem: or hub.",
)
@click.option(
    "--trust-domain",
    metavar="NAME",
    help="What the other system speaks for, never one of ours.  [istio, linkerd: cluster.local; consul: required]",
)
@click.option("--lifetime", metavar="DURATION", help="How long its authority lives, 1d to 365d.  [365d]")
@click.option(
    "--namespace", type=NAMESPACE, metavar="NAME", help="Of the Kubernetes objects.  [that of the system]"
)
@click.option(
    "--crl", is_flag=True, help="With the root's revocation list, which ends after days (istio, pem)."
)
@click.option(
    "--out",
    type=GivenPath(file_okay=False, path_type=Path, allow_dash=True),
    help="A new folder (0700, files 0600), or - for standard output.  [./CONSUMER-CLUSTER]",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@output_option
@click.pass_context
def export(
    ctx: click.Context,
    consumer: str,
    cluster: str,
    trust_domain: str | None,
    lifetime: str | None,
    namespace: str | None,
    crl: bool,
    out: Path | None,
    force: bool,
    output: str,
) -> None:
    """Make what CONSUMER reads: istio, linkerd, consul, cert-manager, spiffe or pem.

    The first four get an authority of their own below the root, over a key that is made here and never sent; the key of
    the cluster's own authority is given to nobody. Needs the role operator. With --out - the Kubernetes objects, or the
    one file that is read, are printed, key included.

    \b
    Examples:
      federation ca export istio --cluster east --out ./istio-east
      federation ca export linkerd --cluster east --out - | kubectl apply -f -
      federation ca export consul --cluster vms --trust-domain 36cb52cd-4058-f811-0432-6798a240c5d3.consul
      federation ca export spiffe --cluster east --out - > east.json
    """
    from federation.exporting import Folder, printed

    if consumer not in KEYED and (trust_domain or lifetime):
        raise click.UsageError(f"--trust-domain and --lifetime are for {', '.join(KEYED)}")
    if consumer not in NAMESPACED and namespace:
        raise click.UsageError(f"--namespace is for {', '.join(NAMESPACED)}")
    if crl and consumer not in LISTED:
        raise click.UsageError(f"--crl is for {', '.join(LISTED)}")
    to_stdout = out is not None and str(out) == "-"
    if to_stdout and output != "table":
        raise click.UsageError("--out - prints what CONSUMER reads, and -o what was written where; give one")
    if to_stdout and force:
        raise click.UsageError("--force is for a folder, not for --out -")
    seconds = None if lifetime is None else _seconds(lifetime)
    domain = None if trust_domain is None else _domain(trust_domain)

    def made() -> Any:
        if consumer in KEYED:
            return _keyed(ctx, consumer, cluster, domain, seconds, namespace, crl)
        return _trust(ctx, consumer, cluster, crl)

    if to_stdout:
        click.echo(printed(made()), nl=False)
        return
    folder = Folder(out or Path(f"{consumer}-{cluster}"), force)
    with folder.opened():
        found = made()
        files = folder.write(found)
    emit(output, {"folder": str(folder.path), "files": list(files), "use": found.use}, _written)


def _keyed(
    ctx: click.Context,
    consumer: str,
    cluster: str,
    domain: TrustDomain | None,
    seconds: float | None,
    namespace: str | None,
    crl: bool,
) -> Any:
    from federation.api.authority_info import NewIntermediate
    from federation.exporting import material, new_key, of_consumer

    listed = _list(ctx) if crl else b""
    key = new_key()
    asked = ask(ctx, "GET", "/v1/status")
    if asked["kind"] != "hub":
        raise WrongArgument(
            "the hub signs the authorities of other systems", "ask it: leave --hub out, or name the hub"
        )
    grant = _granted(asked["base"], consumer, cluster, domain, seconds)
    body = NewIntermediate(
        consumer=consumer,  # type: ignore[arg-type]
        csr=grant.request(key).decode(),
        trust_domain=None if domain is None else domain.name,
        lifetime=seconds,
    )
    answer = ask(ctx, "POST", f"/v1/clusters/{segment(cluster)}/intermediates", body=body)
    return of_consumer(consumer, material(answer, key, listed), namespace)


def _granted(
    base: str, consumer: str, cluster: str, domain: TrustDomain | None, lifetime: float | None
) -> Any:
    """What the hub will grant as well; it decides for itself. Raises WrongArgument."""
    from pki.errors import Refused
    from pki.intermediate import Consumer, decide

    try:
        span = None if lifetime is None else timedelta(seconds=lifetime)
        return decide(Consumer(consumer), cluster, base, domain, span)
    except Refused as error:
        raise WrongArgument(str(error), "see `federation ca export --help`") from error


def _trust(ctx: click.Context, consumer: str, cluster: str, crl: bool) -> Any:
    from federation.exporting import of_trust

    tree = ask(ctx, "GET", "/v1/tree")
    if cluster == tree["hub"]["name"]:
        row = {**tree["hub"], "authorities": [one["authority"] for one in tree["hub"]["authorities"]]}
    else:
        found = [one for one in tree["clusters"] if one["name"] == cluster]
        if not found:
            raise FederationError(f"there is no cluster {cluster!r}", "see `federation cluster list`")
        row = found[0]
    return of_trust(consumer, row, tree["hub"]["roots"], _list(ctx) if crl else b"")


def _list(ctx: click.Context) -> bytes:
    from federation.exporting import revocation_list

    return revocation_list(ask(ctx, "GET", "/v1/ca/crl"))


def _seconds(text: str) -> float:
    from federation.duration import Duration

    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is {error}; write {Duration.allowed}", param_hint="--lifetime"
        ) from error


def _domain(text: str) -> TrustDomain:
    from pki.errors import InvalidSpiffeId
    from pki.spiffe import TrustDomain

    try:
        return TrustDomain.parse(text)
    except InvalidSpiffeId as error:
        raise click.BadParameter(str(error), param_hint="--trust-domain") from error


def _written(written: dict[str, Any]) -> None:
    for name in written["files"]:
        click.echo(f"{written['folder']}/{name}")
    click.echo(written["use"])
