from __future__ import annotations

import os
import subprocess

import pytest

from tautools.run.provenance import git_revision


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        made = subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True, text=True)
        return made.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "-m", "one")
    return tmp_path, git("rev-parse", "HEAD")


def test_the_revision_says_whether_anything_was_changed(checkout):
    root, head = checkout
    assert git_revision(root) == head
    (root / "new").write_text("not tracked")
    assert git_revision(root) == head
    (root / "file").write_text("two")
    assert git_revision(root) == f"{head}-dirty"


def test_asking_for_the_revision_writes_nothing_into_the_checkout(checkout):
    root, head = checkout
    os.utime(root / "file", (1_000_000_000, 1_000_000_000))  # git would note the new time in its index
    before = (root / ".git" / "index").read_bytes()
    assert git_revision(root) == head
    assert (root / ".git" / "index").read_bytes() == before
    (root / ".git" / "index.lock").touch()  # somebody is committing
    assert git_revision(root) == head


def test_what_is_no_checkout_has_no_revision(tmp_path):
    assert git_revision(tmp_path) is None
