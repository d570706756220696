#!/usr/bin/env python3
"""Fetch the three published chat templates that tests/golden/data/templates has goldens for.

    python3 fetch_published_templates.py FOLDER
    PENSTOCK_PUBLISHED_TEMPLATES=FOLDER build/release/.../text_test

They are in the source archive of the PyPI package llama-cpp-python 0.3.36, which pip downloads (about 75 MB, once);
--archive FILE uses one that is here already. They are others' work and stay out of this repository.
"""
import argparse
import glob
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "llama-cpp-python==0.3.36"
INSIDE = "vendor/llama.cpp/models/templates/"
SHA256 = {
    "Qwen3.5-4B.jinja": "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715",
    "Qwen3-Coder.jinja": "d287fb2edf144207f868ae1b282755dc19db2a3f1c5b3a3d57e9e5abffa98392",
    "Qwen-Qwen3-0.6B.jinja": "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5",
}


def download(folder):
    # pip asks the package for its metadata (which needs its build tool, fetched by pip, too); nothing is compiled.
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python",
                    "--dest", folder, PACKAGE], check=False)
    found = glob.glob(os.path.join(folder, "llama_cpp_python-*.tar.gz"))
    if not found:
        sys.exit(f"pip could not download the source archive of {PACKAGE}; fetch it by other means and use --archive")
    return found[0]


def extract(archive, folder):
    os.makedirs(folder, exist_ok=True)
    missing = dict(SHA256)
    with tarfile.open(archive) as tar:
        for member in tar:
            name = os.path.basename(member.name)
            if INSIDE + name not in member.name or name not in missing:
                continue
            data = tar.extractfile(member).read()
            digest = hashlib.sha256(data).hexdigest()
            if digest != missing.pop(name):
                sys.exit(f"{name} in {archive} has sha256 {digest}, not the one its goldens were made with")
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data)
            if not missing:
                break
    if missing:
        sys.exit(f"{archive} does not have {', '.join(missing)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--archive", help="the package's .tar.gz, if it is here already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        extract(args.archive or download(scratch), args.folder)
    print(f"{len(SHA256)} templates in {args.folder}")


if __name__ == "__main__":
    main()
