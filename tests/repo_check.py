#!/usr/bin/env python3
"""What must hold of the repository as a whole, beside what compilers see.

    repo_check.py [ROOT]
"""
import pathlib
import re
import subprocess
import sys

REQUIRED = """README.md LICENSE CONTRIBUTING.md CHANGELOG.md dev .ci/run .clang-format .clang-tidy CMakePresets.json
docs/README.md docs/architecture.md docs/engine-contract.md docs/numerics.md docs/style.md docs/testing.md
models/gsm-hybrid/README.md models/gsm-hybrid/config.json""".split()

# The folders of one developer's machine, which mean nothing to anyone else. Put together, so as not to find itself.
MACHINE_PATH = re.compile("(?<![\\w.])/(?:" + "|".join(["wo" + "rk/", "ro" + "ot/", "home/" + "[a-z]", "Us" + "ers/"]) + ")")
# The design pages once stood in a larger tree; nothing may point outside the project.
OUTSIDE = re.compile(r"\.\./(?:shared|spec|golden|design|gsm-hybrid|gsm8k|peers)\b")
# Reference data: third parties' strings on purpose.
DATA = ("tests/golden/data/", "models/", "tests/fuzz/corpus/", "data/")

SOURCE = (".h", ".cc", ".cu", ".cuh")
MAX_LINES = 700          # docs/style.md: up to about 600
MAX_KERNEL_LINES = 1000  # below src/ops/cpu and src/ops/cuda

SKIPPED_FOLDERS = {".git", ".venv", "build", "__pycache__"}


def files_of(root):
    """Tracked and new files; where there is no git, all but what a build makes."""
    try:
        top = subprocess.run(["git", "-C", str(root), "rev-parse", "--show-toplevel"], capture_output=True, check=True)
        if pathlib.Path(top.stdout.decode().strip()).resolve() != root.resolve():
            raise FileNotFoundError("inside some other repository")
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"],
                                capture_output=True, check=True)
        paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [p for p in root.rglob("*") if not SKIPPED_FOLDERS & set(p.relative_to(root).parts)]
    return sorted(p for p in paths if p.is_file())


def text_of(path):
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def check_links(root, path, text, wrong):
    """Relative links of a Markdown page lead to files of the project."""
    for match in re.finditer(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
        target = match.group(1)
        if "://" in target or target.startswith("mailto:"):
            continue
        if not (path.parent / target).exists():
            wrong.append(f"{path.relative_to(root)}: link to {target}, which does not exist")


def check_dev_commands(root, wrong):
    """Every `./dev x` that the documents name is a command of ./dev."""
    known = set(re.findall(r"^  ([a-z][a-z-]*)\b", (root / "dev").read_text(encoding="utf-8"), re.MULTILINE))
    for page in [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]:
        for command in re.findall(r"`(?:\$ )?\./dev ([a-z][a-z-]*)", page.read_text(encoding="utf-8")):
            if command not in known:
                wrong.append(f"{page.relative_to(root)}: ./dev {command} is no command of ./dev")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    wrong = [f"{name} is missing" for name in REQUIRED if not (root / name).exists()]
    files = files_of(root)
    for path in files:
        name = path.relative_to(root).as_posix()
        text = text_of(path)
        if text is None or name.startswith(DATA):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                wrong.append(f"{name}:{number}: names a folder of one machine: {line.strip()[:100]}")
            if OUTSIDE.search(line) and path.suffix == ".md":
                wrong.append(f"{name}:{number}: points outside the project: {line.strip()[:100]}")
        lines = text.count("\n")
        limit = MAX_KERNEL_LINES if name.startswith(("src/ops/cpu/", "src/ops/cuda/")) else MAX_LINES
        if path.suffix in SOURCE and lines > limit:
            wrong.append(f"{name}: {lines} lines, more than {limit}: split it")
        if path.suffix == ".md":
            check_links(root, path, text, wrong)
    if not wrong:
        check_dev_commands(root, wrong)
    print("\n".join(wrong + [f"{len(files)} files checked, {len(wrong)} findings"]))
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
