"""Messages of a kernel that is not trusted."""

import base64

import pytest

from glm_core.agent.executor import CodeError, ExecutorLimits, Image
from glm_core.agent.executor.collect import Collector

PNG = base64.b64encode(b"picture").decode()


def collector(**limits):
    return Collector(ExecutorLimits(**limits))


def test_pieces_of_a_stream_are_one_output_when_nothing_stands_between():
    run = collector()
    for text in ("a", "b"):
        run.add("stream", {"name": "stdout", "text": text})
    run.add("stream", {"name": "stderr", "text": "c"})
    assert [(output.kind, output.text) for output in run.outputs] == [
        ("stdout", "ab"),
        ("stderr", "c"),
    ]


def test_values_stay_apart_when_they_follow_each_other():
    run = collector()
    for text in ("1", "2"):
        run.add("display_data", {"data": {"text/plain": text}})
    assert [output.text for output in run.outputs] == ["1", "2"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"image/png": PNG, "text/plain": "<Figure>"}, Image("image/png", b"picture")),
        ({"image/jpeg": PNG}, Image("image/jpeg", b"picture")),
        ({"image/svg+xml": "<svg/>"}, Image("image/svg+xml", b"<svg/>")),
    ],
)
def test_picture_is_kept_when_a_value_has_one(data, expected):
    run = collector()
    run.add("execute_result", {"data": data})
    assert [output.image for output in run.outputs] == [expected]


def test_text_is_kept_when_a_table_is_html_too():
    run = collector()
    run.add("execute_result", {"data": {"text/html": "<table>", "text/plain": "a  b"}})
    run.add("display_data", {"data": {"text/html": "<b>only</b>"}})
    assert [output.text for output in run.outputs] == ["a  b", "<b>only</b>"]


def test_text_is_cut_once_when_streams_and_values_fill_it_together():
    run = collector(output_chars=5)
    run.add("stream", {"name": "stdout", "text": "abc"})
    run.add("execute_result", {"data": {"text/plain": "defg"}})
    run.add("stream", {"name": "stdout", "text": "h"})
    assert [output.text for output in run.outputs] == ["abc", "de"]
    assert run.truncated


def test_picture_is_dropped_when_it_is_too_large_or_one_too_many():
    run = collector(images=1, image_bytes=8)
    run.add("display_data", {"data": {"image/png": base64.b64encode(b"x" * 9).decode()}})
    assert (run.outputs, run.truncated) == ([], True)
    run.add("display_data", {"data": {"image/png": PNG}})
    run.add("display_data", {"data": {"image/png": PNG}})
    assert len(run.outputs) == 1


def test_error_is_plain_when_it_comes_in_colours():
    run = collector()
    run.add(
        "error",
        {"ename": "E", "evalue": "\x1b[31mred\x1b[0m", "traceback": ["\x1b[1;32mone", "two"]},
    )
    assert run.error == CodeError("E", "red", "one\ntwo")


def test_text_can_be_encoded_when_it_holds_half_a_character():
    run = collector()
    run.add("stream", {"name": "stdout", "text": "a\ud800b"})
    assert run.outputs[0].text == "a?b"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("stream", {}),
        ("stream", {"name": "stdout", "text": 3}),
        ("execute_result", {"data": {"image/png": 3}}),
        ("error", {"ename": "E", "evalue": "v", "traceback": 3}),
    ],
)
def test_message_raises_a_known_error_when_it_is_malformed(kind, content):
    with pytest.raises((ValueError, TypeError, KeyError)):
        collector().add(kind, content)
