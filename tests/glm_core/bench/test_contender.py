"""A contender's process: how it answers, and what is noted when it does not."""

from __future__ import annotations

import sys

from glm_core.bench.contender import Contender

SCRIPT = """
import json, os, sys
job = json.loads(sys.argv[1])
if job["contender"] == "refuses":
    print(json.dumps({"reason": "no such product"}), flush=True)
    sys.exit()
print(json.dumps({"weights": os.environ["KIND"]}), flush=True)
for number, line in enumerate(sys.stdin):
    if job["contender"] == "dies" and number:
        sys.exit(3)
    print(json.dumps({"rate": 2.0 + number}), flush=True)
"""


def contender(name: str) -> Contender:
    return Contender({"contender": name}, [sys.executable, "-c", SCRIPT], {"KIND": "fp7"})


def test_rates_are_noted_when_rounds_are_served() -> None:
    ours = contender("ours")
    ours.round()
    ours.round()
    ours.close()
    assert ours.rates == [2.0, 3.0] and ours.about == {"weights": "fp7"} and ours.reason == ""
    ours.round()  # a process that was ended for another's turn starts anew
    ours.close()
    assert ours.rates == [2.0, 3.0, 2.0]


def test_reason_is_noted_when_the_process_refuses_or_dies() -> None:
    refuses, dies = contender("refuses"), contender("dies")
    for _ in range(3):
        refuses.round()
        dies.round()
    assert refuses.reason == "no such product" and refuses.rates == []
    assert dies.reason == "stopped with status 3; its message stands above" and dies.rates == [2.0]
    assert refuses.process is None and dies.process is None


def test_name_has_the_variant_when_there_is_one() -> None:
    assert Contender({"contender": "llama.cpp", "variant": "Q4_K"}).name == "llama.cpp Q4_K"
    assert Contender({"contender": "ours", "variant": ""}).name == "ours"
