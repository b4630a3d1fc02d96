"""Running many programs: each by itself, whatever the others do."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codegeex.evaluate.config import ExecutionConfig
from codegeex.evaluate.execute import Executor
from codegeex.evaluate.runners import base, rust
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Example, Work
from glm_core.agent.executor import SandboxUnavailable, choose
from glm_core.agent.executor.limits import MIB

CONFIG = ExecutionConfig(wall_s=30.0, cpu_s=1.0, memory_bytes=256 * MIB)
RUST = "fn main() {{}}\n#[test]\nfn it() {{ assert_eq!(1, {}); }}"


def run(executor, source, language="python", **fields):
    return executor.run(Work(task_id="Test/0", language=language, source=source, **fields))


def test_samples_of_one_problem_keep_apart_when_they_run_at_once(executor, tools):
    """The original's Rust files were named by the task alone, and overwrote each other."""
    tools("rust")
    works = [
        Work(task_id="Rust/0", number=number, language="rust", source=RUST.format(number))
        for number in range(3)
    ]
    verdicts = {result.number: result.verdict for result in executor.run_all(works)}
    assert verdicts == {
        0: Verdict.wrong_answer,
        1: Verdict.passed,
        2: Verdict.wrong_answer,
    }


def test_every_program_has_a_result_when_some_break_what_is_around_them(executor):
    """The original gave a failed item back to its queue, and then left the loop."""
    sources = ["import os; os.kill(0, 9)", "pass", "import os; os.abort()", "while True: pass"] * 2
    works = [
        Work(task_id="Test/0", number=number, language="python", source=source)
        for number, source in enumerate(sources)
    ]
    found = {result.number: result.verdict for result in executor.run_all(works)}
    crash, fine, slow = Verdict.runtime_error, Verdict.passed, Verdict.timeout
    assert found == dict(enumerate([crash, fine, crash, slow] * 2))


def test_compiling_takes_nothing_from_the_time_of_the_run(executor, tools):
    """The original's limit held for both together, and a slow compiler failed the program."""
    tools("c++")
    quick = Executor(replace(CONFIG, wall_s=0.25))
    result = run(quick, "#include <iostream>\n#include <map>\nint main() {}", "c++")
    assert result.verdict is Verdict.passed
    assert result.compile_s > result.run_s


def test_compiler_is_ended_when_it_takes_too_long(tools):
    tools("c++")
    impatient = Executor(replace(CONFIG, compile_s=0.5))
    deep = "template <int N> struct F { enum { v = F<N - 1>::v + F<N - 2>::v + N % 7 }; };\n"
    deep += "#include <bits/stdc++.h>\n#include <regex>\n"
    deep += "\n".join(f'int f{n}() {{ std::regex r("a"); return 0; }}' for n in range(4000))
    result = run(impatient, deep + "\nint main() {}", "c++")
    assert (result.verdict, result.stage) == (Verdict.timeout, "compile")
    assert "ran past 0.5 seconds" in result.detail


def test_language_is_skipped_when_its_tools_are_missing(monkeypatch):
    executor = Executor(CONFIG)
    monkeypatch.setattr(base.shutil, "which", lambda name: None)
    for language, word in {"c++": "g++", "java": "javac", "go": "go", "rust": "rustc"}.items():
        result = run(executor, "", language)
        assert result.verdict is Verdict.skipped
        assert result.detail.startswith(f"{word} is not installed: apt-get install")


def test_language_is_skipped_when_nobody_knows_it(executor):
    result = run(executor, "", "c#")
    assert (result.verdict, result.detail) == (Verdict.skipped, "programs in c# are not run")


def test_rust_is_skipped_when_it_uses_a_crate_that_is_not_here(executor, tools):
    tools("rust")
    uses = "use rand::Rng;\nuse regex::Regex;\nuse md5;\n"
    assert run(executor, uses + RUST.format(1), "rust").verdict is Verdict.passed
    result = run(executor, uses + 'fn f() { Regex::new("a"); }' + RUST.format(1), "rust")
    assert result.verdict is Verdict.skipped
    assert "the crate regex is not here" in result.detail and "--rust-crates" in result.detail


@pytest.fixture
def vendored(tmp_path):
    """A folder as `cargo vendor` makes it, with an md5 of ours that always gives the same."""
    crate = tmp_path / "vendor" / "md5"
    (crate / "src").mkdir(parents=True)
    manifest = '[package]\nname = "md5"\nversion = "0.7.0"\nedition = "2021"\n'
    (crate / "Cargo.toml").write_text(manifest)
    (crate / "src" / "lib.rs").write_text("pub fn compute(_: &str) -> u32 { 42 }\n")
    (crate / ".cargo-checksum.json").write_text('{"files": {}, "package": null}')
    return tmp_path / "vendor"


def test_rust_uses_a_crate_when_a_folder_has_it(vendored, tools):
    tools("rust")
    executor = Executor(replace(CONFIG, rust_crates=str(vendored)))
    uses = "use rand::Rng;\nuse md5;\n"
    source = uses + 'fn main() {}\n#[test]\nfn it() { assert_eq!(md5::compute("a"), 42); }'
    assert run(executor, source, "rust").verdict is Verdict.passed
    wrong = run(executor, source.replace("42); }", "43); }"), "rust")
    assert wrong.verdict is Verdict.wrong_answer
    other = run(executor, uses + "fn main() { rand::random(); }", "rust")
    assert other.verdict is Verdict.skipped and "the crate rand is not here" in other.detail


def test_folder_of_crates_is_refused_when_it_has_none(tmp_path, tools):
    tools("rust")
    executor = Executor(replace(CONFIG, rust_crates=str(tmp_path)))
    with pytest.raises(ValueError, match="has none of rand, regex, md5: give the folder that"):
        run(executor, RUST.format(1), "rust")


def test_rust_is_skipped_when_the_crates_cannot_be_built(vendored, tools):
    tools("rust")
    (vendored / "md5" / "src" / "lib.rs").write_text("this is no Rust")
    result = run(Executor(replace(CONFIG, rust_crates=str(vendored))), RUST.format(1), "rust")
    assert result.verdict is Verdict.skipped
    assert "the crates of --rust-crates cannot be built: error" in result.detail


def test_missing_library_skips_a_program_when_the_original_had_it(executor, tools):
    tools("c++")
    result = run(executor, "#include <boost/no_such_part.hpp>\nint main() {}", "c++")
    assert result.verdict is Verdict.skipped
    assert "apt-get install libboost-dev" in result.detail
    own = run(executor, "#include <no_such_header.h>\nint main() {}", "c++")
    assert own.verdict is Verdict.compile_error


def test_md5_of_java_is_there_when_a_problem_needs_it(executor, tools):
    """Debian keeps the settings of Java's security in /etc."""
    tools("java")
    source = """
public class Main {
    public static void main(String[] arguments) throws Exception {
        var md5 = java.security.MessageDigest.getInstance("MD5");
        var hex = new java.math.BigInteger(1, md5.digest("Hello world".getBytes())).toString(16);
        if (!hex.equals("3e25960a79dbc69b674cd4ec67a72c62")) throw new AssertionError(hex);
    }
}
"""
    assert run(executor, source, "java").verdict is Verdict.passed


def test_md5_of_cpp_is_there_when_openssl_is_installed(executor, tools):
    tools("c++")
    source = """
#undef NDEBUG
#include <assert.h>
#include <openssl/md5.h>
int main() {
    unsigned char digest[16];
    MD5((const unsigned char*) "Hello world", 11, digest);
    assert(digest[0] == 0x3e && digest[15] == 0x62);
}
"""
    assert run(executor, source, "c++").verdict in (Verdict.passed, Verdict.skipped)


def test_md5_of_javascript_is_there_when_a_problem_needs_it(executor, tools):
    tools("javascript")
    source = "const md5 = require('js-md5');\n"
    source += "console.assert(md5('Hello world') === '3e25960a79dbc69b674cd4ec67a72c62')"
    assert run(executor, source, "javascript").verdict is Verdict.passed


@pytest.mark.parametrize("written", ["console.log('x')", "console.error('x')"])
def test_javascript_fails_when_it_writes_anything(executor, tools, written):
    tools("javascript")
    result = run(executor, written, "javascript")
    assert result.verdict is Verdict.wrong_answer
    assert "it wrote 'x', and must write nothing" in result.detail


def test_examples_are_run_until_one_goes_wrong(executor):
    source = "import sys\nfor line in sys.stdin: print(int(line) * 2, end=' \\n\\n'[:2])"
    right = (Example(stdin="2\n", outputs=("5", "4\n")), Example(stdin="1\n3\n", outputs=("2\n6",)))
    assert run(executor, source, examples=right).verdict is Verdict.passed
    wrong = (*right, Example(stdin="7\n", outputs=("15",)), Example(stdin="x\n", outputs=("",)))
    result = run(executor, source, examples=wrong)
    assert result.verdict is Verdict.wrong_answer
    assert result.detail == "example 3: it wrote '14'"
    crash = run(executor, source, examples=(Example(stdin="x\n", outputs=("",)),))
    assert crash.verdict is Verdict.runtime_error


def test_java_program_is_found_when_its_class_has_another_name(executor, tools):
    tools("java")
    source = """
import java.util.*;
class Helper { static int twice(int value) { return 2 * value; } }
public class Doubler {
    static class Inner { }
    public static void main(String[] arguments) {
        System.out.println(Helper.twice(new Scanner(System.in).nextInt()));
    }
}
"""
    example = Example(stdin="21\n", outputs=("42",))
    assert run(executor, source, "java", examples=(example,)).verdict is Verdict.passed


def test_executor_refuses_when_there_is_no_sandbox(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    choose.working_sandbox.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap.*unsafe-local"):
            Executor(CONFIG)
        with pytest.raises(SandboxUnavailable, match="bubblewrap is not installed"):
            Executor(replace(CONFIG, sandbox="bubblewrap"))
    finally:
        choose.working_sandbox.cache_clear()


def test_programs_run_without_a_sandbox_when_that_is_asked_for_by_name():
    executor = Executor(replace(CONFIG, sandbox="unsafe-local"))
    result = run(executor, "assert 1 == 1")
    assert (result.verdict, result.isolation) == (Verdict.passed, "unsafe-local")
    assert run(executor, "while True: pass").verdict is Verdict.timeout


def test_go_finds_its_library_compiled_when_it_is_asked_twice(tools):
    """Newer versions of Go come without it, and would compile it for every program."""
    tools("go")
    executor = Executor(CONFIG)
    source = 'package main\nimport (\n"math"\n"testing"\n)\n'
    source += "func TestIt(t *testing.T) { if math.Sqrt(4) != 2 { t.Fail() } }"
    assert run(executor, source, "go").verdict is Verdict.passed
    cache = next(one for one in executor.toolchain("go").folders if "codegeex-go" in one)
    before = sorted(path.name for path in Path(cache).rglob("*"))
    assert any(name.endswith("-d") for name in before)  # what a compiler has made
    assert run(executor, source, "go").verdict is Verdict.passed
    assert sorted(path.name for path in Path(cache).rglob("*")) == before  # read-only


def test_nothing_more_is_started_when_the_loop_is_left():
    executor = Executor(replace(CONFIG, workers=1))
    seen = []

    def works():
        for number in range(100):
            seen.append(number)
            yield Work(task_id="Test/0", number=number, language="python", source="pass")

    with contextlib.closing(executor.run_all(works())) as results:
        next(results)
    assert len(seen) < 10


def test_programs_end_at_once_when_the_loop_is_left():
    executor = Executor(replace(CONFIG, workers=2, wall_s=60.0))
    sleeper = "import time; time.sleep(60)"
    works = [Work(task_id="Test/0", number=0, language="python", source="pass")]
    works += [Work(task_id="Test/0", number=n, language="python", source=sleeper) for n in (1, 2)]
    began = time.monotonic()
    with contextlib.closing(executor.run_all(works)) as results:
        assert next(results).verdict is Verdict.passed
        time.sleep(0.5)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("text", ["", "\0", "x = '\ud800'", "\ufeff", "é = 1", "\x1b[31m("])
def test_any_text_has_a_verdict_when_it_is_a_program(executor, text):
    result = run(executor, text)
    known = (Verdict.passed, Verdict.compile_error, Verdict.runtime_error)
    assert result.verdict in known
    assert "\x1b" not in result.detail


def test_text_is_refused_when_it_is_larger_than_a_file_may_be():
    executor = Executor(replace(CONFIG, disk_bytes=4 * MIB, file_bytes=2 * MIB))
    result = run(executor, "#" * (5 * MIB))
    assert (result.verdict, result.stage) == (Verdict.files, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wall_s": 0.0}, "wall_s is 0.0: it must be above 0"),
        ({"compile_s": -1.0}, "compile_s is -1.0: it must be above 0"),
        ({"output_bytes": 0}, "output_bytes is 0: it must be above 0"),
        ({"workers": -1}, "workers is -1: it must be at least 0"),
        ({"memory_bytes": 5}, "memory_bytes=5"),
    ],
)
def test_limit_is_refused_when_it_is_none(changes, message):
    with pytest.raises(ValueError, match=message):
        ExecutionConfig(**changes)


def test_crates_are_told_apart_from_words_when_rust_names_them_in_comments():
    source = 'use rand::Rng;\nuse regex::Regex;\n// a regex, at rand\nfn main() { "Regex"; }\n'
    assert "use r" not in rust._without_unused_crates(source)
