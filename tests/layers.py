#!/usr/bin/env python3
"""The layer rule of docs/architecture.md: who may include whom.

    layers.py [ROOT]        checks src/ and include/ of the project at ROOT; exit status 1 on a violation
    layers.py --self-test   plants a violation of each rule in an empty tree and checks that each one is found
"""
import pathlib
import re
import sys
import tempfile

# What a folder of src/ may include from the other folders, besides itself: all it stands on.
MAY_INCLUDE = {
    "base": [],
    "checkpoint": ["base"],
    "text": ["base"],
    "grammar": ["base", "text"],
    "ops": ["base", "checkpoint"],
    "model": ["base", "checkpoint", "ops"],
    "cache": ["base", "checkpoint", "ops", "model"],
    "engine": ["base", "checkpoint", "text", "grammar", "ops", "model", "cache"],
    "server": ["base", "checkpoint", "text", "grammar", "engine"],
    "cli": ["base", "checkpoint", "text", "grammar", "ops", "model", "cache", "engine", "server"],
}

# Narrower than the table: (folder, prefix of a path it would be allowed, the exceptions, the reason).
NARROWER = [
    ("ops", "checkpoint/", ["checkpoint/checkpoint.h", "checkpoint/model_config.h"],
     "ops know a model's sizes and the weights they pack, not its files"),
    ("server", "checkpoint/", ["checkpoint/checkpoint.h", "checkpoint/model_config.h"],
     "the server knows a model's configuration, not its weights"),
    ("model", "ops/cpu/", [], "the model knows no device"),
    ("model", "ops/cuda/", [], "the model knows no device"),
    ("cache", "ops/cpu/", [], "kernels are reached through the operator table"),
    ("engine", "ops/cpu/", [], "kernels are reached through the operator table"),
    ("cache", "ops/cuda/", [], "kernels are reached through the operator table"),
    ("engine", "ops/cuda/", [], "kernels are reached through the operator table"),
]

# Public headers: which folders may see which. The rest of include/penstock/ belongs to the engine.
PUBLIC_FOR_ALL = ["penstock/status.h"]
ABOVE_THE_ENGINE = ["engine", "server", "cli"]

# Libraries kept to the folders that need them. Unit tests may use any.
LIBRARIES = [
    (r"nlohmann/|simdjson", ["checkpoint", "text", "grammar", "server", "cli"], "JSON"),
    (r"boost/", ["server"], "Boost"),
    (r"prometheus/", ["server"], "prometheus-cpp"),
    (r"CLI/", ["cli"], "CLI11"),
    (r"utf8proc|pcre2", ["text"], "Unicode and regular expressions"),
    (r"cuda|cublas|nccl", ["ops", "comm"], "CUDA"),
]
INTRINSICS = re.compile(r"\w*(immintrin|intrin)\.h")  # only in src/ops/cpu/, src/base/, and:
INTRINSICS_TOO = ["src/cli/machine_speed.cc"]  # `penstock doctor` measures the machine's peak

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def resolve(root, path, name):
    """The path below src/ or include/ that a quoted include means, or None where there is no such file."""
    if (path.parent / name).exists():
        full = (path.parent / name).resolve()
        for base in (root / "src", root / "include"):
            if full.is_relative_to(base.resolve()):
                return full.relative_to(base.resolve()).as_posix()
    for base in (root / "src", root / "include"):
        if (base / name).exists():
            return name
    return None


def check_quoted(folder, name):
    """Why a file of a folder must not include `name`, or None."""
    top = name.split("/")[0]
    if top == "penstock":
        if name in PUBLIC_FOR_ALL or folder in ABOVE_THE_ENGINE or folder == "penstock":
            return None
        return f"{folder} stands below the engine and knows no requests"
    if folder == "penstock":
        return "public headers include only public headers"
    if top == folder:
        return None
    if top not in MAY_INCLUDE.get(folder, []):
        return f"{folder} may include {', '.join(MAY_INCLUDE.get(folder, [])) or 'nothing but itself'}"
    for user, prefix, exceptions, reason in NARROWER:
        if folder == user and name.startswith(prefix) and name not in exceptions:
            return reason
    return None


def check_library(folder, path, name):
    for pattern, folders, what in LIBRARIES:
        if re.match(pattern, name) and folder not in folders and not path.name.endswith("_test.cc"):
            return f"{what} belongs to {', '.join(folders)}"
    if INTRINSICS.fullmatch(name) and folder != "base" and not path.as_posix().endswith(tuple(INTRINSICS_TOO)) and \
            "/src/ops/cpu/" not in f"/{path.as_posix()}":
        return "intrinsics belong to the kernels in ops/cpu/"
    return None


def violations(root):
    found = []
    files = [p for top in ("src", "include") for p in sorted((root / top).rglob("*"))
             if p.suffix in (".h", ".cc", ".cu", ".cuh")]
    for path in files:
        relative = path.relative_to(root)
        folder = relative.parts[1]
        if folder != "penstock" and folder not in MAY_INCLUDE:
            found.append(f"{relative}: tests/layers.py does not know the folder {folder}")
            continue
        text = path.read_text(encoding="utf-8")
        for match in INCLUDE.finditer(text):
            line = text.count("\n", 0, match.start(2)) + 1
            kind, name = match.groups()
            if kind == '"':
                target = resolve(root, path, name)
                reason = check_quoted(folder, target) if target else "no such file in src/ or include/"
            else:
                reason = check_library(folder, path, name)
            if reason:
                found.append(f"{relative}:{line}: includes {name}: {reason}")
    return found, len(files)


# (file, its text, whether that is a violation); the files above a planted one exist.
PLANTED = [
    ("src/base/a.cc", '#include "text/tokenizer.h"', True),
    ("src/checkpoint/a.cc", '#include "text/tokenizer.h"', True),
    ("src/text/a.cc", '#include "checkpoint/model_config.h"', True),
    ("src/text/a.cc", '#include "penstock/request.h"', True),
    ("src/ops/a.cc", '#include "checkpoint/safetensors.h"', True),
    ("src/ops/a.cc", '#include "checkpoint/model_config.h"', False),
    ("src/ops/a.cc", '#include "penstock/request.h"', True),
    ("src/ops/a.cc", '#include "penstock/status.h"', False),
    ("src/ops/a.h", '  #  include "model/forward.h"', True),
    ("src/model/a.cc", '#include "cache/pool.h"', True),
    ("src/model/a.cc", '#include "ops/cpu/avx2/linear.h"', True),
    ("src/model/a.cc", '#include "ops/policy.h"', False),
    ("src/cache/a.cc", '#include "engine/queue.h"', True),
    ("src/engine/a.cc", '#include "server/server.h"', True),
    ("src/engine/a.cc", "#include <nlohmann/json.hpp>", True),
    ("src/engine/a.cc", "#include <simdjson.h>", True),
    ("src/engine/a_test.cc", "#include <nlohmann/json.hpp>", False),
    ("src/engine/a.cc", '#include "ops/cpu/avx2/linear.h"', True),
    ("src/engine/a.cc", '#include "text/tokenizer.h"', False),
    ("src/server/a.cc", '#include "ops/cpu/avx2/linear.h"', True),
    ("src/server/a.cc", '#include "ops/policy.h"', True),
    ("src/server/a.cc", '#include "model/forward.h"', True),
    ("src/server/a.cc", '#include "checkpoint/safetensors.h"', True),
    ("src/server/a.cc", '#include "cli/serve.h"', True),
    ("src/server/a.cc", "#include <cuda_runtime.h>", True),
    ("src/server/a.cc", "#include <boost/beast.hpp>", False),
    ("src/server/http/a.cc", '#include "../../model/forward.h"', True),
    ("src/server/a.cc", "#include <immintrin.h>", True),
    ("src/ops/cpu/avx2/a.cc", "#include <immintrin.h>", False),
    ("src/cli/a.cc", '#include "server/server.h"', False),
    ("src/cli/a.cc", '#include "server/no_such_file.h"', True),
    ("src/newcomer/a.cc", "", True),
    ("include/penstock/a.h", '#include "text/tokenizer.h"', True),
    ("include/penstock/a.h", '#include "penstock/status.h"', False),
]
EXISTING = ["src/text/tokenizer.h", "src/checkpoint/model_config.h", "src/checkpoint/safetensors.h",
            "src/ops/policy.h", "src/ops/cpu/avx2/linear.h", "src/model/forward.h", "src/cache/pool.h",
            "src/engine/queue.h", "src/server/server.h", "src/cli/serve.h", "include/penstock/status.h",
            "include/penstock/request.h"]


def self_test():
    wrong = []
    for file, text, bad in PLANTED:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, content in [(e, "") for e in EXISTING] + [(file, text + "\n")]:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
            if (len(violations(root)[0]) == 1) != bad:
                wrong.append(f"{file}: {text}: should {'' if bad else 'not '}be a violation")
    return wrong, len(PLANTED)


def main():
    argument = sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(__file__).resolve().parent.parent)
    found, count = self_test() if argument == "--self-test" else violations(pathlib.Path(argument))
    print("\n".join(found + [f"{count} checked, {len(found)} wrong"]))
    return 1 if found or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
