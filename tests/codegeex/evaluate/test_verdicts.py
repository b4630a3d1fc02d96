"""Programs that end in every way, in every language, and what is said of each."""

import pytest

from codegeex.evaluate.problems import languages
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Work

JAVA = "public class Main {{ public static void main(String[] a) throws Exception {{ {} }} }}"
GO = 'package main\nimport (\n"os"\n"testing"\n)\nfunc TestIt(t *testing.T) {{ {} ; _ = os.Args }}'
RUST = "fn main() {{}}\n#[test]\nfn it() {{ {} }}"
CPP = "#undef NDEBUG\n#include <assert.h>\n#include <stdlib.h>\n#include <vector>\n"
CPP += "int main() {{ {} }}"
FRAMES = {"python": "{}", "c++": CPP, "java": JAVA, "javascript": "{}", "go": GO, "rust": RUST}

PROGRAMS = {
    "right": {
        "python": "assert 1 + 1 == 2",
        "c++": "assert(1 + 1 == 2);",
        "java": "if (1 + 1 != 2) throw new AssertionError();",
        "javascript": "console.assert(1 + 1 === 2)",
        "go": "if 1 + 1 != 2 { t.Fail() }",
        "rust": "assert_eq!(1 + 1, 2);",
    },
    "wrong": {
        "python": "assert 1 + 1 == 3, 'sum'",
        "c++": "assert(1 + 1 == 3);",
        "java": "if (1 + 1 != 3) throw new AssertionError();",
        "javascript": "console.assert(1 + 1 === 3)",
        "go": "if 1 + 1 != 3 { t.Fail() }",
        "rust": "assert_eq!(1 + 1, 3);",
    },
    "crash": {
        "python": "[][1]",
        "c++": "std::vector<int> v; return v.at(1);",
        "java": "int[] v = {}; System.out.print(v[1]);",
        "javascript": "undefined.name",
        "go": "v := []int{}; i := 1; _ = v[i]",
        "rust": "let v: Vec<i32> = vec![]; let i = v.len() + 1; std::hint::black_box(v[i]);",
    },
    "syntax": {language: "if ( {{" for language in FRAMES},
    "loop": {
        "python": "while True: pass",
        "c++": "volatile int i = 0; while (true) i++;",
        "java": "while (true) { if (a.length > 5) break; }",
        "javascript": "while (true);",
        "go": "for i := 0; ; i++ { _ = i }",
        "rust": "let mut i = 0u64; loop { i = std::hint::black_box(i.wrapping_add(1)); }",
    },
    "memory": {  # ten gigabytes, each page of it written
        "python": "x = bytearray(10 << 30)",
        "c++": "std::vector<char> x(10000000000UL, 1); return x[5] - 1;",
        "java": "java.util.List<long[]> x = new java.util.ArrayList<>();"
        " while (x.size() < 1250) x.add(new long[1000000]);",
        "javascript": "const x = []; while (x.length < 1250) x.push(new Array(1e6).fill(1.5))",
        "go": "x := [][]byte{}; for i := 0; i < 10000; i++ { b := make([]byte, 1000000);"
        " for j := range b { b[j] = 1 }; x = append(x, b) }",
        "rust": "let x = vec![1u8; 10_000_000_000]; assert_eq!(x[x.len() - 5], 1);",
    },
    "early": {
        "python": "import os; os._exit(0)",
        "c++": "exit(0);",
        "java": "System.exit(0);",
        "javascript": "process.exit(0)",
        "go": "os.Exit(0)",
        "rust": "std::process::exit(0);",
    },
}
WANTED = {
    "right": Verdict.passed,
    "wrong": Verdict.wrong_answer,
    "crash": Verdict.runtime_error,
    "syntax": Verdict.compile_error,
    "loop": Verdict.timeout,
    "memory": Verdict.memory,
    "early": Verdict.runtime_error,
}


@pytest.fixture(scope="module")
def results(executor):
    """All programs, run together."""
    works = [
        Work(
            task_id=f"{language}/{name}",
            language=language,
            source=FRAMES[language].format(bodies[language].replace("{{", "{")),
        )
        for name, bodies in PROGRAMS.items()
        for language in languages()
    ]
    return {result.task_id: result for result in executor.run_all(works)}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("language", list(languages()))
def test_verdict_is_right_when_a_program_ends_in_a_known_way(results, tools, language, name):
    tools(language)
    result = results[f"{language}/{name}"]
    assert result.verdict is WANTED[name], result
    assert bool(result.detail) == (name != "right")
    compiled = language not in ("python", "javascript")
    assert result.stage == ("compile" if name == "syntax" and compiled else "run")
    assert (result.compile_s > 0) == compiled
    assert result.isolation in ("bubblewrap", "unshare")
    assert result.toolchain == tools(language).version
