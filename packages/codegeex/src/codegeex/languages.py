"""Programming languages: the first line that CodeGeeX was trained with, comments, file endings.

The tag of a language is a fact of the weights, oddities included: `swift` in lower case, Tcl tagged
as Augeas, no space in Fortran's. A language that CodeGeeX never saw has a tag of the same form.
Source: THUDM/CodeGeeX2 evaluation/utils.py and THUDM/CodeGeeX codegeex/data/data_utils.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language."""

    key: str
    """As the original's tables spell it: lower case."""
    name: str
    """As people write it; CodeGeeX4's `###LANGUAGE:`."""
    tag: str
    """The line with which CodeGeeX's training texts begin."""
    aliases: tuple[str, ...] = ()
    """Other spellings, those of editors (language ids of VS Code) among them."""
    extensions: tuple[str, ...] = ()
    """Endings and whole names of its files, lower case."""
    line_comment: str = ""
    """What begins a comment that ends with the line; empty where there is none."""
    uses_indent: bool = False
    """Whether blocks are told by indentation and not by brackets or words."""


# key | name | comment before, behind the tag's words | other spellings | endings of files
_TABLE = """
c | C | // | | .c .h
c++ | C++ | // | cpp cxx | .cpp .cc .cxx .c++ .hpp .hh .hxx .h++ .ipp
c# | C# | // | csharp c-sharp cs | .cs .csx
css | CSS | /* */ | scss less | .css .scss .less
cuda | Cuda | // | cuda-cpp | .cu .cuh
dart | Dart | // | | .dart
lua | Lua | // | | .lua
objective-c | Objective-C | // | objectivec objc | .m
objective-c++ | Objective-C++ | // | objective-cpp objcpp | .mm
python | Python | # | py python3 | .py .pyi .pyw
perl | Perl | # | | .pl .pm
prolog | Prolog | % | | .pro
swift | Swift | // | | .swift
lisp | Lisp | ; | | .lisp .lsp
java | Java | // | | .java
scala | Scala | // | | .scala .sc
tex | TeX | % | latex | .tex .sty .cls
vue | Vue | <!-- --> | | .vue
markdown | Markdown | <!-- --> | md | .md .markdown
html | HTML | <!-- --> | | .html .htm
php | PHP | // | | .php
javascript | JavaScript | // | js node javascriptreact jsx | .js .mjs .cjs .jsx
typescript | TypeScript | // | ts typescriptreact tsx | .ts .mts .cts .tsx
go | Go | // | golang | .go
shell | Shell | # | sh bash shellscript zsh | .sh .bash .zsh
rust | Rust | // | rs | .rs
sql | SQL | -- | | .sql
kotlin | Kotlin | // | kt | .kt .kts
visual-basic | Visual Basic | ' | vb | .vb .bas
ruby | Ruby | # | rb | .rb .rake gemfile rakefile
pascal | Pascal | // | | .pas .pp
r | R | # | | .r
fortran | Fortran | ! | | .f .f90 .f95 .f03 .for
lean | Lean | -- | | .lean
matlab | Matlab | % | | .mat
delphi | Delphi | { } | | .dpr
scheme | Scheme | ; | | .scm .ss
basic | Basic | ' | | .bi
assembly | Assembly | ; | asm | .asm .s
groovy | Groovy | // | gradle | .groovy .gradle
abap | Abap | * | | .abap
gdscript | GDScript | # | | .gd
haskell | Haskell | -- | hs | .hs
julia | Julia | # | jl | .jl
elixir | Elixir | # | | .ex .exs
excel | Excel | ' | |
clojure | Clojure | ; | clj | .clj .cljs .cljc
actionscript | ActionScript | // | | .as
solidity | Solidity | // | | .sol
powershell | PowerShell | # | | .ps1 .psm1
erlang | Erlang | % | | .erl .hrl
cobol | Cobol | // | | .cob .cbl
alloy | Alloy | /* */ | | .als
awk | AWK | // | | .awk
thrift | Thrift | /* */ | | .thrift
sparql | SPARQL | # | | .rq .sparql
augeas | Augeas | // | | .aug
cmake | CMake | # | | .cmake cmakelists.txt
f-sharp | F# | // | f# fsharp | .fs .fsi .fsx
stan | Stan | // | | .stan
isabelle | Isabelle | (* *) | | .thy
dockerfile | Dockerfile | # | docker | dockerfile
rmarkdown | RMarkdown | # | | .rmd
literate-agda | Literate Agda | -- | | .lagda
tcl | Tcl | // | | .tcl
glsl | GLSL | // | | .glsl .vert .frag
antlr | ANTLR | // | | .g4
verilog | Verilog | // | | .v
racket | Racket | ; | | .rkt
standard-ml | Standard ML | (* *) | sml | .sml .sig
elm | Elm | -- | | .elm
yaml | YAML | # | yml | .yaml .yml
smalltalk | Smalltalk | '' | | .st
ocaml | OCaml | (* *) | | .ml .mli
idris | Idris | -- | | .idr
protocol-buffer | Protocol Buffer | // | protobuf proto | .proto
bluespec | Bluespec | // | | .bsv
applescript | AppleScript | -- | | .applescript
makefile | Makefile | # | make | makefile .mk
tcsh | TCSH | # | csh | .tcsh .csh
maple | Maple | # | | .mpl
systemverilog | SystemVerilog | // | | .sv .svh
literate-coffeescript | Literate CoffeeScript | # | | .litcoffee
vhdl | VHDL | -- | | .vhd .vhdl
restructuredtext | reStructuredText | .. | rst | .rst
sas | SAS | * | | .sas
literate-haskell | Literate Haskell | > | | .lhs
java-server-pages | Java Server Pages | // | jsp | .jsp
coffeescript | CoffeeScript | # | coffee | .coffee
emacs-lisp | Emacs Lisp | ; | elisp | .el
mathematica | Mathematica | // | | .wl .nb
xslt | XSLT | <!-- --> | | .xsl .xslt
zig | Zig | // | | .zig
common-lisp | Common Lisp | ; | | .cl
stata | Stata | * | | .do .ado
agda | Agda | -- | | .agda
ada | Ada | -- | | .adb .ads
json | JSON | // | jsonc | .json .jsonc
toml | TOML | # | | .toml
xml | XML | <!-- --> | | .xml .svg
"""
_ODD_TAGS = {
    "swift": "// language: swift",
    "fortran": "!language: Fortran",
    "tcl": "// language: Augeas",
    "standard-ml": "(*language:Standard ML*)",
}
_BY_INDENT = frozenset(
    "python yaml restructuredtext coffeescript literate-coffeescript f-sharp haskell gdscript elm "
    "idris agda lean".split()
)
_ANOTHER_COMMENT = {
    "lua": "--",
    "awk": "#",
    "tcl": "#",
    "cobol": "*>",
    "smalltalk": "",
    "excel": "",
    "json": "",
    "literate-haskell": "--",
}
"""Where the sign in the tag is not what begins a comment in the language."""


def _languages() -> Iterator[Language]:
    for row in _TABLE.strip().splitlines():
        key, name, comment, aliases, extensions = (cell.strip() for cell in row.split("|"))
        before, _, behind = comment.partition(" ")
        words = f"language: {name}"
        if before in ("<!--", "{", "(*"):
            tag = f"{before}{words}{behind}"
        else:
            tag = f"{before} {words} {behind}".rstrip()
        yield Language(
            key=key,
            name=name,
            tag=_ODD_TAGS.get(key, tag),
            aliases=tuple(aliases.split()),
            extensions=tuple(extensions.split()),
            line_comment=_ANOTHER_COMMENT.get(key, "" if behind else before),
            uses_indent=key in _BY_INDENT,
        )


LANGUAGES: dict[str, Language] = {language.key: language for language in _languages()}
_BY_NAME = {
    spelling.lower(): language
    for language in LANGUAGES.values()
    for spelling in (*language.aliases, language.name, language.key)
}
_BY_EXTENSION = {
    extension: language for language in LANGUAGES.values() for extension in language.extensions
}


def find_language(name: str) -> Language:
    """Returns the language of a name, in any of its spellings.

    Raises:
        ValueError: there is none of this name.
    """
    found = _BY_NAME.get(name.strip().lower())
    if found is None:
        near = difflib.get_close_matches(name.strip().lower(), _BY_NAME, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "leave it away if it is unknown"
        raise ValueError(f"language {name!r} is unknown: {hint}")
    return found


def language_of_path(path: str) -> Language | None:
    """Returns the language that a file's name tells, or None."""
    pure = PurePosixPath(path.replace("\\", "/"))
    name = pure.name.lower()
    return _BY_EXTENSION.get(name) or _BY_EXTENSION.get(PurePosixPath(name).suffix)
