import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegeex.data.licences import is_permissive, licence_of

YES, NO = ("MIT", "Apache-2.0", "bsd-3-clause", "ISC"), ("GPL-3.0-only", "MPL-2.0", "Foo-1.0")


@pytest.mark.parametrize(
    ("expression", "permissive"),
    [
        ("MIT", True),
        ("mit", True),
        ("PSF-2.0", True),
        ("0BSD", True),
        ("Zlib", True),
        ("HPND", True),
        ("Unlicense", True),
        ("GPL-2.0-only", False),
        ("LGPL-3.0-or-later", False),
        ("AGPL-3.0-only", False),
        ("MPL-2.0", False),
        ("LicenseRef-NVIDIA-Proprietary", False),
        ("MPL-2.0 AND MIT", False),
        ("MPL-2.0 OR MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT BSD", False),
        ("", False),
    ],
)
def test_expression_is_judged_when_it_is_spdx(expression, permissive):
    assert is_permissive(expression) is permissive


def trees():
    leaves = st.sampled_from(YES + NO)
    grow = lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner)  # noqa: E731
    return st.recursive(leaves, grow, max_leaves=12)


def written(tree):
    return tree if isinstance(tree, str) else f"({written(tree[0])} {tree[1]} {written(tree[2])})"


@given(trees())
def test_expression_is_judged_as_python_does_when_it_is_nested(tree):
    text = written(tree)
    for name in (*YES, *NO):
        text = text.replace(name, str(name in YES))
    assert is_permissive(written(tree)) is eval(text.replace("AND", "and").replace("OR", "or"))


CLASSIFIER = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "licence"),
    [
        ("BSD-3-Clause", "something else", [], "BSD-3-Clause"),
        ("", "MIT", [], "MIT"),
        ("", "The MIT License", [], "MIT"),
        ("", "Apache 2.0 License", [], "Apache-2.0"),
        ("", "Apache License, Version 2.0", [], "Apache-2.0"),
        ("", "BSD", ["Programming Language :: Python", CLASSIFIER + "BSD License"], "BSD"),
        ("", "3-Clause BSD License", [], "BSD"),
        ("", "", [CLASSIFIER + "Apache Software License"], "Apache-2.0"),
        ("", "UNKNOWN", [CLASSIFIER + "ISC License (ISCL)"], "ISC"),
        ("", "", [CLASSIFIER + "Python Software Foundation License"], "PSF-2.0"),
        (
            "",
            "MIT OR Apache-2.0",
            [CLASSIFIER + "MIT License", CLASSIFIER + "Apache Software License"],
            "MIT OR Apache-2.0",
        ),
        ("", "MIT License\n\nCopyright (c) 2020 X\n\nPermission is hereby ...", [], "MIT"),
        ("", "MPL-2.0 AND MIT", [], "mpl-2.0 and mit"),
        ("", "", [], ""),
        ("", "UNKNOWN", [], ""),
    ],
)
def test_licence_is_found_when_metadata_tell_it(expression, text, classifiers, licence):
    assert licence_of(expression, text, classifiers) == licence


@pytest.mark.parametrize(
    ("text", "classifiers"),
    [
        ("", [CLASSIFIER + "Mozilla Public License 2.0 (MPL 2.0)"]),
        ("", [CLASSIFIER + "GNU General Public License v3 (GPLv3)"]),
        ("LGPL", [CLASSIFIER + "BSD License"]),
        ("GPL-3.0 or later", []),
        ("NVIDIA Proprietary Software", []),
        ("My own licence", []),
        ("", [CLASSIFIER + "MIT License", CLASSIFIER + "GNU Affero General Public License v3"]),
    ],
)
def test_licence_is_not_permissive_when_metadata_say_otherwise(text, classifiers):
    assert not is_permissive(licence_of("", text, classifiers))
