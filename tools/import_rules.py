"""Two kinds of import rule that import-linter does not have, for the contracts in `pyproject.toml`.

Both refuse by default: a module that nobody has listed is pure, and a library has no home but those named. A
module may be named before it exists; the contract then says so in a warning.
"""

from collections.abc import Iterable, Sequence

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def is_in(module: str, packages: Iterable[str]) -> bool:
    """Whether `module` is one of `packages` or lies in one of them."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


class ImportRule(Contract):
    """What both kinds share: the modules they judge, and how a broken rule looks."""

    def own_modules(self, graph: ImportGraph) -> list[str]:
        return sorted(name for name in graph.modules if is_in(name, self.session_options["root_packages"]))

    def verdict(self, broken: Sequence[str], named: Iterable[str], graph: ImportGraph) -> ContractCheck:
        missing = sorted(set(named) - graph.modules)
        warnings = [f"{name} is named here and does not exist." for name in missing]
        return ContractCheck(kept=not broken, warnings=warnings, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for sentence in check.metadata["broken"]:
            output.print_error(f"- {sentence}", bold=False)
        output.new_line()


class PureContract(ImportRule):
    """Only `shells` may import `world`, and only shells may import shells; all other modules are pure."""

    type_name = "pure"
    shells = fields.ListField(subfield=fields.StringField())
    world = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        shells: list[str] = self.contract_options["shells"]
        refused = [*shells, *self.contract_options["world"]]
        broken = [
            f"{module} is pure and imports {imported}"
            for module in self.own_modules(graph)
            if not is_in(module, shells)
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if is_in(imported, refused)
        ]
        return self.verdict(broken, shells, graph)


class HomesContract(ImportRule):
    """A foreign library is imported in its homes only; `homes` holds lines such as `yaml in app.document`."""

    type_name = "homes"
    homes = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        lines: list[str] = self.contract_options["homes"]
        pairs = (line.split(" in ") for line in lines)
        homes = {library: [home.strip() for home in names.split(",")] for library, names in pairs}
        broken = [
            f"{module} imports {library}, whose home is {', '.join(homes[library])}"
            for module in self.own_modules(graph)
            for library in sorted(graph.find_modules_directly_imported_by(module))
            if library in homes and not is_in(module, homes[library])
        ]
        return self.verdict(broken, {home for named in homes.values() for home in named}, graph)
