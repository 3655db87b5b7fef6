"""Runs a transcript: commands, a line of dashes, and what a network of owner, hub and importers says to them.

Blocks are separated by an empty line; a line that begins with `#` explains. `--rewrite` writes what is said now in
place of what was expected, to be reviewed as a diff.
"""

from __future__ import annotations

from pathlib import Path

from federation.model import Position
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Item
from federation.sync.protocol import BATCH_BYTES, Batch, Change, Counts, beat_count
from federation.sync.refusals import Refusal
from tests.federation.sync.network import OWNER, Importer, Network, Owner

RULE = "----"


def replay(path: Path) -> str:
    """The transcript as it reads when its commands are run now."""
    network, counts = Network(Owner(), {"west": Importer(), "north": Importer()}), Counts()
    blocks = []
    for block in path.read_text().strip().split("\n\n"):
        head = block.split("\n")
        said = head[: head.index(RULE)] if RULE in head else head
        commands = [line for line in said if not line.startswith("#")]
        output = [line for command in commands for line in _run(network, counts, command)]
        blocks.append("\n".join([*said, RULE, *(output or ["ok"])] if commands else said))
    return "\n\n".join(blocks) + "\n"


def _run(network: Network, counts: Counts, command: str) -> list[str]:
    verb, *arguments = command.split()
    options = dict(word.split("=", 1) for word in arguments if "=" in word and "@" not in word)
    words = [word for word in arguments if "=" not in word or "@" in word]
    limit = int(options.get("limit", BATCH_BYTES))
    try:
        match verb, words:
            case "owner-starts", []:
                network.owner.disk = int(options.get("disk", network.owner.disk))
                network.start_owner()
                return [f"disk holds epoch {network.owner.disk}"]
            case "owner-connects", []:
                network.connect_owner()
                return [
                    f"the hub has {network.hub.highest}, the owner is in epoch {network.owner.feed.epoch}"
                ]
            case "owner-cut", []:
                network.cut_owner()
            case "set", [key, value]:
                network.owner.set(key, value)
                return [f"{key} {network.owner.feed.position}"]
            case "remove", [key]:
                network.owner.remove(key)
                return [f"{key} {network.owner.feed.position}"]
            case "publish", _:
                return _publish(network, limit, words)
            case "hub-restarts", []:
                network.hub.restart()
                network.hub.disk = int(options.get("disk", network.hub.disk))
                network.cut_owner()
                for name in network.importers:
                    network.cut(name)
            case "connect", [name]:
                network.connect(name)
                return [f"{name} has {network.importers[name].inbound.cursor}"]
            case "cut", [name]:
                network.cut(name)
            case "relay", [name, *rest]:
                return _relay(network, name, limit, rest)
            case "deliver", [name]:
                return _arrive(network, name, network.held.pop(name))
            case "save", [name]:
                network.importers[name].save()
            case "restart", [name]:
                network.cut(name)
                network.importers[name].restart()
            case "batch", ["hub", *entries]:
                return [_refusal(one) for one in network.hub_receives(_written(options, entries))]
            case "batch", [name, *entries]:
                importer, batch = network.importers[name], _written(options, entries)
                return [*map(_change, importer.receive(batch)[1]), f"  ack {importer.inbound.cursor}"]
            case "afresh", [name]:
                network.hub.streams[name] = network.hub.streams[name].afresh()
            case "forbid", [key]:
                return [_refusal(one) for one in network.forbid(key)]
            case "allow", [key]:
                network.allow(key)
            case "beat", [count]:
                epoch, _, beats = count.rpartition(".")
                number = beat_count(int(epoch), int(beats))
                return [f"{number} {'a sign of life' if counts.rose(OWNER, number) else 'an echo'}"]
            case "show", [name]:
                return _show(network, name)
            case _:
                raise AssertionError(f"no such command: {command}")
    except ProtocolViolation as violation:
        return [f"violation: {violation.problem}"]
    return []


def _publish(network: Network, limit: int, words: list[str]) -> list[str]:
    batch = network.publish(limit)
    if batch is None:
        return ["nothing to publish"]
    if "lost" in words:
        return [f"{_batch(batch)} (lost)"]
    refusals = network.hub_receives(batch)
    return [_batch(batch), *map(_refusal, refusals), f"  ack {network.hub.relay.position}"]


def _relay(network: Network, name: str, limit: int, words: list[str]) -> list[str]:
    batch = network.relay(name, limit)
    if batch is None:
        return ["nothing to relay"]
    if "lost" in words:
        return [f"{_batch(batch)} (lost)"]
    if "held" in words:
        network.held[name] = batch
        return [f"{_batch(batch)} (on its way)"]
    return [_batch(batch), *_arrive(network, name, batch)]


def _arrive(network: Network, name: str, batch: Batch) -> list[str]:
    changes = network.importer_receives(name, batch)
    return [*map(_change, changes), f"  ack {network.importers[name].inbound.cursor}"]


def _written(options: dict[str, str], entries: list[str]) -> Batch:
    """A batch written by hand: `key@seq=value`, `key@seq` for a tombstone."""
    items = []
    for entry in entries:
        place, equals, value = entry.partition("=")
        key, _, seq = place.partition("@")
        items.append(Item(key, int(seq), (value or "gone").encode(), gone=not equals))
    at = Position(*map(int, options["to"].split(".")))
    kind = options.get("kind", "delta")
    return Batch(OWNER, at.epoch, at.seq, kind != "delta", kind == "last", tuple(items))


def _batch(batch: Batch) -> str:
    kind = ("full, last" if batch.last else "full") if batch.full else "delta"
    items = " ".join(f"{item.key}@{item.seq}{' gone' if item.gone else ''}" for item in batch.items)
    return f"{kind} up to {batch.top}: {items or 'no entries'}"


def _refusal(refusal: Refusal) -> str:
    return f"  refused {refusal.key}@{refusal.seq}: {refusal.why.rule}, {refusal.why.detail}"


def _change(change: Change) -> str:
    return f"  {change.key} {change.at} " + (
        "removed" if change.item is None else f"= {change.item.body.decode()}"
    )


def _show(network: Network, name: str) -> list[str]:
    importer = network.importers[name]
    keys = [f"{key} {importer.inbound.held[key]} = {value}" for key, value in sorted(importer.values.items())]
    return [f"cursor {importer.inbound.cursor}", *keys]
