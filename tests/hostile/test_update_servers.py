"""Update servers that do not mean well: the old bundle runs on, and one line says why."""

import shutil
from pathlib import Path

import pytest

from hostile.patches import scene
from hostile.update_servers import SERVERS, evil, mutants, own_clock, piece, pieces, update_from
from irsplit.base.errors import BundleError, IrsplitError, RemoteError
from irsplit.cli import main
from irsplit.runtime.serving.client import update as update_module
from irsplit.runtime.serving.client.update import update
from test_delta import contents

WAITED_FOR = (
    "nothing",
    "busy with escape sequences",
    "a chunk that is none",
    "a chunk of 2^200 bytes",
)
"""What a broken link or a busy server may give, so that it is asked again until time is up."""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    return Path(shutil.copytree(scene().old, tmp_path / "device"))


@pytest.mark.parametrize("name", SERVERS)
def test_old_bundle_stays_and_one_line_says_why(name, device, capsys):
    with evil(*SERVERS[name]()) as server, own_clock():
        assert main(["update", str(device), "--from", server.url]) == 2
    *notes, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith("note: ") for line in notes)
    assert all(line.isprintable() and len(line) < 800 for line in (*notes, error))
    assert contents(device) == contents(scene().old)
    assert [path.name for path in device.parent.iterdir()] == ["device"]
    if name in WAITED_FOR:
        assert "did not arrive in time" in error
    else:
        assert 1 <= len(server.requests) <= update_module._MOST_BAD_ANSWERS + 1


def test_answers_that_make_no_sense_are_asked_for_ever_less_often(device):
    junk, refused = (
        SERVERS["junk as content-range"](),
        pytest.raises(RemoteError, match="make no sense"),
    )
    with evil(*junk) as server, own_clock() as clock, refused:
        update(server.url, device)
    assert len(clock.pauses) == update_module._MOST_BAD_ANSWERS - 1
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[-1] == update_module._LONGEST_PAUSE_S


def test_restarts_are_counted_and_wait(device):
    others, refused = (
        SERVERS["another tag each time"](),
        pytest.raises(RemoteError, match="began another patch"),
    )
    with evil(*others) as server, own_clock() as clock, refused:
        update(server.url, device)
    assert len(clock.pauses) == update_module._MOST_RESTARTS
    assert clock.pauses == sorted(set(clock.pauses))


def test_another_build_that_comes_while_one_is_under_way_is_taken(device):
    patch = scene().patch.together()
    first = piece(patch[:100], f"bytes 0-99/{len(patch) + 7}", tag='"before"')
    rest = piece(patch[100:], f"bytes 100-{len(patch) - 1}/{len(patch)}")
    with evil(first, rest, *pieces(patch)) as server, own_clock():
        update(server.url, device)
    assert contents(device) == contents(scene().new)


def test_honest_answers_after_bad_ones_are_taken(device):
    bad = [
        SERVERS[name]()[0]
        for name in ("no content-range", "101 headers", "nothing", "a wrong checksum")
    ]
    with evil(*bad, *pieces(scene().patch.together())) as server, own_clock():
        assert update(server.url, device).changed
    assert contents(device) == contents(scene().new)


def test_patch_larger_than_the_disk_is_refused_at_its_first_piece(device):
    with (
        evil(*SERVERS["a patch of 900 GB"]()) as server,
        pytest.raises(BundleError, match=r"900000000000 bytes and \d+"),
    ):
        update(server.url, device)
    assert len(server.requests) == 1


def test_some_mutants(tmp_path):
    """A short run of what `python -m benchmarks.fuzz_readers` does at length."""
    updated = 0
    for number, answers in enumerate(mutants(3, 60)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            update_from(answers, folder)
            updated += 1
        except IrsplitError:
            continue
    assert 0 < updated < 60
