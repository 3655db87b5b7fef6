from typing import Any

from grimp import ImportGraph

from tools.import_rules import HomesContract, ImportRule, PureContract


def graph_of(*imports: tuple[str, str]) -> ImportGraph:
    graph = ImportGraph()
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported)
    return graph


def broken(contract: type[ImportRule], options: dict[str, Any], graph: ImportGraph) -> list[str]:
    check = contract("rule", {"root_packages": ["app"]}, options).check(graph, verbose=False)
    sentences: list[str] = check.metadata["broken"]
    assert check.kept == (not sentences)
    return sentences


PURE = {"shells": ["app.server", "app.cli"], "world": ["socket"]}


def test_a_module_that_nobody_listed_may_not_import_the_world() -> None:
    graph = graph_of(("app.server", "socket"), ("app.cli.main", "socket"), ("app.decide", "socket"))
    assert broken(PureContract, PURE, graph) == ["app.decide is pure and imports socket"]


def test_a_pure_module_may_not_reach_the_world_through_a_shell() -> None:
    graph = graph_of(
        ("app.cli.main", "app.server"), ("app.decide", "app.server"), ("app.server", "app.decide")
    )
    assert broken(PureContract, PURE, graph) == ["app.decide is pure and imports app.server"]


def test_a_name_that_only_begins_like_a_shell_is_not_that_shell() -> None:
    assert broken(PureContract, PURE, graph_of(("app.server_names", "socket"))) != []
    assert broken(PureContract, PURE, graph_of(("app.decide", "app.server_names"))) == []


def test_a_shell_that_does_not_exist_is_a_warning() -> None:
    contract = PureContract("rule", {"root_packages": ["app"]}, PURE)
    check = contract.check(graph_of(("app.cli", "app.decide")), verbose=False)
    assert check.kept
    assert check.warnings == ["app.server is named here and does not exist."]


def test_a_library_stays_in_its_homes() -> None:
    graph = graph_of(
        ("app.document.reader", "yaml"), ("app.files", "yaml"), ("app.cli", "yaml"), ("yaml", "os")
    )
    options = {"homes": ["yaml in app.document, app.files"]}
    assert broken(HomesContract, options, graph) == [
        "app.cli imports yaml, whose home is app.document, app.files"
    ]
