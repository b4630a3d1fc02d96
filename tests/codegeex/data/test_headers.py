import pytest

from codegeex.data.headers import forbids, licence_in, without_notice

BODY = "import os\n\n\ndef run():\n    return os.getpid()\n"


@pytest.mark.parametrize(
    "notice",
    [
        "# Copyright 2020 The Authors.\n#\n# Licensed under the Apache License\n",
        "# SPDX-License-Identifier: MIT\n",
        "/*\n * Copyright (c) 2019\n * Permission is hereby granted, free of charge\n */\n",
        "// Copyright The Go Authors.\n// Use is governed by a BSD-style license.\n",
        "<!-- Copyright me -->\n",
    ],
)
def test_notice_goes_when_it_is_at_the_top(notice):
    assert without_notice(notice + "\n" + BODY) == BODY
    assert without_notice(notice + BODY) == BODY


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        "# What this module does.\n" + BODY,
        '"""A docstring about the license of files."""\n' + BODY,
        BODY + "# Copyright at the end\n",
        "/* copyright */ int x;\n",
        "/* copyright that never ends\n",
        "#include <stdio.h>\nint main() { return 0; }\n",
        "",
    ],
)
def test_text_stays_when_no_notice_is_at_its_top(text):
    assert without_notice(text) == text


def test_first_line_stays_when_it_has_a_meaning():
    head = "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Copyright me\n"
    assert without_notice(head + BODY) == "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n" + BODY


def test_other_comments_stay_when_they_follow_the_notice():
    text = "# Copyright me\n\n# Explains the rest.\n" + BODY
    assert without_notice(text) == "# Explains the rest.\n" + BODY


@pytest.mark.parametrize(
    ("head", "told", "forbidden"),
    [
        ("# SPDX-License-Identifier: GPL-2.0-only\n", "GPL-2.0-only", True),
        ("// SPDX-License-Identifier: Apache-2.0 OR MIT\n", "Apache-2.0 OR MIT", False),
        ("/* SPDX-License-Identifier: MPL-2.0 */\n", "MPL-2.0", True),
        ("# GNU General Public License for more details\n", "copyleft", True),
        ("# under the terms of the LGPLv3\n", "copyleft", True),
        ("/* Mozilla Public\n * License */\n", "copyleft", True),
        ("/* Mozilla Public License, v. 2.0 */\n", "copyleft", True),
        ("# NVIDIA PROPRIETARY\n", "copyleft", True),
        ("# MIT License\n", "", False),
        ("", "", False),
        ("GPL = 'a string about the GPL'\n", "", False),
    ],
)
def test_licence_is_read_when_the_header_names_it(head, told, forbidden):
    assert licence_in(head + BODY) == told
    assert forbids(head + BODY) is forbidden
