"""`federation serve`, `agent` and `gateway`: the three processes, each from one settings file."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from federation.cli.paths import GivenPath

if TYPE_CHECKING:
    from federation.config import Settings
    from pki.keys.passphrase import Passphrase

CONFIG = click.option(
    "--config",
    "path",
    type=GivenPath(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The settings, in YAML; `federation config check FILE` looks at it first.",
)


@click.command()
@CONFIG
def serve(path: Path) -> None:
    """Run the federation service (the hub).

    \b
    Example:
      federation serve --config /etc/federation/hub.yaml
    """
    from federation.config import HubSettings
    from federation.settings_file import read_settings

    settings = read_settings(path, HubSettings)

    def process(passphrase: Passphrase | None) -> Coroutine[Any, Any, None]:
        from federation.app import hub as app
        from federation.clock import SystemClock

        return app.run(settings, passphrase, SystemClock())

    _run("hub", settings, process)


@click.command()
@CONFIG
def agent(path: Path) -> None:
    """Run a cluster's agent.

    \b
    Example:
      federation agent --config /etc/federation/agent.yaml
    """
    from federation.config import AgentSettings
    from federation.settings_file import read_settings

    settings = read_settings(path, AgentSettings)

    def process(passphrase: Passphrase | None) -> Coroutine[Any, Any, None]:
        from federation.app import agent as app
        from federation.clock import SystemClock

        return app.run(settings, passphrase, SystemClock())

    _run(f"agent {settings.cluster}", settings, process)


@click.command()
@CONFIG
def gateway(path: Path) -> None:
    """Run a gateway: the parent of one Envoy.

    \b
    Example:
      federation gateway --config /etc/federation/gateway.yaml
    """
    from federation.config import GatewaySettings
    from federation.settings_file import read_settings

    settings = read_settings(path, GatewaySettings)

    def process(passphrase: Passphrase | None) -> Coroutine[Any, Any, None]:
        from federation.app import gateway as app
        from federation.clock import SystemClock

        return app.run(settings, passphrase, SystemClock())

    _run(f"gateway {settings.name}", settings, process)


def _run(
    name: str, settings: Settings, process: Callable[[Passphrase | None], Coroutine[Any, Any, None]]
) -> None:
    """Run a process, hardened and with the passphrase of its keys, until SIGTERM or SIGINT.

    They stop it in good order; a second one ends it at once.

    Raises KeyboardInterrupt after an orderly stop by SIGINT, so that the exit code says what happened.
    """
    import structlog

    from federation.app.keys import passphrase_of
    from federation.errors import FederationError
    from federation.hardening import harden
    from federation.telemetry import configure_logging
    from pki.errors import PkiError

    harden()
    os.umask(0o077)
    configure_logging(settings.log.level, settings.log.format, name)
    passphrase = passphrase_of(settings.keys, Path(settings.directory))
    received: list[signal.Signals] = []

    async def main() -> None:
        task = asyncio.create_task(process(passphrase), name=name)

        def stop(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()
            if len(received) > 1:
                os._exit(130)

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        try:
            await task
        except asyncio.CancelledError:
            if not received:
                raise

    try:
        asyncio.run(main())
    except Exception as error:  # nobody else is left to write into the log why the process ends
        cause = innermost(error) if isinstance(error, ExceptionGroup) else error
        if not isinstance(cause, FederationError | PkiError | OSError):
            structlog.get_logger().critical("stopped by what nobody foresaw", exc_info=cause)
        raise cause from error
    if received and received[0] is signal.SIGINT:
        raise KeyboardInterrupt


def innermost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first thing that went wrong in a group of tasks: what a person should read."""
    first = group.exceptions[0]
    return innermost(first) if isinstance(first, BaseExceptionGroup) else first
