import logging

from glm_core.progress import Progress


def test_line_has_an_eta_when_the_total_is_known():
    progress = Progress("tokenising", 30, "MB")
    progress.add(10)
    assert progress.line(5.0) == "tokenising 10.0/30.0 MB (2.0 MB/s, eta 10s)"


def test_line_has_no_eta_when_the_total_is_unknown():
    progress = Progress("reading", 0, "MB")
    progress.add(10)
    assert progress.line(5.0) == "reading 10.0 MB (2.0 MB/s)"


def test_lines_are_logged_only_when_due(caplog):
    with caplog.at_level(logging.INFO, "glm_core"):
        often, seldom = Progress("a", 1, "MB", 0.0), Progress("b", 1, "MB", 1e9)
        often.add(0.5)
        seldom.add(0.5)
    assert [record.message[0] for record in caplog.records] == ["a"]
