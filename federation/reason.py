"""What an operator answers to why: for journals and logs, and for whoever is turned away by what he did.

One short line of printable characters, so that it fits in every place where it is kept, forges no line of a log and
steers nobody's terminal.
"""

from __future__ import annotations

LONGEST_REASON = 200
"""Characters."""
ALLOWED = f"one line of at most {LONGEST_REASON} printable characters"


def why_unspeakable(text: str) -> str | None:
    """What is wrong with a reason, or None. An empty one is none at all, which is for the caller to judge."""
    if text and not text.strip():
        return "it says nothing"
    if len(text) > LONGEST_REASON:
        return f"it is {len(text)} characters long"
    if not text.isprintable():
        return "it has a line break or another character that cannot be printed"
    return None
