"""The command as a person types it."""

import pytest

from iresnet_flows import cli


def command(monkeypatch, *arguments):
    """Its exit code."""
    monkeypatch.setattr("sys.argv", ["iresnet-flows", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code
