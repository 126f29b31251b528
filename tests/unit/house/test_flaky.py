"""No test is known to fail now and then; and continuous integration says which did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.last_failed import names

ROOT = Path(__file__).parents[3]


def test_no_test_is_known_to_fail_now_and_then() -> None:
    text = (ROOT / "tests" / "FLAKY.md").read_text()
    _, heading, known = text.partition("## Known\n")
    assert heading and not known.strip(), "mend these, or show that they are no defects, before anything else"


def test_what_failed_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", "."]
    failed = subprocess.run([*command, "test_some.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert names(tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed") == ["test_some.py::test_bad"]
    assert names(tmp_path / "nowhere") == []
