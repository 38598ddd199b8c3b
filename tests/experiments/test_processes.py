"""Work in several processes ends with the work, with an error, and with a process that dies."""

import multiprocessing
import os
import platform
import signal
import time

import pytest

pytest.importorskip("rich", reason="the experiments need their extra")

import torch
from paging import SIZE, pages_of_trainings
from rich.console import Console

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.processes import each_in_parallel, workers

LONG = 600.0


def each(items, perform):
    return list(each_in_parallel(items, 2, Console(quiet=True), "test", perform))


def test_results_come_in_the_order_of_the_items():
    assert each([3, 1, 2], str) == ["3", "1", "2"]


def test_a_process_has_one_thread():
    with workers(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is for glibc")
def test_a_process_keeps_what_it_has_freed():
    of_a_tensor = 4 * SIZE / os.sysconf("SC_PAGE_SIZE")
    with workers(1) as pool:
        assert pool.submit(pages_of_trainings).result() < 8 * of_a_tensor


def test_an_error_comes_as_it_is():
    with pytest.raises(ValueError, match="invalid literal"):
        each(["1", "two"], int)


def test_a_process_that_dies_is_told_of():
    with pytest.raises(UsageError, match=r"was killed from outside.*--jobs"):
        each([9, 9], os._exit)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere no signal is ignored by inheritance")
def test_ctrl_c_while_a_process_starts_is_left_to_its_parent():
    with workers(1) as pool:
        ended = pool.submit(int, 7)
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, signal.SIGINT)
        assert ended.result() == 7


def interrupted():
    with workers(1) as pool:
        pool.submit(time.sleep, LONG)
        raise KeyboardInterrupt


def test_an_interruption_waits_for_nothing():
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not multiprocessing.active_children()
    assert time.monotonic() - begun < LONG / 2
