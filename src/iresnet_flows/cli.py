"""The command line's way in and its ways out."""

from __future__ import annotations

import shlex
import sys

from iresnet_flows.errors import DataError, MissingExtra, UsageError

__all__ = ["main"]


def main() -> None:
    """Run the command; what a person can mend ends with one line and exit code 2."""
    try:
        import typer

        from iresnet_flows.experiments.commands import app

        try:
            sys.exit(app(standalone_mode=False))
        except typer.TyperException as error:
            fail(f"{error.format_message()} In: {shlex.join(['iresnet-flows', *sys.argv[1:]])}")
    except (DataError, UsageError, MissingExtra) as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(str(MissingExtra(error.name or "a package", "experiments")))
    except KeyboardInterrupt:
        sys.exit(130)


def fail(message: str) -> None:
    """One line on standard error, and exit code 2."""
    sys.stderr.write(f"iresnet-flows: {' '.join(message.split())}\n")
    sys.exit(2)
