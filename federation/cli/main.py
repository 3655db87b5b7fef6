"""Where the process begins: an interrupt ends it quietly from the first moment on, before anything big is imported."""

from federation.cli.interrupt import INTERRUPTED, leaving_at_once


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    try:
        with leaving_at_once():
            import sys

            from federation.cli.program import run
        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
