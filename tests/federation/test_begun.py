"""What begins with a change, and what does not: changes of what is there, returns that nobody noticed, and ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from federation.begun import Begun, begun
from federation.events import Event, ExportChanged, ExportGone, LoadChanged, LocalChanged, LocalGone, Tick
from federation.model import View
from tests.federation.world import ECHO, HTTP, NOW, backend, joined, load, local, spec, view_after

TWO = (HTTP, replace(HTTP, name="two", number=81))
START = view_after(*joined("east", "west", "central"))
IMPORTED = view_after(ExportChanged(spec("west")), start=START)
EXPORTED = view_after(LocalChanged(local(backend(1))), start=START)


def after(start: View, *events: Event) -> Begun:
    return begun(start, view_after(*events, start=start), {ECHO})


def test_an_import_begins_with_its_listener() -> None:
    assert after(START, ExportChanged(spec("west"))) == Begun(ports=frozenset({(ECHO, 80)}))


def test_an_export_of_ours_begins_as_both() -> None:
    wanted = Begun(frozenset({ECHO}), frozenset({(ECHO, 80)}))
    assert after(START, LocalChanged(local(backend(1)))) == wanted


def test_a_local_service_that_is_not_exported_is_nothing_to_tell() -> None:
    assert not after(START, LocalChanged(local(backend(1), exported=False)))
    assert not after(IMPORTED, LocalChanged(local(backend(1), exported=False)))


def test_our_export_of_what_is_imported_already_needs_no_other_listener() -> None:
    assert after(IMPORTED, LocalChanged(local(backend(1)))) == Begun(exports=frozenset({ECHO}))


def test_a_second_port_begins_alone() -> None:
    assert after(IMPORTED, ExportChanged(spec("west", ports=TWO))) == Begun(ports=frozenset({(ECHO, 81)}))
    both = Begun(frozenset({ECHO}), frozenset({(ECHO, 81)}))
    assert after(EXPORTED, LocalChanged(local(backend(1), ports=TWO))) == both


def test_another_exporter_of_the_same_service_begins_nothing() -> None:
    assert not after(IMPORTED, ExportChanged(spec("central")), LoadChanged(load("central")))


def test_what_ends_does_not_begin() -> None:
    assert not after(IMPORTED, ExportGone("west", ECHO))
    assert not after(EXPORTED, LocalGone(ECHO))
    assert not after(EXPORTED, LocalChanged(local(backend(1), exported=False)))


def test_what_returns_begins_again_with_the_number_that_it_had() -> None:
    gone = view_after(ExportGone("west", ECHO), start=IMPORTED)
    assert after(gone, ExportChanged(spec("west"))) == Begun(ports=frozenset({(ECHO, 80)}))
    silent = view_after(LocalChanged(local(backend(1), exported=False)), start=EXPORTED)
    assert after(silent, LocalChanged(local(backend(1)))).exports == {ECHO}


def test_time_and_load_begin_nothing() -> None:
    assert not after(IMPORTED, LoadChanged(load("west")), Tick(NOW + timedelta(seconds=1), 1.0))


def test_two_are_united_and_told_apart() -> None:
    one, other = Begun(exports=frozenset({ECHO})), Begun(ports=frozenset({(ECHO, 80)}))
    assert one | other == Begun(one.exports, other.ports)
    assert (one | other) - one == other
    assert not (one | other) - one - other
