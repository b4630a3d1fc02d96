"""What a code interpreter may use, and what of its output is kept."""

from __future__ import annotations

from dataclasses import dataclass, fields

MIB = 1024 * 1024

_SMALLEST = {
    "memory_bytes": 256 * MIB,
    "processes": 16,
    "open_files": 64,
    "file_bytes": MIB,
    "disk_bytes": MIB,
    "disk_files": 64,
}
"""Below these a Python kernel does not start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorLimits:
    """Limits of one session; each is enforced from outside the code that runs."""

    wall_s: float = 30.0
    """Seconds of one run; then it is interrupted."""
    grace_s: float = 2.0
    """Seconds that an interrupted run has to stop; then its kernel is killed."""
    start_s: float = 30.0
    """Seconds that a kernel may take to start."""
    cpu_s: float = 60.0
    """Processor seconds of one run, all its processes together, until the next run begins."""
    memory_bytes: int = 2048 * MIB
    """Memory of all processes together, and of each; files in the work folder come on top."""
    processes: int = 64
    """Processes and threads together."""
    open_files: int = 256
    """Open files of each process."""
    file_bytes: int = 64 * MIB
    """Size of one file."""
    disk_bytes: int = 256 * MIB
    """Size of the work folder and of the temporary files together; they lie in memory."""
    disk_files: int = 10_000
    """Number of files and folders there."""
    output_chars: int = 65_536
    """Characters of text that are kept of one run."""
    images: int = 8
    """Pictures that are kept of one run."""
    image_bytes: int = 4 * MIB
    """Size of one picture; larger ones are left out."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a limit that is not positive, or with which no kernel starts."""
        for field in fields(self):
            value = getattr(self, field.name)
            least = _SMALLEST.get(field.name, 0)
            is_wrong = not value >= least or (value == 0 and field.name != "images")  # nan too
            if is_wrong:
                rule = f"at least {least}" if least else "above zero"
                raise ValueError(
                    f"{field.name}={value}: the code interpreter's limit must be {rule}"
                )
        if self.file_bytes > self.disk_bytes:
            raise ValueError(
                f"file_bytes={self.file_bytes} is more than disk_bytes={self.disk_bytes}: a file "
                "must fit into the work folder; lower file_bytes or raise disk_bytes"
            )

    def seconds(self, timeout_s: float | None) -> float:
        """Returns the seconds of one run: the caller's, but no more than `wall_s`.

        Raises:
            ValueError: `timeout_s` is not positive.
        """
        if timeout_s is None:
            return self.wall_s
        if not timeout_s > 0:
            raise ValueError(f"timeout_s={timeout_s}: a run needs a time above zero seconds")
        return min(timeout_s, self.wall_s)
