"""What the tour claims, whether it held, and the figure beside it. Time is shown; it never decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from federation.demo.load import Answer


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence that is true or not; `figure` was measured, `goal` is what a reader compares it with.

    A goal that was `missed` is shown as such; it does not make the sentence untrue.
    `answers` are those of a load on whose account it is made.
    """

    text: str
    holds: bool
    figure: str = ""
    goal: str = ""
    answers: tuple[Answer, ...] = ()
    missed: bool = False


class Screen(Protocol):
    """Where the tour is told."""

    def step(self, title: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def watch(self, text: str, answers: Sequence[Answer]) -> None: ...

    def claim(self, claim: Claim) -> None: ...

    @contextmanager
    def live(self) -> Iterator[None]: ...


@dataclass(slots=True)
class Record:
    """Every claim of a tour, told to a screen as it is made."""

    screen: Screen
    claims: list[Claim] = field(default_factory=list)

    def claim(
        self,
        text: str,
        holds: bool,
        figure: str = "",
        goal: str = "",
        answers: Sequence[Answer] = (),
        *,
        missed: bool = False,
    ) -> None:
        made = Claim(text, holds, figure, goal, tuple(answers), missed)
        self.claims.append(made)
        self.screen.claim(made)

    @property
    def all_hold(self) -> bool:
        return bool(self.claims) and all(claim.holds for claim in self.claims)
