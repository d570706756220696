"""What the cli_*.py tests share: running the program, counting checks, reading safetensors with the standard library.

A test is a script: `python3 tests/e2e/cli_x.py --binary PATH` ends with status 0 when every check held.
"""
import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import traceback

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = SOURCE / "models" / "gsm-hybrid"
GOLDEN = SOURCE / "tests" / "golden" / "data"
# Sanitized builds are up to 20 times slower.
PATIENCE = 10 if os.environ.get("PENSTOCK_SANITIZED") else 1


def clean_environment(extra=None):
    """The caller's environment without options that happen to be in it; the bundled model is found anywhere."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environment["PENSTOCK_DEFAULT_MODEL"] = str(MODEL)
    environment.update(extra or {})
    return environment


class Suite:
    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("--binary", required=True)
        self.binary = str(pathlib.Path(parser.parse_args().binary).resolve())
        self.passed = 0
        self.failures = []

    def run(self, *arguments, stdin="", env=None, timeout=60, cwd=None):
        """The finished process, with stdout and stderr as text. Ended by a signal is never right."""
        result = subprocess.run([self.binary, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                                env=clean_environment(env), timeout=timeout * PATIENCE, cwd=cwd)
        if result.returncode < 0:
            self.check(False, f"{' '.join(map(str, arguments))} was ended by signal {-result.returncode}: {result.stderr}")
        return result

    def popen(self, *arguments, env=None, **options):
        return subprocess.Popen([self.binary, *map(str, arguments)], env=clean_environment(env), text=True, **options)

    def ok(self, *arguments, **options):
        result = self.run(*arguments, **options)
        self.check(result.returncode == 0,
                   f"penstock {' '.join(map(str, arguments))}: status {result.returncode}, {result.stderr[-500:]!r}")
        return result

    def json_lines(self, *arguments, **options):
        return [json.loads(line) for line in self.ok(*arguments, **options).stdout.splitlines()]

    def refused(self, arguments, status, words, **options):
        """The program says one line that has all of `words`, and ends with `status`."""
        result = self.run(*arguments, **options)
        name = f"penstock {' '.join(map(str, arguments))}"
        self.check(result.returncode == status, f"{name}: status {result.returncode}, not {status}: {result.stderr!r}")
        errors = [line for line in result.stderr.splitlines() if line.startswith("penstock: error: ")]
        self.check(len(errors) >= 1, f"{name}: no line with an error: {result.stderr!r}")
        for word in [words] if isinstance(words, str) else words:
            self.check(word in "\n".join(errors), f"{name}: {word!r} is not in {errors}")

    def check(self, condition, message):
        if condition:
            self.passed += 1
            return True
        self.failures.append(message)
        print(f"FAILED: {message}", flush=True)
        return False

    def equal(self, found, wanted, what):
        return self.check(found == wanted, f"{what}: {found!r} is not {wanted!r}")

    def finish(self, *tests):
        for test in tests:
            try:
                test(self)
            except Exception:  # a test that breaks must not hide what the others find
                self.check(False, f"{test.__name__}: {traceback.format_exc()}")
        print(f"{self.passed} checks passed, {len(self.failures)} failed")
        sys.exit(1 if self.failures or self.passed == 0 else 0)


def read_safetensors(path):
    """name -> (dtype, shape, raw bytes)"""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    body = memoryview(data)[8 + length:]
    return {name: (entry["dtype"], entry["shape"], bytes(body[slice(*entry["data_offsets"])]))
            for name, entry in header.items() if name != "__metadata__"}


def numbers(tensor):
    """The values of an I32 or F32 tensor of read_safetensors, flat."""
    dtype, _, data = tensor
    return list(struct.unpack(f"<{len(data) // 4}{'i' if dtype == 'I32' else 'f'}", data))


def write_lines(path, objects):
    pathlib.Path(path).write_text("".join(json.dumps(o) + "\n" for o in objects), encoding="utf-8")
    return path
