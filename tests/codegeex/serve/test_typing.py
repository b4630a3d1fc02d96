"""Somebody types: what was read for the last keystroke is not read again."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from .asks import ALL, stream_of

_FILE = "".join(f"def function_{i}(a, b):\n    return a + {i}\n\n\n" for i in range(10))
_BEHIND = "\n\nprint(function_3(1, 2))\n"


def _infill(http: httpx2.Client, prefix: str, suffix: str, tokens: int, **more: Any) -> Any:
    body = ALL["hole-infill"].body(prefix, suffix, tokens) | more
    return http.post("/infill", json=body).json()


def test_second_keystroke_reads_only_what_is_new(http: httpx2.Client) -> None:
    typed = _FILE + "def total(values):\n    result = 0\n"
    _infill(http, typed, _BEHIND, 4)
    for end in range(1, 12):
        reply = _infill(http, typed + "    for value in values:"[:end], _BEHIND, 4)
        assert reply["tokens_cached"] >= 0.95 * reply["tokens_evaluated"]
        assert reply["timings"]["cache_n"] == reply["tokens_cached"]
        read = reply["timings"]["prompt_n"]
        assert read + reply["tokens_cached"] == reply["tokens_evaluated"]


def test_prompt_is_read_ahead_when_nothing_is_to_be_written(http: httpx2.Client) -> None:
    prefix, suffix = f"# {__name__}\n{_FILE}", "\n\nprint('read ahead')\n"
    warm = _infill(http, prefix, suffix, 0, samplers=[])
    assert warm["content"] == "" and warm["tokens_predicted"] == 0 and warm["stop"]
    assert warm["tokens_cached"] < warm["tokens_evaluated"] / 2
    reply = _infill(http, prefix, suffix, 4)
    assert reply["tokens_cached"] >= 0.95 * reply["tokens_evaluated"]
    body = ALL["hole-infill"].body(prefix, suffix, 0) | {"stream": True}
    (event,) = stream_of(http.post("/infill", json=body).text)
    assert event["stop"] and event["content"] == ""


@pytest.mark.parametrize("name", ["hole-ollama", "hole-openai", "hole-mistral", "raw-completion"])
def test_nothing_is_written_when_no_token_is_asked_for(http: httpx2.Client, name: str) -> None:
    ask = ALL[name]
    reply = http.post(ask.path, json=ask.body("import ", "b", 0) | {"stream": False})
    if name == "hole-openai":
        assert reply.status_code == 400  # as OpenAI does
    else:
        assert ask.text(reply.json()) == ""


@pytest.mark.parametrize("name", ["openai", "fauxpilot", "twinny", "mistral", "tabby"])
def test_usage_tells_what_had_been_read(http: httpx2.Client, name: str) -> None:
    ask = ALL[f"hole-{name}"]
    for _ in range(2):
        usage = http.post(ask.path, json=ask.body(_FILE, _BEHIND, 2)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_lines_end_where_they_are_indented_less(http: httpx2.Client) -> None:
    reply = _infill(http, "class A:\n    def f(self):\n        ", "\n", 100, n_indent=8)
    lines = reply["content"].split("\n")[1:]
    assert all(not line or line.startswith(" " * 8) for line in lines)
    assert reply["generation_settings"]["n_indent"] == 8


def test_stop_strings_end_an_answer_and_are_told(http: httpx2.Client) -> None:
    whole = _infill(http, "import ", "\n", 12)["content"]
    word = whole[3:5]
    reply = _infill(http, "import ", "\n", 12, stop=[word, "", word])
    assert reply["content"] == whole[: whole.index(word)].rstrip()
    assert (reply["stop_type"], reply["stopping_word"]) == ("word", word)
    tgi = {"inputs": "import ", "parameters": {"max_new_tokens": 12}}
    first = http.post("/generate", json=tgi).json()["generated_text"]
    tgi["parameters"] = {"max_new_tokens": 12, "stop_tokens": [first[2:4]], "details": True}
    reply = http.post("/generate", json=tgi).json()
    assert reply["generated_text"] == first[: first.index(first[2:4])]
    assert reply["details"]["finish_reason"] == "stop_sequence"


def test_fields_are_picked_by_their_paths(http: httpx2.Client) -> None:
    fields = ["content", "timings/prompt_n", "timings", "nothing", "content/x", "/", ""]
    reply = _infill(http, "a", "b", 2, response_fields=fields)
    assert list(reply) == ["content", "timings/prompt_n", "timings"]
    assert reply["timings/prompt_n"] == reply["timings"]["prompt_n"]


def test_details_tell_tokens_and_their_probabilities(http: httpx2.Client) -> None:
    asked = {"inputs": "import ", "parameters": {"max_new_tokens": 6, "details": True, "seed": 3}}
    reply = http.post("/generate", json=asked).json()
    details = reply["details"]
    assert details["finish_reason"] == "length" and details["generated_tokens"] == 6
    assert len(details["tokens"]) == 6 and details["seed"] == 3
    assert all(token["logprob"] < 0 for token in details["tokens"])
    full = {"inputs": "import ", "parameters": {"max_new_tokens": 6, "return_full_text": True}}
    told = http.post("/generate", json=full).json()["generated_text"]
    assert told == "import " + reply["generated_text"]


def test_tokens_of_a_text_are_told_and_written_out_again(http: httpx2.Client) -> None:
    text = "def größe(): <|code_middle|>"
    ids = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"content": text}
    pieces = http.post("/tokenize", json={"content": text, "with_pieces": True}).json()["tokens"]
    assert [piece["id"] for piece in pieces] == ids
    assert http.post("/tokenize", json={"content": ""}).json() == {"tokens": []}


def test_completion_gives_tokens_when_they_are_wanted(http: httpx2.Client) -> None:
    body = {"prompt": "import ", "n_predict": 5, "return_tokens": True}
    reply = http.post("/completion", json=body).json()
    assert len(reply["tokens"]) == 5
    text = http.post("/detokenize", json={"tokens": reply["tokens"]}).json()["content"]
    assert text == reply["content"]


def test_time_limit_counts_once_a_line_is_complete(http: httpx2.Client) -> None:
    body = ALL["hole-infill"].body("import ", "\n", 100)
    unlimited = http.post("/infill", json=body).json()
    for limit in (0, -1, None):
        reply = http.post("/infill", json=body | {"t_max_predict_ms": limit}).json()
        assert reply["content"] == unlimited["content"]
    reply = http.post("/infill", json=body | {"t_max_predict_ms": 0.001}).json()
    assert reply["content"].count("\n") <= 1


def test_answers_of_chance_have_seeds(http: httpx2.Client) -> None:
    body = ALL["hole-infill"].body("import ", "\n", 20) | {"temperature": 1.5}
    texts = [http.post("/infill", json=body | {"seed": 7}).json()["content"] for _ in range(2)]
    assert texts[0] == texts[1]
    others = {http.post("/infill", json=body | {"seed": -1}).json()["content"] for _ in range(8)}
    assert len(others) > 1
    greedy = http.post("/infill", json=body | {"top_p": 0}).json()["content"]
    assert greedy == http.post("/infill", json=body | {"temperature": -1}).json()["content"]


def test_chunks_of_a_stream_are_what_clients_parse(http: httpx2.Client) -> None:
    body = ALL["hole-infill"].body("import ", "\n", 12) | {"stream": True}
    text = http.post("/infill", json=body).text
    assert "[DONE]" not in text  # llama.cpp's own addresses have none
    *chunks, last = [json.loads(one.removeprefix("data: ")) for one in text.split("\n\n")[:-1]]
    assert all(not chunk["stop"] for chunk in chunks) and last["stop"]
    assert last["timings"]["predicted_n"] > 0
