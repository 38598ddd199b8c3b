"""The command line's way in and its ways out."""

from __future__ import annotations

import io
import os
import shlex
import sys

from iresnet_flows.errors import DataError, MissingExtra, UsageError

__all__ = ["main"]


def main() -> None:
    """Run the command; what a person can mend ends with one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal of few characters has no ±
    try:
        import typer

        from iresnet_flows.experiments.commands import app

        try:
            code = app(prog_name="iresnet-flows", standalone_mode=False)
            sys.stdout.flush()
            sys.exit(code)
        except typer.TyperException as error:
            said = error.format_message()
            said += "" if said.endswith((".", "?")) else "."
            fail(f"{said} In: {shlex.join(['iresnet-flows', *sys.argv[1:]])}")
    except (DataError, UsageError, MissingExtra) as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(str(MissingExtra(error.name or "a package", "experiments")))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}. Mend that and try again.")


def fail(message: str) -> None:
    """One line on standard error, and exit code 2."""
    sys.stderr.write(f"iresnet-flows: {' '.join(message.split())}\n")
    sys.exit(2)
