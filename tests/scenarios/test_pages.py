"""The pages for operators, followed to the letter on a demo: each block of commands, and each answer that is shown."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.scenarios.test_demo import INTERRUPTED, demo
from tests.scenarios.test_readme import Block, blocks, shell

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

DOCS = Path(__file__).parents[2] / "docs"
AGENT = "/var/lib/federation/agent/"
"""The folder of the agent of whose cluster a page speaks."""

WITHIN = 120.0
"""Seconds that one block may take on a busy machine."""


@pytest.mark.parametrize(("page", "cluster"), [("rotation.md", "west")])
async def test_the_blocks_of_a_page_do_what_it_says(
    page: str, cluster: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("d")
    place = home / "demo"
    text = (DOCS / page).read_text().replace(AGENT, f"{place}/{cluster}/agent/")
    async with demo(home, "up", "--directory", place) as made, shell(tmp_path) as bash:
        await made.says("Ctrl-C stops everything")
        await bash.follow(
            Block(f"export PATH=$PWD/.venv/bin:$PATH FEDERATION_HUB=unix://{place}/hub/api.sock\n")
        )
        followed = blocks(text)
        assert followed
        for block in followed:
            async with asyncio.timeout(WITHIN):
                await bash.follow(block)
        made.signal(signal.SIGINT)
        assert await made.end() == INTERRUPTED
        assert await made.left() == ([], [])
