"""What people write and read: strict YAML, decoded into frozen Structs, with errors that name the line.

The only place that knows YAML. It refuses what would surprise: aliases, tags, duplicate keys, infinities. Texts
become documents here; `federation.document.file` reads them.
"""

from federation.document.reader import Document, parse
from federation.document.writer import dump

__all__ = ["Document", "dump", "parse"]
