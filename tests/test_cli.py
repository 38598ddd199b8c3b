"""The command line's ways in and out, whatever the command."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("numpy")

from commands import command

from iresnet_flows import __version__
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.storage import alone_in, claim_folder, output_folder, write_text
from iresnet_flows.experiments.terminal import say_place, terminal


def test_nothing_asked_for_is_answered_with_the_help(monkeypatch, capsys):
    assert not command(monkeypatch)
    said = capsys.readouterr()
    assert "Usage: iresnet-flows" in said.out
    assert not said.err


def test_the_version_is_shown(monkeypatch, capsys):
    assert not command(monkeypatch, "--version")
    assert capsys.readouterr().out.startswith(f"iresnet-flows {__version__}, torch ")


def test_the_package_runs_as_a_module():
    arguments = [sys.executable, "-m", "iresnet_flows", "report"]
    said = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr == "iresnet-flows: Missing argument 'DIR...'. In: iresnet-flows report\n"


@pytest.mark.parametrize("option", ["--hlep", "--version"])
def test_an_option_that_is_none_ends_with_one_line(option, monkeypatch, capsys):
    assert command(monkeypatch, "compare", option) == 2
    said = capsys.readouterr().err
    assert f"No such option: {option}" in said
    assert said.endswith(f". In: iresnet-flows compare {option}\n")
    assert said.count("\n") == 1


def test_a_reader_that_has_gone_is_no_error():
    arguments = [sys.executable, "-m", "iresnet_flows", "compare", "--help"]
    read, write = os.pipe()
    os.close(read)
    said = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert not said.stderr


def test_a_terminal_of_few_characters_is_told_what_it_can_show():
    code = """if True:
        from iresnet_flows import cli
        from iresnet_flows.experiments import commands
        commands.app = lambda **_: print("1.0 ± 0.1")
        cli.main()
    """
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert said.stdout == "1.0 ? 0.1\n"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("No space left\nC++")]
)
def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_file(error, tmp_path, monkeypatch):
    def full(self, *_, **__):
        self.write_bytes(b"half")
        raise error

    path = tmp_path / "log.csv"
    write_text(path, "whole")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match=r"cannot be written: No space left\. Free"):
        write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    assert path.read_bytes() == b"whole"


def test_other_trouble_with_files_is_one_line(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "report", "x" * 300) == 2
    said = capsys.readouterr().err
    # From Python 3.13 on a glob leaves out what it cannot read.
    globs = sys.version_info >= (3, 13)
    assert ("holds no results" if globs else "File name too long") in said
    assert said.count("\n") == 1


def test_work_that_is_refused_leaves_no_new_folder(tmp_path):
    with pytest.raises(UsageError), output_folder(tmp_path / "new"):
        raise UsageError("no")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("what", ["fig1", "table2", "posteriors"])
def test_a_folder_that_is_not_there_has_nothing_to_resume(what, tmp_path, monkeypatch, capsys):
    mistyped = tmp_path / "figg"
    assert command(monkeypatch, "reproduce", what, "--resume", "--out", mistyped) == 2
    assert f"nothing to resume in {mistyped}: leave out --resume" in capsys.readouterr().err
    assert not mistyped.exists()


def test_a_folder_has_one_command_at_work_and_a_killed_one_leaves_it(tmp_path):
    code = f"""if True:
        import sys
        from pathlib import Path
        from iresnet_flows.experiments.storage import alone_in
        with alone_in(Path({str(tmp_path)!r})):
            print("in", flush=True)
            sys.stdin.read()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(UsageError, match=f"process {other.pid} is at work"):
            alone_in(tmp_path).__enter__()
        other.kill()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_work_that_is_there_is_not_begun_anew(tmp_path):
    claim_folder(tmp_path, {"seed": 0}, resume=False)
    claim_folder(tmp_path, {"seed": 0}, resume=True)
    with pytest.raises(UsageError, match="holds a run already"):
        claim_folder(tmp_path, {"seed": 0}, resume=False)


def test_brackets_in_the_name_of_a_file_are_no_styles(capsys):
    say_place(terminal(), "It is at", Path("[red] ") / ("long" * 30))
    assert capsys.readouterr().out == f"It is at [red] /{'long' * 30}\n"
