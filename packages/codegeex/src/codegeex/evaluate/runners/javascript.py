"""JavaScript: Node.js."""

from __future__ import annotations

import re

from codegeex.evaluate.runners.base import (
    Plan,
    Toolchain,
    asked,
    ended_early,
    find_tool,
    folders_of,
    last_line,
    line_with,
    shortened,
    signal_name,
    text,
)
from codegeex.evaluate.verdict import Judgement, Verdict
from glm_core.agent.executor import ProgramResult
from glm_core.agent.executor.limits import MIB

_REMEDY = "apt-get install nodejs"
_ASSERTION = re.compile(r"^Assertion failed|\bAssertionError\b")
_SYNTAX = re.compile(r"^SyntaxError: ")
_RUNNING = re.compile(r"^\s+at Object\.<anonymous> \(\S*main\.js:", re.MULTILINE)
_ERROR = re.compile(r"^(?:Uncaught )?\w*(?:Error|Exception)\b")
_MEMORY = re.compile(r"heap out of memory|Array buffer allocation failed|Invalid array length")

_MD5 = """\
module.exports = (text) => require("crypto").createHash("md5").update(text).digest("hex");
"""
"""All that HumanEval-X uses of js-md5."""


class JavaScriptRunner:
    """A program passes only if it writes nothing, on either stream: `console.assert` only writes,
    and the original counts every output as a failure."""

    memory_overhead = 256 * MIB

    def find(self) -> Toolchain:
        node = find_tool("node", _REMEDY)
        return Toolchain(
            version=f"node {asked(node, '--version').lstrip('v')}",
            tools={"node": node},
            folders=folders_of(node),
        )

    def plan(self, source: str, token: str, tools: Toolchain, memory_bytes: int) -> Plan:
        ending = f"\n;require('fs').writeSync(1, '{token}');\n"
        size = memory_bytes // MIB
        return Plan(
            files={"main.js": source + ending, "node_modules/js-md5/index.js": _MD5},
            run=(tools.tools["node"], f"--max-old-space-size={size}", "main.js"),
        )

    def judge_compiled(self, result: ProgramResult) -> Judgement | None:
        return None

    def judge(self, result: ProgramResult, token: str) -> Judgement:
        assert result.status is not None
        if result.status == 0:
            return _judge_output(text(result.stdout), result.stderr, token)
        if line := line_with(_MEMORY, result.stderr):
            return Judgement(verdict=Verdict.memory, detail=line)
        if line := line_with(_ASSERTION, result.stderr):
            return Judgement(verdict=Verdict.wrong_answer, detail=line)
        line = line_with(_SYNTAX, result.stderr)
        if line and not _RUNNING.search(text(result.stderr)):
            return Judgement(verdict=Verdict.compile_error, detail=line)
        said = line_with(_ERROR, result.stderr) or last_line(result.stderr)
        if result.status < 0:
            said = said or signal_name(result.status)
        return Judgement(verdict=Verdict.runtime_error, detail=said or f"status {result.status}")


def _judge_output(output: str, errors: bytes, token: str) -> Judgement:
    if line := line_with(_ASSERTION, errors):
        return Judgement(verdict=Verdict.wrong_answer, detail=line)
    if token not in output:
        return ended_early()
    rest = output.replace(token, "", 1) + text(errors)
    if rest:
        said = f"it wrote {shortened(rest.strip() or rest)!r}, and must write nothing"
        return Judgement(verdict=Verdict.wrong_answer, detail=said)
    return Judgement(verdict=Verdict.passed)
