import gzip
import json
import os
import shutil
import signal
import time
from multiprocessing import get_context

import pytest

from codegeex.data import prepare as module
from codegeex.data import working_folder
from codegeex.data.config import PrepareConfig, SplitBy
from codegeex.data.prepare import prepare_code
from codegeex.data.tokens import read_prefixes
from codegeex.fim import SENTINELS
from glm_core.data.config import DataConfig
from glm_core.data.prepare import prepare_data, read_manifest
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_core.train.run_lock import run_lock


def texts_of(prepared, split):
    shard = getattr(prepared, split)
    return [prepared.tokenizer.decode(shard.document(i)) for i in range(len(shard))]


def listing_of(folder, split):
    lines = (folder / f"{split}.documents.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_file_is_a_document_when_prepared(config, code, tmp_path):
    prepared = prepare_code(config(licence_headers=True))
    seen = {}
    for split in ("train", "heldout"):
        for text, row in zip(
            texts_of(prepared, split), listing_of(tmp_path / "out", split), strict=True
        ):
            line, _, body = text.partition("\n")
            assert line == f"# {row['path']}"
            assert row["language"] == "python"
            seen[f"{row['repository']}/{row['path']}"] = body
    files = {f"code/{path.relative_to(code)}": path.read_text() for path in code.rglob("*.py")}
    assert seen == {name: text.strip("\n") + "\n" for name, text in files.items()}
    assert len(prepared.heldout) >= 1
    assert all(prepared.tokenizer.has(name) for name in SENTINELS)


def test_documents_end_once_when_tokenised(config):
    prepared = prepare_code(config())
    for shard in prepared[1:]:
        for index in range(len(shard)):
            document = shard.document(index)
            assert document[-1] == prepared.tokenizer.eos_id
            assert not set(document[:-1].tolist()) & prepared.tokenizer.special_ids


def test_prefixes_are_the_tokens_of_the_path_when_there_is_no_prompt(config, tmp_path):
    prepared = prepare_code(config())
    prefixes = read_prefixes(tmp_path / "out", "train")
    assert prefixes.shape == (len(prepared.train), 2)
    assert prefixes[:, 1].sum() == 0
    for index, row in enumerate(listing_of(tmp_path / "out", "train")):
        ids = prepared.train.document(index)[: prefixes[index, 0]]
        assert prepared.tokenizer.decode(ids) == f"# {row['path']}\n"


def test_paths_are_left_out_when_told(config, tmp_path):
    prepared = prepare_code(config(path_line=False))
    assert read_prefixes(tmp_path / "out", "train").sum() == 0
    assert not any(text.startswith("# bisect.py") for text in texts_of(prepared, "train"))


def test_folders_of_a_repository_are_together_when_written(config, tmp_path):
    prepare_code(config())
    rows = listing_of(tmp_path / "out", "train")
    places = [(row["repository"], os.path.dirname(row["path"])) for row in rows]
    assert len(set(places)) == 1 + sum(a != b for a, b in zip(places, places[1:], strict=False))


def test_manifest_tells_what_was_done_when_prepared(config, code, tmp_path):
    (code / "alpha" / "broken.py").write_bytes(b"\0" * 2_000)
    (code / "alpha" / "again.py").write_bytes((code / "beta" / "glob.py").read_bytes())
    prepared = prepare_code(config())
    manifest = read_manifest(tmp_path / "out")
    assert manifest["tokenizer"] == prepared.tokenizer.fingerprint()
    assert manifest["splits"]["train"]["documents"] == len(prepared.train)
    assert manifest["splits"]["train"]["tokens"] == prepared.train.num_tokens
    told = manifest["code"]
    assert told["dropped"]["binary"] == [1, 2_000]
    assert told["dropped"]["exact_duplicate"][0] == 1
    assert [row["name"] for row in told["repositories"]] == ["code/alpha", "code/beta"]
    assert sum(row["files"] for row in told["repositories"]) == len(prepared.train)
    assert told["split_by"] == "file"


def test_core_reads_the_folder_when_it_is_named_as_source(config, tmp_path):
    prepared = prepare_code(config())
    again = prepare_data(DataConfig(source=str(tmp_path / "out")))
    assert again.train.meta == prepared.train.meta


def test_repositories_stay_whole_when_split_by_them(config, tmp_path):
    prepare_code(config(split_by=SplitBy.repository, heldout_fraction=0.5))
    sides = [
        {row["repository"] for row in listing_of(tmp_path / "out", split)}
        for split in ("train", "heldout")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_many_repositories_are_split_whole_when_nothing_is_said(config, tmp_path, monkeypatch):
    monkeypatch.setattr("codegeex.data.choose.MANY_REPOSITORIES", 2)
    prepare_code(config())
    assert read_manifest(tmp_path / "out")["code"]["split_by"] == "repository"


def test_tokenizer_is_the_given_one_when_named(config, tmp_path):
    ByteBPETokenizer.train(["some other words " * 40], 300, SENTINELS).save(tmp_path / "tok")
    prepared = prepare_code(config(tokenizer=str(tmp_path / "tok")))
    assert prepared.tokenizer.vocab_size <= 300


def test_tokenizer_knows_training_text_only_when_learnt(config):
    prepared = prepare_code(config(path_line=False))
    again = ByteBPETokenizer.train(texts_of(prepared, "train"), 400, SENTINELS)
    assert again.fingerprint() == prepared.tokenizer.fingerprint()


def test_bytes_are_the_same_when_processes_differ(config, tmp_path, monkeypatch):
    monkeypatch.setattr("codegeex.data.read.PART_BYTES", 30_000)
    monkeypatch.setattr("codegeex.data.tokens.PART_BYTES", 20_000)
    prepare_code(config())
    prepare_code(config(out=str(tmp_path / "two"), workers=2))
    assert tree(tmp_path / "out") == tree(tmp_path / "two")


def test_documents_are_the_same_when_parts_are_smaller(config, tmp_path, monkeypatch):
    prepare_code(config())
    monkeypatch.setattr("codegeex.data.read.PART_BYTES", 30_000)
    monkeypatch.setattr("codegeex.data.tokens.PART_BYTES", 20_000)
    prepare_code(config(out=str(tmp_path / "two")))
    assert tree(tmp_path / "out") == tree(tmp_path / "two")


@pytest.fixture(scope="module")
def whole(module_code):
    """The settings of a call, and what it wrote without being stopped."""
    settings = dict(sources=[str(module_code)], vocab_size=400, heldout_fraction=0.15, workers=1)
    out = module_code.parent / "out"
    prepare_code(PrepareConfig(**settings, out=str(out)))
    return settings, tree(out)


STAGES = ["_read", "choose", "_tokenizer", "_tokenise", "write_shard", "write_whole"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("before", [True, False])
def test_bytes_are_the_same_when_stopped_at_a_stage(whole, tmp_path, monkeypatch, stage, before):
    original = getattr(module, stage)

    def stopped(*args):
        if not before:
            original(*args)
        raise KeyboardInterrupt

    settings, expected = whole
    config = PrepareConfig(**settings, out=str(tmp_path / "out"))
    monkeypatch.setattr(module, stage, stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare_code(config)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    prepare_code(config)
    assert tree(tmp_path / "out") == expected
    assert not (tmp_path / "out.partial").exists()


def test_finished_stages_are_not_repeated_when_called_again(config, monkeypatch):
    monkeypatch.setattr(module, "_tokenise", lambda *_: stop())
    with pytest.raises(KeyboardInterrupt):
        prepare_code(config())
    monkeypatch.undo()
    monkeypatch.setattr(module.ReadPart, "__call__", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("codegeex.data.choose.without_duplicates", lambda *_: pytest.fail("again"))
    monkeypatch.setattr(module.ByteBPETokenizer, "train", lambda *_: pytest.fail("learnt again"))
    prepare_code(config())


def test_work_begins_anew_when_settings_changed(config, tmp_path, monkeypatch, caplog):
    prepare_code(config(min_bytes=3_000, out=str(tmp_path / "whole")))
    monkeypatch.setattr(module, "_tokenise", lambda *_: stop())
    with pytest.raises(KeyboardInterrupt):
        prepare_code(config())
    monkeypatch.undo()
    with caplog.at_level("INFO"):
        prepare_code(config(min_bytes=3_000))
    assert "settings or sources have changed: starting anew" in caplog.text
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_nothing_is_done_when_the_folder_is_there(config, monkeypatch, caplog):
    prepare_code(config())
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("made again"))
    with caplog.at_level("INFO"):
        prepare_code(config())
    assert "out is there already" in caplog.text


def test_leftover_goes_when_killed_at_the_very_end(config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "remove_leftover", lambda *_: pytest.fail("too early"))
    removed = shutil.rmtree
    monkeypatch.setattr(
        working_folder.shutil, "rmtree", lambda path, **_: removed(path, **_) if _ else stop()
    )
    with pytest.raises(KeyboardInterrupt):
        prepare_code(config())
    monkeypatch.undo()
    assert (tmp_path / "out.partial").exists()
    prepare_code(config())
    assert not (tmp_path / "out.partial").exists()


def stop():
    raise KeyboardInterrupt


def test_another_folder_is_asked_for_when_it_holds_something_else(config, code, tmp_path):
    prepare_code(config())
    with pytest.raises(ValueError, match="holds data from other settings or sources: name another"):
        prepare_code(config(min_bytes=10))
    with pytest.raises(ValueError, match="exists and was not made by codegeex prepare"):
        prepare_code(config(out=str(code)))
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="new.partial is in the way"):
        prepare_code(config(out=str(tmp_path / "new")))


def test_second_process_is_told_when_one_is_at_work(config, tmp_path, monkeypatch):
    monkeypatch.setattr(working_folder, "_PATIENCE_SECONDS", 0.1)
    with run_lock(tmp_path / "out.partial"):
        with pytest.raises(ValueError, match="out is being made by another process: wait for it"):
            prepare_code(config())


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder where nothing can be made")
def test_place_is_named_when_it_cannot_be_written(config):
    with pytest.raises(ValueError, match="/proc/none cannot be written .*: choose another folder"):
        prepare_code(config(out="/proc/none"))


def test_reasons_are_told_when_nothing_is_left(tmp_path, config):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no document is left of .*empty: there is no source file"):
        prepare_code(config(sources=[str(tmp_path / "empty")]))
    (tmp_path / "a.py").write_bytes(b"\0" * 2_000)
    (tmp_path / "b.py").write_text("x" * 11_000_000)
    sources = [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
    with pytest.raises(ValueError, match="is left of .*: 1 above max_bytes, 1 binary"):
        prepare_code(config(sources=sources))
    assert not (tmp_path / "out.partial").exists()


def test_source_is_named_when_it_cannot_be_used(tmp_path, config):
    with pytest.raises(ValueError, match="source 'nowhere' does not exist: name a folder of code"):
        prepare_code(config(sources=["nowhere"]))
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(ValueError, match="a.xyz': its name tells no programming language"):
        prepare_code(config(sources=[str(tmp_path / "a.xyz")]))


def test_unreadable_file_is_counted_when_others_are_left(config, code, tmp_path, monkeypatch):
    listed = module.list_sources

    def then_removed(settings):
        listing = listed(settings)
        (code / "alpha" / "csv.py").unlink()
        return listing

    monkeypatch.setattr(module, "list_sources", then_removed)
    prepare_code(config())
    assert read_manifest(tmp_path / "out")["code"]["dropped"]["unreadable"][0] == 1


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_records_are_documents_when_they_come_in_a_file(
    config, code, tmp_path, ending, monkeypatch
):
    monkeypatch.setattr("codegeex.data.read.PART_BYTES", 30_000)
    rows = [
        {
            "content": path.read_text(),
            "path": f"lib/{path.name}",
            "repo_name": "py",
            "license": "psf",
        }
        for path in sorted(code.rglob("*.py"))
    ]
    raw = "\n".join(map(json.dumps, rows)).encode()
    corpus = tmp_path / f"corpus{ending}"
    corpus.write_bytes(gzip.compress(raw) if ending.endswith(".gz") else raw)
    prepared = prepare_code(config(sources=[str(corpus)], min_bytes=100))
    assert len(prepared.train) + len(prepared.heldout) == len(rows)
    row = listing_of(tmp_path / "out", "train")[0]
    assert row["repository"] == "py"
    assert row["path"].startswith("lib/")
    assert row["licence"] == "psf"


def test_prompts_are_marked_when_records_have_them(config, tmp_path):
    rows = [
        {"prompt": f"# Returns {n} times x.\n", "code": f"def times(x):\n    return {n} * x\n"}
        for n in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepared = prepare_code(config(sources=[str(tmp_path / "pairs.jsonl")], vocab_size=300))
    prefixes = read_prefixes(tmp_path / "out", "train")
    assert len(prepared.train) + len(prepared.heldout) == 40
    found = []
    for index in range(len(prepared.train)):
        document, (path, prompt) = prepared.train.document(index), prefixes[index]
        assert path == 0
        parts = document[:prompt], document[prompt:-1]
        found.append(tuple(map(prepared.tokenizer.decode, parts)))
    assert set(found) <= {(row["prompt"], row["code"]) for row in rows}


def test_records_are_left_out_when_they_do_not_pass(config, tmp_path):
    good = "def ordinary(value):\n    return value + 1\n" * 40
    rows = [
        {"code": good, "path": "a.py"},
        {"code": good + "x = 1\n", "path": "tests/test_a.py"},
        {"code": good + "y = 1\n", "language": "rust"},
        {"code": good + "z = 1\n"},
        {"code": "# SPDX-License-Identifier: GPL-3.0-only\n" + good, "path": "b.py"},
        {"code": "short", "path": "c.py"},
        {"prompt": "p", "code": " ", "path": "d.py"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare_code(
        config(
            sources=[str(tmp_path / "rows.jsonl")],
            languages=["python"],
            heldout_fraction=0,
            vocab_size=300,
        )
    )
    dropped = read_manifest(tmp_path / "out")["code"]["dropped"]
    assert {name: files for name, (files, _) in dropped.items()} == {
        "unknown_language": 1,
        "other_language": 1,
        "test": 1,
        "too_small": 2,
        "licence": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"code": "a"}\n{"code" 1}\n', r"rows\.jsonl:2 is not valid JSON"),
        (b'{"text": "a"}\n', r"rows\.jsonl:1 has no field code or content"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_line_is_named_when_it_is_malformed(config, tmp_path, content, message, workers, code):
    (tmp_path / "rows.jsonl").write_bytes(content)
    sources = [str(tmp_path / "rows.jsonl"), str(code)]
    with pytest.raises(ValueError, match=message):
        prepare_code(config(sources=sources, workers=workers))
    assert not (tmp_path / "out.partial").exists()


def test_file_is_named_when_it_is_damaged(config, tmp_path):
    for name, raw in (("a.jsonl.gz", b"no"), ("b.jsonl.gz", gzip.compress(b"{}" * 99)[:-9])):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ValueError, match=rf"{name} is damaged .*: copy it again, or leave"):
            prepare_code(config(sources=[str(tmp_path / name)]))


def test_benchmark_is_kept_out_when_named(config, code, tmp_path):
    target = (code / "beta" / "heapq.py").read_text()
    solution = target[target.index("def heappush(") : target.index("def heapreplace(")]
    problem = {"task_id": "Heap/0", "prompt": "Push an item", "canonical_solution": solution}
    (tmp_path / "bench.jsonl").write_text(json.dumps(problem))
    prepared = prepare_code(config(decontaminate=[str(tmp_path / "bench.jsonl")]))
    told = read_manifest(tmp_path / "out")["code"]
    assert told["contaminated"] == [["Heap/0", "code/beta/heapq.py"]]
    assert told["dropped"]["contaminated"][0] == 1
    assert not any("def heappush(" in text for text in texts_of(prepared, "train"))


def test_near_copies_of_heldout_files_are_not_trained_on_when_there_are_some(config, code):
    first = prepare_code(config())
    heldout = listing_of(first.heldout.folder, "heldout")[0]["path"]
    (original,) = code.rglob(heldout)
    copy = original.read_text().replace("return", "return  # noqa\n   ", 1)
    for number in range(6):  # some of them fall to either side
        original.with_name(f"copy{number}.py").write_text(copy + f"x = {number}\n")
    again = prepare_code(config(out=str(code.parent / "again")))
    told = read_manifest(again.train.folder)["code"]["dropped"]
    assert told["near_heldout"][0] + told.get("near_duplicate", [0])[0] == 6
    body = original.read_text().strip("\n")
    assert not any(body[-400:] in text for text in texts_of(again, "train"))


def test_bytes_are_the_same_when_killed(whole, tmp_path, monkeypatch):
    settings, expected = whole
    monkeypatch.setattr("codegeex.data.read.PART_BYTES", 20_000)
    monkeypatch.setattr("codegeex.data.tokens.PART_BYTES", 20_000)
    config = PrepareConfig(**settings | {"workers": 2}, out=str(tmp_path / "out"))
    killed = 0
    for mark in ["read/00003.json", "chosen.json", "tokenizer", "tokens/train-00001.lengths"]:
        process = get_context("fork").Process(target=prepare_code, args=(config,))
        process.start()
        while process.is_alive() and not (tmp_path / "out.partial" / mark).exists():
            time.sleep(0.001)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 2
    prepare_code(config)
    assert tree(tmp_path / "out") == expected


def test_names_are_made_valid_when_they_are_no_text(config, code, tmp_path):
    name = b"caf\xe9.py"
    (code / "alpha" / os.fsdecode(name)).write_bytes((code / "alpha" / "csv.py").read_bytes())
    (code / "alpha" / "csv.py").unlink()
    rows = [{"code": "value = 1\n" * 200, "path": "a\ud800.py", "repo": "r\udfff"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare_code(config(sources=[str(code), str(tmp_path / "rows.jsonl")]))
    found = [row for split in ("train", "heldout") for row in listing_of(tmp_path / "out", split)]
    assert {"caf?.py", "a?.py"} <= {row["path"] for row in found}
    assert "r?" in {row["repository"] for row in found}


def test_nothing_is_held_out_when_the_share_is_zero(config):
    prepared = prepare_code(config(heldout_fraction=0))
    assert len(prepared.heldout) == 0
    assert len(prepared.train) == 16


def test_vocabulary_is_smaller_when_the_code_has_fewer_merges(config, code, caplog):
    sources = [str(code / "alpha" / "bisect.py"), str(code / "alpha" / "cmd.py")]
    with caplog.at_level("INFO"):
        prepared = prepare_code(config(sources=sources, vocab_size=8_192))
    assert prepared.tokenizer.vocab_size < 8_192
    assert "merges for" in caplog.text
    assert "2 files, 0.0 MB to read" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": []}, "no source is given: name folders of code, .* or installed-code"),
        ({"out": ""}, "no folder to write is given: add --out FOLDER"),
        ({"heldout_fraction": 1.0}, "heldout_fraction=1.0 must be at least 0 and below 1"),
        ({"min_alphabetic": -1}, "min_alphabetic=-1 must be at least 0"),
        ({"near_duplicates": 1}, "near_duplicates=1 must be at least 0 and below 1"),
        ({"max_mean_line": 0}, "max_mean_line=0 must be above 0"),
        ({"min_bytes": -1}, "min_bytes=-1 must not be negative"),
        ({"max_bytes": 1_000}, "max_bytes=1000 must be above min_bytes"),
        ({"workers": -1}, "workers=-1 must not be negative"),
        ({"vocab_size": 100}, "vocab_size=100 must be at least 267: 256 bytes and the special"),
        ({"languages": ["kotlinn"]}, "language 'kotlinn' is unknown: did you mean kotlin"),
    ],
)
def test_setting_is_named_when_it_makes_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        PrepareConfig(**{"sources": ["x"], "out": "y"} | settings)


def test_prefixes_are_refused_when_the_folder_has_none(tmp_path):
    with pytest.raises(ValueError, match="train.prefixes is missing: the folder was not made by"):
        read_prefixes(tmp_path, "train")
