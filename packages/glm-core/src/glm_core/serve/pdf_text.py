"""The text of a PDF's pages: a program, PDF on standard input, a JSON list on standard output.

It is run in a process of its own, with limits: a PDF of some kilobytes can ask for gigabytes.
"""

from __future__ import annotations

import io
import json
import resource
import sys

MEMORY_BYTES = 2 * 2**30
CPU_S = 50
MAX_PAGES = 2000
MAX_CHARS = 2_000_001
"""One more than the server takes: so it tells that there was more."""


def main() -> int:
    """Reads and writes; ends with 1 when the PDF cannot be read."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    pages: list[str] = []
    room = MAX_CHARS
    try:
        reader = PdfReader(io.BytesIO(sys.stdin.buffer.read()))
        for number, page in enumerate(reader.pages):
            if room <= 0 or number == MAX_PAGES:
                break
            pages.append(page.extract_text()[:room])
            room -= len(pages[-1])
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    # ASCII with escapes: a PDF can name half characters, which UTF-8 cannot hold.
    text = json.dumps([page.encode("utf-8", "replace").decode() for page in pages])
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
