"""What programs may use."""

from __future__ import annotations

from dataclasses import dataclass

from glm_core.agent.executor import ExecutorLimits
from glm_core.agent.executor.limits import MIB


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """What a program may use, and what keeps it in."""

    sandbox: str = "auto"
    """auto, bubblewrap, unshare, or unsafe-local, which is none."""
    wall_s: float = 20.0
    """Seconds by the clock that a program may run; compiling is counted apart."""
    cpu_s: float = 5.0
    """Processor seconds of all its processes."""
    compile_s: float = 60.0
    """Seconds that compiling may take, by the clock; twice as many of processor time."""
    memory_bytes: int = 512 * MIB
    """Memory of a program's own data."""
    processes: int = 64
    """Processes and threads of a program."""
    output_bytes: int = 65_536
    """That a program may write to its two streams."""
    file_bytes: int = 16 * MIB
    """Size of a file that it may write."""
    disk_bytes: int = 256 * MIB
    """Size of its folder."""
    workers: int = 0
    """Programs at a time; 0: as many as there are processors for this process."""
    rust_crates: str = ""
    """Folder that `cargo vendor` made, with rand 0.4, regex 1 and md5 0.7."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a limit that is not positive."""
        for name in ("wall_s", "cpu_s", "compile_s", "output_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}: it must be at least 0")
        self.run_limits(0)  # checks the others

    def run_limits(self, overhead: int) -> ExecutorLimits:
        """Returns the limits of a run, with so many bytes for its run-time system."""
        return ExecutorLimits(
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            memory_bytes=self.memory_bytes + overhead,
            processes=self.processes,
            output_chars=self.output_bytes,
            file_bytes=self.file_bytes,
            disk_bytes=self.disk_bytes,
        )

    def compile_limits(self) -> ExecutorLimits:
        """Returns the limits of a compiler."""
        return ExecutorLimits(
            wall_s=self.compile_s,
            cpu_s=2 * self.compile_s,
            memory_bytes=2048 * MIB,
            processes=256,
            open_files=1024,
            output_chars=1 << 20,
            file_bytes=min(64 * MIB, self.disk_bytes),
            disk_bytes=self.disk_bytes,
        )
