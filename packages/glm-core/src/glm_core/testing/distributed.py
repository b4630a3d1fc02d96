"""Runs a function on several processes of this machine, joined by gloo."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run_distributed(
    fn: Callable[..., Any], world_size: int, *args: Any, timeout_s: float = 180.0
) -> list[Any]:
    """Calls `fn(rank, *args)` on `world_size` processes with torch.distributed set up.

    Args:
        fn: a function at the top level of a module or test file.
        world_size: number of processes.
        args: plain values, handed to each process.
        timeout_s: after so many seconds without an answer all processes are stopped.

    Returns:
        What each rank returned, in order of rank; plain values or numpy arrays.

    Raises:
        RuntimeError: a rank raised (its traceback is in the message) or died.
        TimeoutError: a rank did not answer in time.
    """
    # A server process imports torch once and is forked from, before any thread is started.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    module = sys.modules[fn.__module__]
    target = (fn.__module__, str(module.__file__), fn.__qualname__)
    with tempfile.TemporaryDirectory() as folder:
        processes, pipes = [], []
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_run_rank,
                args=(sender, target, rank, world_size, f"{folder}/store", timeout_s, args),
                daemon=True,
            )
            process.start()
            sender.close()
            processes.append(process)
            pipes.append(receiver)
        try:
            results = _collect(pipes, timeout_s)
        except BaseException:
            for process in processes:
                process.kill()
            raise
        finally:
            for process in processes:
                process.join()
        return results


def _collect(pipes: list[Connection], timeout_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        waiting = [pipe for rank, pipe in enumerate(pipes) if rank not in results]
        ready = wait(waiting, timeout_s)
        if not ready:
            missing = [rank for rank in range(len(pipes)) if rank not in results]
            raise TimeoutError(f"ranks {missing} did not answer within {timeout_s:g} s")
        failures = []
        for rank in sorted(pipes.index(pipe) for pipe in ready):  # type: ignore[arg-type]
            failed, value = _receive(pipes[rank])
            results[rank] = value
            if failed:
                failures.append(f"rank {rank} {value}")
        if failures:
            raise RuntimeError("\n".join(failures))
    return [results[rank] for rank in range(len(pipes))]


def _receive(pipe: Connection) -> tuple[bool, Any]:
    """Returns whether the rank failed, and its result or what happened."""
    try:
        failed, value = pipe.recv()
    except EOFError:
        return True, "died without an answer"
    return failed, f"failed:\n{value}" if failed else value


def _run_rank(
    sender: Connection,
    target: tuple[str, str, str],
    rank: int,
    world_size: int,
    store: str,
    timeout_s: float,
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
        )
        result = _find(*target)(rank, *args)
        dist.barrier()
        sender.send((False, result))
    except BaseException:
        # Before the group falls apart: the first failure is then the first to be read.
        sender.send((True, traceback.format_exc()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _find(module_name: str, path: str, qualname: str) -> Callable[..., Any]:
    """Returns the function by its module's name, or from its file when no path leads there."""
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function
