import random

from codegeex.data.order import packing_order
from codegeex.data.read import Found


def document(path, *imports, repository="r"):
    return Found(
        repository=repository,
        path=path,
        language="python",
        licence="",
        sha=path,
        start=0,
        size=1,
        prompt_size=0,
        imports=list(imports),
    )


def ordered(documents):
    order = packing_order(documents)
    assert sorted(order) == list(range(len(documents)))
    return [documents[index].path for index in order]


def test_needed_files_come_first_when_a_folder_imports_its_own():
    files = [document("p/a.py", "./b", "os"), document("p/b.py", "./c"), document("p/c.py")]
    assert ordered(files) == ["p/c.py", "p/b.py", "p/a.py"]


def test_absolute_imports_are_followed_when_they_name_the_folder():
    files = [document("src/pkg/a.py", "pkg/b"), document("src/pkg/b.py")]
    assert ordered(files) == ["src/pkg/b.py", "src/pkg/a.py"]


def test_headers_come_first_when_they_are_included():
    files = [document("a.cpp", "b.h"), document("b.h")]
    assert ordered(files) == ["b.h", "a.cpp"]


def test_order_stays_when_imports_go_in_a_circle():
    files = [document("a.py", "./b"), document("b.py", "./a"), document("c.py")]
    assert ordered(files) == ["b.py", "a.py", "c.py"]


def test_repositories_and_folders_stay_whole_when_they_are_mixed():
    files = [
        document("x/a.py", repository="one"),
        document("x/a.py", repository="two"),
        document("y/a.py", repository="one"),
        document("x/b.py", repository="one"),
    ]
    order = packing_order(files)
    assert order == [0, 3, 2, 1]


def test_every_file_follows_its_needs_when_there_is_no_circle():
    rng = random.Random(4)
    names = [f"p/m{i}.py" for i in range(200)]
    needs = {i: rng.sample(range(i), min(i, 3)) for i in range(200)}
    shuffled = rng.sample(range(200), 200)
    files = [document(names[i], *(f"./m{j}" for j in needs[i])) for i in shuffled]
    place = {path: at for at, path in enumerate(ordered(files))}
    assert all(place[names[j]] < place[names[i]] for i in needs for j in needs[i])


def test_order_is_found_when_imports_are_a_long_chain():
    files = [document(f"p/m{i}.py", f"./m{i + 1}") for i in range(5_000)]
    assert ordered(files)[0] == "p/m4999.py"
