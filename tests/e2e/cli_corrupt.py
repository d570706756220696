#!/usr/bin/env python3
"""The program on damaged model folders: each is refused with its own error, and none ends it otherwise."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from clitest import Suite


def find_maker(binary):
    """make_corrupt of the same build."""
    if os.environ.get("PENSTOCK_MAKE_CORRUPT"):
        return pathlib.Path(os.environ["PENSTOCK_MAKE_CORRUPT"])
    build = pathlib.Path(binary).parent
    return next((path for path in (build / "make_corrupt", build / "tests" / "make_corrupt",
                                   build / "tests" / "corrupt" / "make_corrupt") if path.is_file()), None)


def corrupt(suite):
    maker = find_maker(suite.binary)
    if maker is None:
        print("make_corrupt is not built")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([maker, folder], check=True, stdout=subprocess.DEVNULL)
        cases = json.loads((pathlib.Path(folder) / "expected.json").read_text(encoding="utf-8"))
        suite.check(len(cases) >= 60, f"only {len(cases)} damaged folders")
        for case in cases:
            model = pathlib.Path(folder) / case["dir"]
            suite.refused(["inspect", model], 1, case["message"])
        for case in cases[::10]:
            model = pathlib.Path(folder) / case["dir"]
            suite.refused(["score", model, "--input", "-"], 1, case["message"], stdin='{"token_ids": [1]}\n')


Suite().finish(corrupt)
