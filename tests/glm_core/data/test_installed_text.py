import pytest

from glm_core.data.documents import HELDOUT, TRAIN, share_of
from glm_core.data.installed_text import (
    MIN_DOCUMENT_CHARS,
    TextRoot,
    default_roots,
    installed_documents,
    installed_versions,
)


def paragraph(topic):
    return (
        f"This paragraph speaks about {topic} and about how the {topic} of one module is used by "
        f"the functions of another one, in words that occur together only where {topic} is meant."
    )


def module(*topics):
    return '"""' + "\n\n".join(paragraph(topic) for topic in topics) + '"""\n'


@pytest.fixture
def roots(tmp_path):
    files = {
        "pkg/a.py": module("apples", "pears"),
        "pkg/b.py": module("apples", "plums", "figs"),
        "pkg/copy_of_a.py": module("apples", "pears"),
        "pkg/tests/c.py": module("tests one", "tests two"),
        "pkg/_vendor/d.py": module("vendored", "vendored too"),
        "glm_core/e.py": module("our own", "our own too"),
        "pkg/test_f.py": module("a test", "another test"),
        "pkg/tiny.py": '"""Too little."""\n',
        "single.py": module("nuts", "dates"),
        "pkg-1.0.dist-info/METADATA": f"Name: pkg\n\n{paragraph('readmes')} {paragraph('x')}\n",
        "glm_lab-0.1.0.dist-info/METADATA": f"Name: glm-lab\n\n{paragraph('us')}{paragraph('u')}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [TextRoot("site-packages", tmp_path)]


def read(roots, **settings):
    return list(installed_documents(roots, topics=False, **settings))


def test_documents_are_the_packages_own_when_read(roots):
    names = [document.name for document in read(roots, heldout_fraction=0)]
    assert names == [
        "site-packages/pkg/a.py",
        "site-packages/pkg/b.py",
        "site-packages/single.py",
        "site-packages/pkg.dist-info",
    ]


def test_repeated_paragraphs_go_when_an_earlier_document_had_them(roots):
    documents = {document.name: document.text for document in read(roots, heldout_fraction=0)}
    assert paragraph("apples") in documents["site-packages/pkg/a.py"]
    assert paragraph("apples") not in documents["site-packages/pkg/b.py"]
    assert paragraph("plums") in documents["site-packages/pkg/b.py"]


def test_every_document_is_long_enough_when_read(roots):
    assert all(len(d.text) >= MIN_DOCUMENT_CHARS for d in read(roots, heldout_fraction=0))


def test_order_and_text_are_the_same_when_workers_differ(roots, tmp_path):
    for index in range(70):  # enough files for processes to start
        (tmp_path / f"many_{index:02}.py").write_text(module(f"n{index}", f"m{index}"))
    assert read(roots, workers=2) == read(roots, workers=1)


def test_split_follows_the_name_when_contents_change(roots, tmp_path):
    shares = sorted(share_of(document.name) for document in read(roots))
    middle = sum(shares) / len(shares)
    before = {d.name: d.split for d in read(roots, heldout_fraction=middle)}
    (tmp_path / "pkg/a.py").write_text(module("quinces", "medlars"))
    after = {d.name: d.split for d in read(roots, heldout_fraction=middle)}
    assert {before[name] for name in before} == {TRAIN, HELDOUT}
    assert all(after[name] == before[name] for name in before if name in after)


def test_description_name_has_no_version_when_listed(roots):
    assert "site-packages/pkg.dist-info" in [d.name for d in read(roots, heldout_fraction=0)]


def test_language_reference_comes_first_when_topics_are_wanted():
    first = next(iter(installed_documents([], heldout_fraction=0)))
    assert first.name.startswith("stdlib/pydoc_data/topics#")
    assert len(first.text) > MIN_DOCUMENT_CHARS


def test_this_pythons_folders_exist_when_asked():
    labels = [root.label for root in default_roots()]
    assert labels[:2] == ["stdlib", "site-packages"]
    assert all(root.folder.is_dir() for root in default_roots())


def test_versions_leave_our_own_package_out_when_listed():
    versions = installed_versions()
    assert "numpy" in versions
    assert not any(name.lower() == "glm-lab" for name in versions)
