"""What a model reads of a run."""

import pytest

from glm_core.agent.executor import CodeError, ExecutionResult, Image, Output, observation_text


def result(*outputs, error=None, truncated=False, timed_out=False, died="", fresh=False):
    return ExecutionResult(
        outputs=outputs,
        error=error,
        truncated=truncated,
        timed_out=timed_out,
        kernel_died=died,
        fresh_kernel=fresh,
        duration_s=1.25,
    )


def test_observation_is_empty_when_the_run_gave_nothing():
    assert observation_text(result()) == ""


def test_pictures_are_words_when_they_stand_between_text():
    image = Output("image", image=Image("image/png", b""))
    outputs = (Output("stdout", "a\n"), image, Output("result", "3"))
    assert observation_text(result(*outputs)) == "a\n[Image]\n3"


def test_text_is_cut_at_1024_characters_when_nothing_else_is_asked():
    text = observation_text(result(Output("stdout", "x" * 1025)))
    assert text == "x" * 1024 + " [TRUNCATED]"
    assert observation_text(result(Output("stdout", "x" * 1024))) == "x" * 1024


def test_text_says_that_it_is_cut_when_the_interpreter_cut_it():
    assert observation_text(result(Output("stdout", "x"), truncated=True)) == "x [TRUNCATED]"


def test_error_follows_the_output_when_code_raised():
    error = CodeError("ValueError", "no", "Traceback\nValueError: no")
    text = observation_text(result(Output("stdout", "a"), error=error))
    assert text == "a\nTraceback\nValueError: no"
    assert observation_text(result(error=CodeError("ValueError", "no"))) == "ValueError: no"


def test_notes_stay_whole_when_the_text_is_cut():
    died = result(
        Output("stdout", "abc"),
        error=CodeError("KernelDied", "it exited"),
        timed_out=True,
        died="it exited",
        fresh=True,
    )
    assert observation_text(died, limit=1).splitlines() == [
        "[new interpreter: earlier variables are gone]",
        "a [TRUNCATED]",
        "[stopped after 1.2 seconds]",
        "[the interpreter ended: it exited; variables are lost]",
    ]


def test_limit_is_refused_when_it_is_negative():
    with pytest.raises(ValueError, match="limit=-1"):
        observation_text(result(), limit=-1)
