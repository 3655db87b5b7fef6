"""`python -m bench`: measure, print one table, write the samples to `bench/results/<time>.json`.

The exit code is 0 if every goal is reached, 1 if one is not or something failed, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import msgspec

from bench import decision, demo, faults, issuance, rotation, tunnels
from bench.harness import Judged, Row, spread
from federation.errors import FederationError

Benchmark = Callable[[Path], Awaitable[list[Row]]]

BENCHMARKS: Mapping[str, Benchmark] = {
    "tunnel-cpu": tunnels.tunnel_cpu,
    "haproxy-kept": tunnels.haproxy_kept,
    "haproxy-new": tunnels.haproxy_new,
    "freeze": faults.freeze,
    "failover": faults.failover,
    "decision": decision.decision,
    "issuance": issuance.issuance,
    "rotation": rotation.rotation,
    "demo": demo.demo,
}
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure against the peers.")
    parser.add_argument("--only", choices=BENCHMARKS, metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--seconds",
        type=_length,
        default=rotation.SHORT,
        help=f"length of a run of `rotation` ({rotation.SHORT:.0f}); its goal is for {rotation.WHOLE:.0f}",
    )
    parsed = parser.parse_args(arguments)
    only: str | None = parsed.only
    benchmarks: dict[str, Benchmark] = {
        **BENCHMARKS,
        "rotation": partial(rotation.rotation, seconds=parsed.seconds),
    }
    began = datetime.now(UTC)
    machine = _machine()
    rows: list[Row] = []
    failed = False
    for name in [only] if only else benchmarks:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows += asyncio.run(_measure(benchmarks[name]))
        except FederationError as error:
            failed = True
            print(f"{name}: {error}\n  {error.hint}".rstrip(), file=sys.stderr)
        except KeyboardInterrupt:
            return 130
    print(table(rows))
    print(f"\nsamples: {_write(rows, began, machine)}")
    return 0 if rows and not failed and all(row.holds for row in rows) else 1


def _length(text: str) -> float:
    seconds = float(text)
    if not rotation.SHORT <= seconds <= rotation.LONGEST:
        raise argparse.ArgumentTypeError(f"from {rotation.SHORT:.0f} to {rotation.LONGEST:.0f} seconds")
    return seconds


async def _measure(benchmark: Benchmark) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="federation-bench-") as folder:
        return await benchmark(Path(folder))


def table(rows: Sequence[Row]) -> str:
    """Name, ours, peer, ratio with its quartiles, goal and verdict, in columns."""
    lines = [("benchmark", "ours", "peer", "ratio (quartiles)", "goal", "", "what")]
    lines += [
        (
            row.name,
            _samples(row.ours, row),
            _samples(row.peer, row),
            _ratio(row),
            _goal(row),
            _mark(row),
            row.note,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _samples(samples: Sequence[float], row: Row) -> str:
    if not samples:
        return "–"
    shown = max(samples) if row.judged is Judged.WORST else median(samples)
    return f"{_number(shown)} {row.unit}"


def _ratio(row: Row) -> str:
    if not row.ratios:
        return "–"
    low, high = spread(row.ratios)
    return f"{median(row.ratios):.2f} ({low:.2f}–{high:.2f})"


def _goal(row: Row) -> str:
    if row.goal is None:
        return "–"
    return f"≤ {row.goal:g}" if row.judged is Judged.RATIO else f"≤ {_number(row.goal)} {row.unit}"


def _mark(row: Row) -> str:
    if row.goal is None:
        return " "
    return "✓" if row.holds else "✗"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"


def _machine() -> dict[str, object]:
    """Where and when this was measured; `load` is that of the last minute before it began."""
    models = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "cpu": next(models, platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _write(rows: Sequence[Row], began: datetime, machine: Mapping[str, object]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{began:%Y-%m-%dT%H-%M-%SZ}.json"
    document = {
        "began": began,
        "machine": machine,
        "rows": [
            {**msgspec.to_builtins(row), "ratios": row.ratios, "figure": row.figure, "holds": row.holds}
            for row in rows
        ],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
