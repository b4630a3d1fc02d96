"""Contexts of the released tokenizers, for those that GLM_TOKENIZERS holds.

The ids were recorded by the tests of li-plus/chatglm.cpp.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from glm_core.chat import Message, Role, chat_format
from glm_core.tokenizer import Tokenizer, load_tokenizer

FOLDERS = {
    "chatglm": "chatglm-6b",
    "chatglm2": "chatglm2-6b",
    "chatglm3": "chatglm3-6b",
    "glm4": "glm-4-9b",
}


def _released(kind: str) -> Tokenizer:
    given = os.environ.get("GLM_TOKENIZERS")
    folder = Path(given or "") / FOLDERS[kind]
    if not given or not folder.is_dir():
        pytest.skip(f"no {FOLDERS[kind]} in GLM_TOKENIZERS")
    return load_tokenizer(folder, kind)


def _talk(*said: str) -> list[Message]:
    return [Message((Role.user, Role.assistant)[i % 2], text) for i, text in enumerate(said)]


def _hello(name: str) -> str:
    return f"你好👋！我是人工智能助手 {name}，很高兴见到你，欢迎问我任何问题。"


SLEEP = "晚上睡不着应该怎么办"
RECORDED = [
    ("chatglm", ["你好"], [5, 74874, 130001]),
    (
        "chatglm",
        ["你好", _hello("ChatGLM-6B"), SLEEP],
        [
            53, 6945, 5, 8, 42, 4, 64286, 12, 74874, 4, 67342, 12, 74874, 130328, 130247, 130233,
            130227, 35, 65806, 68241, 75890, 14132, 5388, 340, 11, 21, 222, 6, 76693, 66877, 63852,
            6, 66430, 68747, 102501, 63823, 4, 52, 6945, 5, 9, 42, 4, 64286, 12, 65450, 83400,
            64213, 66846, 4, 67342, 12, 130001,
        ],
    ),
    (
        "chatglm2",
        ["你好"],
        [
            64790, 64792, 790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211, 39701, 13,
            13, 55437, 31211,
        ],
    ),
    (
        "chatglm2",
        ["你好", _hello("ChatGLM2-6B"), SLEEP],
        [
            64790, 64792, 790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211, 39701, 13,
            13, 55437, 31211, 39701, 243, 162, 148, 142, 31404, 33030, 34797, 42481, 22011, 10461,
            30944, 30943, 30941, 30978, 30949, 31123, 48895, 35214, 54622, 31123, 32616, 39905,
            31901, 31639, 31155, 13, 13, 30995, 30951, 517, 30910, 30943, 30996, 13, 13, 54761,
            31211, 32820, 54266, 31876, 35153, 13, 13, 55437, 31211,
        ],
    ),
    ("chatglm3", ["你好"], [64790, 64792, 64795, 30910, 13, 36474, 54591, 64796]),
    (
        "chatglm3",
        ["你好", _hello("ChatGLM3-6B"), SLEEP],
        [
            64790, 64792, 64795, 30910, 13, 36474, 54591, 64796, 30910, 13, 36474, 54591, 243, 162,
            148, 142, 31404, 33030, 34797, 42481, 22011, 10461, 30944, 30966, 30941, 30978, 30949,
            31123, 48895, 35214, 54622, 31123, 32616, 39905, 31901, 31639, 31155, 64795, 30910, 13,
            30910, 32820, 54266, 31876, 35153, 64796,
        ],
    ),
    ("glm4", ["你好"], [151331, 151333, 151336, 198, 109377, 151337]),
    (
        "glm4",
        ["你好", "你好👋！很高兴见到你，有什么可以帮助你的吗？", SLEEP],
        [
            151331, 151333, 151336, 198, 109377, 151337, 198, 109377, 9281, 239, 233, 6313, 118295,
            103810, 98406, 3837, 101665, 110368, 99444, 99212, 11314, 151336, 198, 101160, 120410,
            99379, 103298, 151337,
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "said", "ids"), RECORDED)
def test_conversation_has_recorded_ids(kind: str, said: list[str], ids: list[int]) -> None:
    assert chat_format(kind).encode(_talk(*said), _released(kind)) == ids


def test_chatglm3_tools_have_recorded_ids() -> None:
    def described(name: str, text: str, kind: str) -> dict[str, object]:
        return {"name": name, "description": text, "type": kind, "required": True}

    seed = described("seed", "The random seed used by the generator", "int")
    span = described("range", "The range of the generated numbers", "tuple[int, int]")
    city = described("city_name", "The name of the city to be queried", "str")
    tools = {
        "random_number_generator": {
            "name": "random_number_generator",
            "description": "Generates a random number x, s.t. range[0] <= x < range[1]",
            "params": [seed, span],
        },
        "get_weather": {
            "name": "get_weather",
            "description": "Get the current weather for `city_name`",
            "params": [city],
        },
    }
    told = (
        "Answer the following questions as best as you can. You have access to the following "
        f"tools:\n{json.dumps(tools, indent=4)}"
    )
    talk = [Message(Role.system, told), Message(Role.user, "生成一个随机数")]
    assert chat_format("chatglm3").encode(talk, _released("chatglm3")) == [
        64790, 64792, 64794, 30910, 13, 20115, 267, 1762, 2554, 362, 1077, 362, 344, 457, 30930,
        809, 431, 1675, 289, 267, 1762, 4159, 30954, 13, 30982, 13, 296, 30955, 16599, 30962,
        11228, 30962, 7311, 1306, 2932, 729, 13, 352, 30955, 2323, 2932, 449, 16599, 30962, 11228,
        30962, 7311, 1306, 1252, 13, 352, 30955, 16302, 2932, 449, 9398, 711, 260, 5402, 1276,
        1994, 30932, 268, 30930, 30912, 30930, 2288, 30995, 30940, 30996, 14819, 1994, 906, 2288,
        30995, 30939, 30996, 1252, 13, 352, 30955, 12209, 2932, 790, 13, 753, 30982, 13, 647,
        30955, 2323, 2932, 449, 24794, 1252, 13, 647, 30955, 16302, 2932, 449, 1036, 5402, 9352,
        1050, 422, 267, 17009, 1252, 13, 647, 30955, 3543, 2932, 449, 592, 1252, 13, 647, 30955,
        20379, 2932, 2033, 13, 753, 4143, 13, 753, 30982, 13, 647, 30955, 2323, 2932, 449, 7855,
        1252, 13, 647, 30955, 16302, 2932, 449, 1036, 2288, 290, 267, 7383, 3859, 1252, 13, 647,
        30955, 3543, 2932, 449, 30912, 16471, 30995, 592, 30932, 558, 30996, 1252, 13, 647, 30955,
        20379, 2932, 2033, 13, 753, 30983, 13, 352, 30996, 13, 296, 4143, 13, 296, 30955, 752,
        30962, 27564, 2932, 729, 13, 352, 30955, 2323, 2932, 449, 752, 30962, 27564, 1252, 13, 352,
        30955, 16302, 2932, 449, 4867, 267, 1465, 5100, 332, 4256, 17654, 30962, 2323, 31040, 1252,
        13, 352, 30955, 12209, 2932, 790, 13, 753, 30982, 13, 647, 30955, 2323, 2932, 449, 17654,
        30962, 2323, 1252, 13, 647, 30955, 16302, 2932, 449, 1036, 1462, 290, 267, 1911, 289, 330,
        580, 266, 819, 1252, 13, 647, 30955, 3543, 2932, 449, 2069, 1252, 13, 647, 30955, 20379,
        2932, 2033, 13, 753, 30983, 13, 352, 30996, 13, 296, 30983, 13, 30983, 64795, 30910, 13,
        30910, 36454, 31623, 37853, 54744, 64796,
    ]  # fmt: skip
