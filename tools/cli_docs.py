#!/usr/bin/env python3
"""Makes docs/cli.md of what `penstock --help` says, or checks that it is up to date.

    tools/cli_docs.py --binary build/release/penstock            # writes docs/cli.md
    tools/cli_docs.py --binary build/release/penstock --check    # status 1 when docs/cli.md says something else
"""
import argparse
import difflib
import os
import pathlib
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COMMANDS = ["serve", "chat", "generate", "score", "inspect", "doctor", "bench", "bench offline",
            "bench kernels"]

HEAD = """# The command line

Made by `tools/cli_docs.py` from `penstock --help`; a test compares the two.

Exit status: 0 when it worked, 1 when something could not be done, 2 when the command line or an input file is wrong,
128 + N when signal N ended it. Answers go to standard output, everything else to standard error; an error is one line
that begins with `penstock: error: `.
"""


def help_of(binary, command):
    # Options that happen to be in the caller's environment must not matter.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    result = subprocess.run([binary, *command.split(), "--help"], capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"penstock {command} --help ended with status {result.returncode}: {result.stderr}")
    return result.stdout


def page(binary):
    parts = [HEAD, "```\n" + help_of(binary, "") + "```\n"]
    for command in COMMANDS:
        parts.append(f"## penstock {command}\n\n```\n{help_of(binary, command)}```\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    wanted = page(arguments.binary)
    if not arguments.check:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if found == wanted:
        return 0
    sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), "docs/cli.md", "--help"))
    print("docs/cli.md is out of date: run tools/cli_docs.py --binary " + arguments.binary)
    return 1


if __name__ == "__main__":
    sys.exit(main())
