"""Sessions on tiny random models of every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glm_core.attention import Causal, PrefixLM
from glm_core.chat import ChatSession, Message, Role, ToolCall, chat_format
from glm_core.chat.session import default_sampling
from glm_core.infer import SamplingConfig, TextGenerator

from .tiny_chat import KINDS

GetGenerator = Callable[[str], TextGenerator]
Script = Callable[[list[int]], None]
WEATHER = {"name": "get_weather", "description": "天气", "parameters": {}}


def _session(generator: TextGenerator, room: int = 12, **options: object) -> ChatSession:
    sampling = SamplingConfig(max_new_tokens=room, temperature=0.9, top_p=0.9, seed=3)
    return ChatSession(generator, sampling=sampling, **options)  # type: ignore[arg-type]


def _said(session: ChatSession) -> list[tuple[str, str]]:
    return [(message.role.value, message.content) for message in session.messages]


@pytest.mark.parametrize("kind", KINDS)
def test_answer_is_what_the_model_gives_for_the_formats_context(
    generators: GetGenerator, kind: str
) -> None:
    generator = generators(kind)
    session = ChatSession(generator, sampling=SamplingConfig(max_new_tokens=9))
    for question in ("你好", "What is the weather?"):
        ids = session.format.encode(
            [*session.messages, Message(Role.user, question)], generator.tokenizer
        )
        opening = [generator.tokenizer.sop_id] if kind == "chatglm" else []
        reply = session.ask(question)
        list(reply)
        stream = generator.stream_ids(ids, SamplingConfig(max_new_tokens=9))
        assert list(stream) and stream.tokens
        assert reply.num_tokens == len(stream.tokens) <= 9
        assert reply.num_context_tokens == len(ids) + len(opening) + reply.num_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_answered_as_a_full_forward_would(generators: GetGenerator, kind: str) -> None:
    generator = generators(kind)
    ids = chat_format(kind).encode([Message(Role.user, "你好")], generator.tokenizer)
    stream = generator.stream_ids(ids, SamplingConfig(max_new_tokens=1))
    list(stream)
    # ChatGLM-6B answers behind <sop>, at the position of [gMASK] and block position 1
    opening = [generator.tokenizer.sop_id] if kind == "chatglm" else []
    places = [(column, 0) for column in range(len(ids))] + [(len(ids) - 1, 1)] * len(opening)
    rows = torch.tensor(places).T[None] if opening else torch.arange(len(ids))[None]
    mask = PrefixLM((len(ids),)) if opening else Causal()
    with torch.no_grad():
        hidden = generator.model(torch.tensor([[*ids, *opening]]), rows, mask)
        logits = generator.model.logits(hidden)[0, -1]
    allowed = set(range(generator.tokenizer.vocab_size)) - generator.tokenizer.special_ids
    allowed |= set(generator.tokenizer.stop_ids)
    best = max(allowed, key=lambda token: float(logits[token]))
    assert (stream.tokens or [stream.stop_id])[0] == best


@pytest.mark.parametrize("kind", KINDS)
def test_history_grows_by_question_and_answer(generators: GetGenerator, kind: str) -> None:
    session = _session(generators(kind))
    texts = ["".join(session.ask(question)) for question in ("你好", "a 1", "b")]
    roles = [message.role.value for message in session.messages]
    assert roles == ["user", "assistant"] * 3
    assert [message.content for message in session.messages][1::2] == texts
    assert [m.content for m in session.undo()] == ["b", texts[2]]
    assert len(session.messages) == 4
    session.clear()
    assert session.messages == [] and session.undo() == []


def test_seed_decides_answers_and_a_second_try_is_another(generators: GetGenerator) -> None:
    answers = []
    for _ in range(2):
        session = _session(generators("glm4"))
        answers.append("".join(session.ask("你好")))
        session.undo()
        answers.append("".join(session.ask("你好")))
    assert answers[:2] == answers[2:] and answers[0] != answers[1]


def test_tool_is_called_observed_and_answered(generators: GetGenerator, scripted: Script) -> None:
    generator = generators("chatglm3")
    tokenizer = generator.tokenizer
    session = _session(generator, 60, system="Be brief.", tools=[WEATHER])
    assistant, observation = (
        tokenizer.token_id("<|assistant|>"),
        tokenizer.token_id("<|observation|>"),
    )
    code = '```python\ntool_call(city="x")\n```'
    script = [*tokenizer.encode("\n"), *tokenizer.encode("Well."), assistant]
    scripted([*script, *tokenizer.encode(f"get_weather\n{code}"), observation])
    reply = session.ask("你好")
    assert "".join(reply) == "Well."
    text, call = reply.messages
    assert call == Message(
        Role.assistant, code, "get_weather", (ToolCall("get_weather", {"city": "x"}),)
    )
    assert text == Message(Role.assistant, "Well.") and session.awaits_observation
    scripted([*tokenizer.encode("\n"), *tokenizer.encode("22"), tokenizer.token_id("<|user|>")])
    assert "".join(session.observe("22 degrees")) == "22"
    assert [message.role.value for message in session.messages] == [
        "user", "assistant", "assistant", "observation", "assistant",
    ]  # fmt: skip
    assert not session.awaits_observation
    with pytest.raises(ValueError, match="nothing to observe: the last message calls no tool"):
        session.observe("22")
    session.undo()
    assert session.awaits_observation


def test_special_tokens_are_never_sampled_but_the_formats_marks(generators: GetGenerator) -> None:
    for kind in KINDS:
        generator = generators(kind)
        ids = chat_format(kind).encode([Message(Role.user, "x")], generator.tokenizer)
        marks = chat_format(kind).marks(generator.tokenizer)
        config = SamplingConfig(max_new_tokens=60, min_new_tokens=60, temperature=50.0)
        stream = generator.stream_ids(ids, config, marks)
        pieces = list(stream)
        found = set(stream.tokens) & generator.tokenizer.special_ids
        assert found <= set(marks)
        assert {piece.mark for piece in pieces} - {None} == found


def test_oldest_turns_are_left_out_when_the_context_is_full(generators: GetGenerator) -> None:
    generator = generators("glm4")
    session = _session(generator, 10, context=100)
    dropped = []
    for turn in range(12):
        reply = session.ask(f"question {turn}")
        list(reply)
        dropped.append(reply.num_dropped)
        assert reply.num_context_tokens <= 100
        window = session.messages[2 * reply.num_dropped : -1]
        ids = session.format.encode(window, generator.tokenizer)
        assert len(ids) + reply.num_tokens == reply.num_context_tokens
        if reply.num_dropped:  # one turn more would have been too much
            more = session.messages[2 * reply.num_dropped - 2 : -1]
            assert len(session.format.encode(more, generator.tokenizer)) > 90
    assert dropped[0] == 0 and dropped == sorted(dropped) and dropped[-1] > 5
    assert len(session.messages) == 24


def test_tool_messages_are_left_out_with_their_turn(generators: GetGenerator) -> None:
    session = _session(generators("chatglm3"), 10, context=200)
    call = Message(Role.assistant, "x" * 40, "get_weather")
    turn = [Message(Role.user, "a"), call, Message(Role.observation, "b" * 40)]
    session.messages = [*turn, Message(Role.assistant, "c"), Message(Role.user, "d" * 60),
                        Message(Role.assistant, "e")]  # fmt: skip
    reply = session.ask("f" * 60)
    assert reply.num_dropped == 1


def test_message_that_cannot_fit_is_refused_with_the_counts(generators: GetGenerator) -> None:
    session = _session(generators("glm4"), 10, context=60)
    list(session.ask("hi"))
    before = list(session.messages)
    with pytest.raises(
        ValueError,
        match="message needs 75 tokens, but there is room for 50: the context holds 60, of which "
        "max_new_tokens keeps 10 for the answer; shorten the message by at least 25",
    ):
        session.ask("x" * 70)
    assert session.messages == before
    session.configure("Be brief.", [])
    with pytest.raises(ValueError, match="needs 86 tokens with the system prompt and the tools"):
        session.ask("x" * 70)


def test_settings_that_cannot_work_are_refused(generators: GetGenerator) -> None:
    generator = generators("glm4")
    with pytest.raises(ValueError, match="max_new_tokens is 40, but the context holds 40 tokens"):
        _session(generator, 40, context=40)
    with pytest.raises(
        ValueError, match="context is 600: it must lie between 2 and the model's 512"
    ):
        _session(generator, context=600)
    with pytest.raises(ValueError, match="chatglm2 format has no place for a system prompt"):
        _session(generators("chatglm2"), system="Be brief.")
    with pytest.raises(ValueError, match="chatglm format knows no tools"):
        _session(generators("chatglm"), tools=[WEATHER])
    with pytest.raises(ValueError, match="the user message is empty"):
        _session(generator).ask(" \n")


def test_changing_the_system_prompt_changes_nothing_when_it_is_refused(
    generators: GetGenerator,
) -> None:
    session = _session(generators("chatglm3"), system="Be brief.", tools=[WEATHER])
    with pytest.raises(ValueError, match="a tool is described by"):
        session.configure("Be long.", [{"x": 1}])
    assert (session.system, session.tools) == ("Be brief.", (WEATHER,))
    session.configure("Be long.", session.tools)
    assert session.system == "Be long."


def test_cut_answer_stays_in_the_history(generators: GetGenerator) -> None:
    session = _session(generators("glm4"), 40)
    reply = session.ask("你好")
    shown = ""
    for index, text in enumerate(reply):
        shown += text
        if index == 4:
            break
    shown += reply.cut()
    question, answer = session.messages
    assert (question.content, answer.content) == ("你好", shown) and answer.is_cut
    assert (reply.num_tokens, reply.finish_reason) == (5, None)
    assert reply.cut() == "" and len(session.messages) == 2
    assert generators("glm4").model.training is False
    list(session.ask("again"))
    assert session.messages[2].content == "again"


def test_reply_leaves_no_trace_when_nothing_has_come(generators: GetGenerator) -> None:
    session = _session(generators("glm4"))
    assert session.ask("你好").cut() == "" and session.messages == []


def test_failure_leaves_no_trace(generators: GetGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(generators("chatglm3"))
    nan = torch.full((1, session.generator.model.config.vocab_size), float("nan"))
    monkeypatch.setattr(type(session.generator.model), "logits", lambda *_: nan)
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        list(session.ask("你好"))
    assert session.messages == []


def test_answer_is_marked_as_cut_when_it_is_too_long(generators: GetGenerator) -> None:
    session = _session(generators("glm4"), 3)
    reply = session.ask("你好")
    list(reply)
    assert reply.finish_reason == "max_new_tokens" and reply.messages[-1].is_cut


@pytest.mark.parametrize("kind", KINDS)
def test_saved_conversation_goes_on_where_it_was(
    generators: GetGenerator, kind: str, tmp_path: Path
) -> None:
    has_roles = kind in ("chatglm3", "glm4")
    options = {"system": "简短。", "tools": [WEATHER]} if has_roles else {}
    session = _session(generators(kind), **options)
    list(session.ask("你好"))
    path = tmp_path / "chat.json"
    session.save(path)
    session.save(path)
    other = _session(generators(kind))
    other.load(path)
    assert (other.messages, other.system) == (session.messages, session.system)
    assert [dict(tool) for tool in other.tools] == options.get("tools", [])
    assert [p.name for p in tmp_path.iterdir()] == ["chat.json"]
    assert json.loads(path.read_text())["chat_format"] == kind


def test_tool_calls_and_marks_are_saved(generators: GetGenerator, tmp_path: Path) -> None:
    session = _session(generators("chatglm3"), tools=[WEATHER])
    call = ToolCall("get_weather", {"city": "北京"}, "text")
    session.messages = [
        Message(Role.user, "a"),
        Message(Role.assistant, "b", "get_weather", (call,)),
        Message(Role.observation, "c"),
        Message(Role.assistant, "d", fault="why", is_cut=True),
    ]
    session.save(tmp_path / "chat.json")
    before = session.messages
    session.clear()
    session.load(tmp_path / "chat.json")
    assert session.messages == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged or truncated"),
        ("[]", "is no saved conversation: give a file that was written by /save"),
        ('{"format": "glm-chat", "version": 9}', "has version 9; this program reads version 1"),
        ('{"format": "glm-chat", "version": 1}', "lacks system, tools or messages"),
        ("MESSAGES [3]", "a message is int: it must be an object"),
        ('MESSAGES [{"role": "boss", "content": ""}]', "role is 'boss': it must be one of system"),
        ('MESSAGES [{"role": "user", "content": 3}]', "a message's content is 3: it must be text"),
        ('MESSAGES [{"role": "user", "content": "", "tool_calls": 1}]', "they must be a list"),
        ('MESSAGES [{"role": "user", "content": "", "tool_calls": [{}]}]', "a tool call is {}"),
        ('MESSAGES [{"role": "assistant", "content": "x"}]', "is from assistant after nobody"),
        ('MESSAGES [{"role": "user", "content": "x"}]', "ends without an answer"),
    ],
)
def test_load_refuses_what_is_no_saved_conversation(
    generators: GetGenerator, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "chat.json"
    frame = '{"format": "glm-chat", "version": 1, "system": "", "tools": [], "messages": '
    path.write_text(text if "MESSAGES" not in text else f"{frame}{text.removeprefix('MESSAGES')}}}")
    session = _session(generators("chatglm3"))
    session.messages = [Message(Role.user, "a"), Message(Role.assistant, "b")]
    with pytest.raises(ValueError, match=message):
        session.load(path)
    assert len(session.messages) == 2


def test_load_refuses_what_the_format_has_no_place_for(
    generators: GetGenerator, tmp_path: Path
) -> None:
    session = _session(generators("chatglm3"), system="Be brief.")
    session.save(tmp_path / "chat.json")
    with pytest.raises(ValueError, match="chatglm2 format has no place for a system prompt"):
        _session(generators("chatglm2")).load(tmp_path / "chat.json")
    with pytest.raises(ValueError, match="absent.json is missing; give a file that was written by"):
        session.load(tmp_path / "absent.json")


def test_save_overwrites_saved_conversations_alone(
    generators: GetGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _session(generators("glm4"))
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ValueError, match="notes.txt is damaged or truncated"):
        session.save(notes)
    assert notes.read_text() == "mine"
    path = tmp_path / "chat.json"
    session.save(path)
    old = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    session.messages = [Message(Role.user, "a"), Message(Role.assistant, "b")]
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            session.save(path)
    assert path.read_text() == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chat.json", "notes.txt"]


def test_save_names_the_file_when_its_folder_is_absent(
    generators: GetGenerator, tmp_path: Path
) -> None:
    path = tmp_path / "absent" / "chat.json"
    message = f"cannot save the conversation to {path} .No such file or directory.: choose another"
    with pytest.raises(FileNotFoundError, match=message):
        _session(generators("glm4")).save(path)


def test_default_answers_leave_half_the_context() -> None:
    assert default_sampling(chat_format("chatglm"), 2048).max_new_tokens == 1024
    assert default_sampling(chat_format("glm4"), 100).max_new_tokens == 50
