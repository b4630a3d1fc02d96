"""The bodies are what our server, and llama.cpp's documents, read of llama.vim and Tabby."""

from __future__ import annotations

import json

from codegeex.bench.bodies import infill, segments
from codegeex.bench.edits import Edit
from codegeex.serve.llama_cpp.infill import InfillRequest, hole_of
from codegeex.serve.tabby import TabbyRequest

LINES = "".join(f"line_{number}\n" for number in range(400))
EDIT = Edit(LINES + "    return ma", ")\n" + LINES, 1)


def test_infill_shows_the_lines_around_the_cursor() -> None:
    body = InfillRequest.model_validate(json.loads(infill(EDIT, 16)))
    assert body.prompt == "    return ma" and body.n_indent == 4 and body.n_predict == 16
    assert body.input_prefix.startswith("line_144\n") and body.input_prefix.endswith("line_399\n")
    assert body.input_suffix.startswith(")\nline_0\n") and body.input_suffix.endswith("\nline_63")
    assert hole_of(body).prefix.endswith("line_399\n    return ma")
    assert body.stop == ["\n"] and not body.stream
    assert InfillRequest.model_validate(json.loads(infill(EDIT, 4, stream=True))).stream


def test_segments_are_those_of_infill() -> None:
    body = TabbyRequest.model_validate(json.loads(segments(EDIT)))
    hole = hole_of(InfillRequest.model_validate(json.loads(infill(EDIT, 16))))
    assert body.segments is not None
    assert (body.segments.prefix, body.segments.suffix) == (hole.prefix, hole.suffix)
