"""A folder of files, looked at again and again: what a change, a mistake and a silence do to services."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from federation.discovery import folder, listing
from federation.discovery.files import check_objects
from federation.discovery.folder import Folder, look, look_at
from federation.discovery.sources import LocalEvent
from federation.document import Document
from federation.document import file as document_file
from federation.events import LocalChanged, LocalGone
from federation.model import Backend, Service
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE, joined, named

ALL = joined(SERVICE, SLICE, EXPORT)
ECHO = Service("default", "echo")


class Watched:
    """A folder in a test, with what is known of it."""

    def __init__(self, path: Path, remembered: frozenset[Service] = frozenset()) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.folder = Folder(path, remembered)

    def write(self, file: str, text: str) -> Path:
        path = self.path / file
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    def look(self) -> list[str]:
        self.folder, events = look(self.folder)
        return [str(event) for event in events]

    def look_at(self, *files: str) -> list[str]:
        self.folder, events = look_at(self.folder, [str(self.path / file) for file in files])
        return [str(event) for event in events]

    @property
    def services(self) -> set[str]:
        return {service.name for service in self.folder.sources.found}

    @property
    def problems(self) -> list[str]:
        return [str(problem).removeprefix(f"{self.path}") for problem in self.folder.problems()]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    watched = Watched(tmp_path / "services")
    watched.write("echo.yaml", ALL)
    watched.look()
    assert watched.services == {"echo"}
    return watched


def backends(watched: Watched) -> set[str]:
    found = watched.folder.sources.found[ECHO].backends
    assert found is not None
    return {backend.address for backend in found[80]}


def test_the_first_look_finds_all_and_the_second_nothing_new(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.write("b.yml", named(ALL, "b"))
    watched.write("below/a.yaml", named(ALL, "a"))
    assert watched.look() == ["local service default/a changed", "local service default/b changed"]
    assert watched.look() == []
    assert watched.problems == []


def test_a_service_may_lie_in_several_files(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.write("export.yaml", EXPORT)
    watched.write("slice.yaml", SLICE)
    assert watched.look() == []
    allowed = "allowed: the name of a Service in this namespace"
    field = 'metadata.labels["kubernetes.io/service-name"]'
    assert watched.problems == [
        f"/export.yaml:4: metadata.name: there is no Service default/echo, so nothing is exported; {allowed}",
        f"/slice.yaml:6: {field}: there is no Service default/echo, so these endpoints are not used; {allowed}",
    ]
    watched.write("service.yaml", SERVICE)
    assert watched.look_at("service.yaml") == ["local service default/echo changed"]
    assert watched.folder.sources.found[ECHO].backends == {80: (Backend("10.1.0.1", 8080),)}
    assert watched.problems == []


def test_only_the_changed_file_is_read_and_only_its_service_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    for number in range(200):
        watched.write(f"{number}.yaml", named(ALL, f"s{number}"))
    watched.look()
    read: list[str] = []

    def noted(path: Path) -> tuple[Document, ...]:
        read.append(path.name)
        return document_file.read(path)

    monkeypatch.setattr(folder, "read", noted)
    watched.write("7.yaml", named(ALL, "s7").replace("8080", "9090"))
    assert watched.look_at("7.yaml") == ["local service default/s7 changed"]
    assert read == ["7.yaml"]


def test_a_change_that_means_the_same_is_no_event(watched: Watched) -> None:
    watched.write("echo.yaml", "# a remark\n" + joined(EXPORT, SLICE, SERVICE))
    assert watched.look_at("echo.yaml") == []


def test_a_deleted_file_takes_its_objects_with_it(watched: Watched) -> None:
    (watched.path / "echo.yaml").unlink()
    assert watched.look_at("echo.yaml") == ["local service default/echo is gone"]
    assert watched.look() == []


def test_slices_that_vanish_while_the_service_stays_are_silence(watched: Watched) -> None:
    watched.write("echo.yaml", joined(SERVICE, EXPORT))
    assert watched.look() == ["local service default/echo changed"]
    assert watched.folder.sources.found[ECHO].backends is None


@pytest.mark.parametrize("text", ["{broken", "", "# nothing\n", joined(SERVICE, SLICE.replace("8080", "0"))])
def test_a_mistake_keeps_what_was_said_before_until_it_is_mended(watched: Watched, text: str) -> None:
    watched.write("echo.yaml", text)
    assert watched.look_at("echo.yaml") == []
    assert watched.services == {"echo"}
    [problem] = watched.problems
    assert problem.startswith("/echo.yaml")
    assert problem.endswith("(until this is mended, what was read before stays in use)")
    watched.write("echo.yaml", ALL.replace("10.1.0.1", "10.1.0.2"))
    assert watched.look() == ["local service default/echo changed"]
    assert backends(watched) == {"10.1.0.2"}
    assert watched.problems == []


def test_a_mistake_in_one_file_leaves_the_others_alone(watched: Watched) -> None:
    watched.write("a.yaml", "{broken")
    watched.write("b.yaml", named(ALL, "b"))
    assert watched.look() == ["local service default/b changed"]
    [problem] = watched.problems
    assert problem.startswith("/a.yaml:")
    assert "stays in use" not in problem


@pytest.mark.parametrize("order", [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")])
def test_the_first_file_by_name_counts_and_both_are_named(tmp_path: Path, order: tuple[str, str]) -> None:
    watched = Watched(tmp_path)
    texts = {"a.yaml": ALL, "b.yaml": joined("# remark\n" + SLICE.replace("10.1.0.1", "10.1.0.2"))}
    for file in order:
        watched.write(file, texts[file])
        watched.look()
    assert backends(watched) == {"10.1.0.1"}
    first = f"{tmp_path}/a.yaml:10"
    assert watched.problems == [
        f"/b.yaml:2: EndpointSlice default/echo-1 is also described in {first}, which counts; allowed: each object once"
    ]
    (tmp_path / "a.yaml").write_text(joined(SERVICE, EXPORT))
    assert watched.look() == ["local service default/echo changed"]
    assert backends(watched) == {"10.1.0.2"}
    assert watched.problems == []


def test_names_that_editors_use_are_not_looked_at(watched: Watched) -> None:
    for file in (".echo.yaml.swp", ".#b.yaml", "#b.yaml#", "b.yaml~", "b.yaml.bak", "4913", "b.json"):
        watched.write(file, named(ALL, "b"))
        assert watched.look_at(file) == []
    assert watched.look() == []
    assert watched.problems == []


# ---- silence --------------------------------------------------------------------------------------------------------


def test_a_folder_that_vanishes_says_nothing(watched: Watched) -> None:
    away = watched.path.rename(watched.path.with_name("away"))
    assert watched.look() == []
    assert watched.look_at("echo.yaml") == []
    assert watched.services == {"echo"}
    [problem] = watched.problems
    assert problem.startswith(": cannot be read: No such file or directory; allowed: a folder")
    away.rename(watched.path)
    assert watched.look() == []
    assert watched.problems == []


def test_files_deleted_together_with_their_folder_say_nothing(watched: Watched) -> None:
    shutil.rmtree(watched.path)
    assert watched.look_at("echo.yaml", ".") == []
    assert watched.services == {"echo"}


def test_an_empty_folder_in_its_place_says_nothing(watched: Watched) -> None:
    away = watched.path.rename(watched.path.with_name("away"))
    watched.path.mkdir()
    for _ in range(3):
        assert watched.look() == []
    assert watched.look_at("echo.yaml") == []
    [problem] = watched.problems
    assert "is empty in place of a folder with services" in problem
    watched.path.rmdir()
    away.rename(watched.path)
    assert watched.look() == []
    assert watched.problems == []


def test_an_empty_folder_that_says_so_is_believed(watched: Watched) -> None:
    watched.path.rename(watched.path.with_name("away"))
    watched.path.mkdir()
    watched.look()
    [problem] = watched.problems
    assert "an empty file named .empty in it" in problem
    (watched.path / ".empty").touch()
    assert watched.look_at(".empty") == []
    assert watched.problems == []
    assert watched.look() == ["local service default/echo is gone"]


def test_a_folder_emptied_between_two_processes_says_so(tmp_path: Path) -> None:
    watched = Watched(tmp_path, frozenset({ECHO}))
    assert watched.look() == []
    assert watched.problems != []
    (watched.path / ".empty").touch()
    assert [*watched.look(), *watched.look()] == ["local service default/echo is gone"]
    assert watched.problems == []


def test_another_folder_is_believed_about_absent_files_when_seen_twice(watched: Watched) -> None:
    watched.path.rename(watched.path.with_name("away"))
    watched.write("b.yaml", named(ALL, "b"))
    assert watched.look() == ["local service default/b changed"]
    watched.write("c.yaml", named(ALL, "c"))
    assert watched.look() == ["local service default/c changed"]
    assert watched.services == {"echo", "b", "c"}
    assert watched.look() == ["local service default/echo is gone"]


def test_the_last_file_of_a_folder_that_is_still_there_can_be_deleted(watched: Watched) -> None:
    (watched.path / "echo.yaml").unlink()
    assert watched.look() == ["local service default/echo is gone"]
    assert watched.problems == []


def test_what_an_earlier_process_knew_is_gone_when_all_was_read_twice(tmp_path: Path) -> None:
    watched = Watched(tmp_path, frozenset({ECHO, Service("default", "old")}))
    watched.write("echo.yaml", ALL)
    broken = watched.write("z.yaml", "{broken")
    watched.look()
    assert watched.look() == [], "the unreadable file may describe it"
    broken.unlink()
    assert watched.look() == []
    assert watched.look() == ["local service default/old is gone"]
    assert watched.look() == []


def test_an_empty_folder_at_the_start_takes_nothing_from_an_earlier_process(tmp_path: Path) -> None:
    watched = Watched(tmp_path, frozenset({ECHO}))
    for _ in range(3):
        assert watched.look() == []
    assert "is empty" in watched.problems[0]
    fresh = Watched(tmp_path)
    fresh.look()
    assert fresh.problems == []


# ---- links and what is not a file -----------------------------------------------------------------------------------


def test_a_link_that_leaves_the_folder_is_refused(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password: hunter2\n")
    (watched.path / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (watched.path / "all").symlink_to(tmp_path)
    for look_again in (watched.look, lambda: watched.look_at("link.yaml")):
        assert look_again() == []
        refused = "is a link that leaves the folder; allowed: links within it"
        assert watched.problems == [
            f"/all: {refused} (until this is mended, what was read before stays in use)",
            f"/link.yaml: {refused}",
        ]


def test_a_mounted_config_map_with_a_folder_in_it(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "mount")

    def mount(version: str, address: str, *, with_b: bool) -> list[str]:
        watched.write(f"..{version}/echo.yaml", ALL.replace("10.1.0.1", address))
        watched.write(f"..{version}/sub/c.yaml", named(ALL, "c"))
        if with_b:
            watched.write(f"..{version}/b.yaml", named(ALL, "b"))
        (watched.path / "..data_tmp").symlink_to(f"..{version}")
        (watched.path / "..data_tmp").rename(watched.path / "..data")
        for name in ("echo.yaml", "sub", *(["b.yaml"] if with_b else [])):
            if not (watched.path / name).is_symlink():
                (watched.path / name).symlink_to(f"..data/{name}")
        return watched.look_at("..data")

    assert len(mount("1", "10.1.0.1", with_b=True)) == 3
    assert watched.services == {"echo", "b", "c"}
    assert mount("2", "10.1.0.2", with_b=False) == ["local service default/echo changed"]
    [problem] = watched.problems
    assert problem.startswith("/b.yaml: cannot be read: No such file or directory"), "the link still stands"
    (watched.path / "b.yaml").unlink()
    assert watched.look_at("b.yaml") == ["local service default/b is gone"]
    assert watched.problems == []


def test_a_folder_that_is_reached_twice_is_entered_once(watched: Watched) -> None:
    watched.write("sub/b.yaml", named(ALL, "b"))
    (watched.path / "z").symlink_to("sub")
    (watched.path / "sub" / "loop").symlink_to("..")
    assert watched.look() == ["local service default/b changed"]
    assert watched.look_at("z/b.yaml") == []
    assert watched.problems == []


def test_what_is_not_a_regular_file_is_refused_without_being_opened(watched: Watched) -> None:
    os.mkfifo(watched.path / "pipe.yaml")
    (watched.path / "a\nb.yaml").write_text(ALL)
    assert watched.look() == []
    assert watched.problems == [
        "/a\nb.yaml: has a name that is refused; allowed: printable characters in UTF-8",
        "/pipe.yaml: is not a regular file; allowed: a file",
    ]


def test_a_subfolder_that_cannot_be_entered_keeps_its_services(watched: Watched) -> None:
    watched.write("sub/b.yaml", named(ALL, "b"))
    watched.look()
    sub = (watched.path / "sub").rename(watched.path / ".sub")
    (watched.path / "sub").symlink_to("sub")
    assert watched.look() == []
    assert watched.services == {"echo", "b"}
    assert any(problem.startswith("/sub: cannot be read") for problem in watched.problems)
    (watched.path / "sub").unlink()
    sub.rename(watched.path / "sub")
    assert watched.look() == []
    assert watched.problems == []


def test_a_subfolder_that_is_deleted_takes_its_services_with_it(watched: Watched) -> None:
    watched.write("sub/b.yaml", named(ALL, "b"))
    watched.look()
    shutil.rmtree(watched.path / "sub")
    assert watched.look_at("sub", "sub/b.yaml") == ["local service default/b is gone"]


def test_too_many_files_say_nothing(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_FILES", 2)
    for name in ("b", "c"):
        watched.write(f"{name}.yaml", named(ALL, name))
    assert watched.look() == []
    assert watched.services == {"echo"}
    assert "too many files; allowed: at most 2" in watched.problems[0]


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_look(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = watched.write("echo.yaml", joined(SERVICE, SLICE))

    def read_while_written(file: Path) -> tuple[Document, ...]:
        documents = document_file.read(file)
        path.write_text(ALL.replace("10.1.0.1", "10.1.0.2"))
        return documents

    with monkeypatch.context() as patched:
        patched.setattr(folder, "read", read_while_written)
        assert watched.look_at("echo.yaml") == []
    assert watched.folder.sources.found[ECHO].exported
    assert watched.look_at("echo.yaml") == ["local service default/echo changed"]
    assert backends(watched) == {"10.1.0.2"}


def test_a_look_that_is_stopped_takes_nothing(watched: Watched) -> None:
    watched.write("b.yaml", named(ALL, "b"))
    stopped, events = look(watched.folder, lambda: True)
    assert (stopped, events) == (watched.folder, ())


def test_events_carry_the_values(watched: Watched) -> None:
    watched.write("echo.yaml", SERVICE)
    _, events = look(watched.folder)
    [event] = events
    assert isinstance(event, LocalChanged)
    assert not event.local.exported
    (watched.path / "echo.yaml").unlink()
    _, gone = look(watched.folder)
    assert gone == (LocalGone(ECHO),)
    assert all(isinstance(event, LocalEvent) for event in (*events, *gone))


def test_check_objects_looks_at_a_folder_as_an_agent_does(watched: Watched) -> None:
    watched.write("a.yaml", SERVICE)
    watched.write("b.yaml", named(EXPORT, "b"))
    assert [(Path(problem.file).name, problem.line) for problem in check_objects(watched.path)] == [
        ("b.yaml", 4),
        ("echo.yaml", 1),
    ]
