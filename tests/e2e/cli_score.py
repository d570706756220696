#!/usr/bin/env python3
"""penstock score: logits against the reference, the same bits however they are computed, the file, the errors."""
import json
import math
import pathlib
import tempfile

from clitest import GOLDEN, MODEL, Suite, numbers, read_safetensors, write_lines


def golden_prompts(name):
    """(ids, golden logits tensor) of every prompt of a golden folder, shortest first."""
    tensors = read_safetensors(GOLDEN / name / "golden.safetensors")
    names = sorted((key for key in tensors if key.endswith(".input_ids")), key=lambda key: tensors[key][1])
    return [(numbers(tensors[key]), tensors[key.replace("input_ids", "logits")]) for key in names]


def scored(suite, name, prompts, *options):
    """[(found rows, golden rows)] of every prompt; of long prompts the goldens have the last rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(folder + "/in.jsonl", [{"token_ids": ids} for ids, _ in prompts])
        out = folder + "/out.safetensors"
        suite.ok("score", GOLDEN / name, "--input", path, "--output", out, *options)
        found = read_safetensors(out)
    suite.equal(set(found), {f"logits.{i}" for i in range(len(prompts))}, f"{name}: tensors of the file")
    pairs = []
    for i, (ids, wanted) in enumerate(prompts):
        dtype, shape, data = found[f"logits.{i}"]
        suite.equal((dtype, shape), ("F32", [len(ids), wanted[1][1]]), f"{name}: logits.{i}")
        pairs.append((numbers((dtype, shape, data[-len(wanted[2]):])), numbers(wanted)))
    return pairs


def divergences(found, wanted, vocab):
    """KL(golden || found) of every row, ascending."""
    def log_softmax(row):
        best = max(row)
        log_sum = math.log(sum(math.exp(x - best) for x in row)) + best
        return [x - log_sum for x in row]

    result = []
    for start in range(0, len(wanted), vocab):
        p, q = log_softmax(wanted[start:start + vocab]), log_softmax(found[start:start + vocab])
        result.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    return sorted(result)


def against_reference(suite):
    """The limits are those of tests/golden/data/README.md: for fp32 arithmetic, and for bf16 inputs, which linear layers
    have by default on CPUs with bf16 dot products."""
    for name in ("dense-r2", "moe-packed-r2", "next-r2"):
        prompts = golden_prompts(name)
        for found, wanted in scored(suite, name, prompts, "--linear-input", "fp32"):
            worst = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
            suite.check(worst <= 5e-4, f"{name} in fp32, {len(wanted)} logits: they differ by {worst}")
        pairs = scored(suite, name, prompts)
        vocab = prompts[0][1][1][1]
        kl = sorted(x for found, wanted in pairs for x in divergences(found, wanted, vocab))
        mean, middle, high = sum(kl) / len(kl), kl[len(kl) // 2], kl[len(kl) * 9 // 10]
        if name == "dense-r2":
            delta = [a - b for found, wanted in pairs for a, b in zip(found, wanted, strict=True)]
            rms = math.sqrt(sum(x * x for x in delta) / len(delta))
            worst = max(map(abs, delta))
            suite.check(rms <= 0.12 and worst <= 1.2 and mean <= 3e-3,
                        f"{name} by default: rms {rms}, max {worst}, mean KL {mean}")
        else:  # rounding may swap an expert somewhere
            suite.check(middle <= 1.5e-3 and high <= 4e-3 and mean <= 2e-2,
                        f"{name} by default: KL median {middle}, p90 {high}, mean {mean}")


def same_bits(suite):
    """Alone or together, in any chunks, by prefill or decode, with any number of threads: one file, bit for bit."""
    variants = [["--max-batch", 1], ["--max-batch", 3], ["--chunked-prefill-size", 64], ["--chunked-prefill-size", 1000],
                ["--threads", 1], ["--decode-from", 0], ["--decode-from", 63], ["--decode-from", 65],
                ["--decode-from", 100], ["--decode-from", 100000]]
    lines = [{"token_ids": [(7 * i + 13 * j) % 4096 for j in range(length)]}
             for i, length in enumerate([1, 2, 63, 64, 65, 130, 200, 17])]
    for model in (MODEL, GOLDEN / "tied-r3"):
        vocab = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        with tempfile.TemporaryDirectory() as folder:
            wrapped = [{"token_ids": [t % vocab for t in line["token_ids"]]} for line in lines]
            path = write_lines(folder + "/in.jsonl", wrapped)
            suite.ok("score", model, "--input", path, "--output", folder + "/base")
            base = read_safetensors(folder + "/base")
            for variant in variants:
                suite.ok("score", model, "--input", path, "--output", folder + "/other", *variant)
                other = read_safetensors(folder + "/other")
                different = sorted(name for name in base if base[name] != other.get(name))
                suite.equal(different, [], f"{model.name} {variant}: tensors that differ")


def likelihood(suite):
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(folder + "/in.jsonl", [{"prompt": "Ava has 3 apples."}, {"token_ids": [5]},
                                                  {"messages": [{"role": "user", "content": "Ava"}]}])
        lines = suite.json_lines("score", "--input", path, "--json", "--output", folder + "/out")
        suite.equal([line["index"] for line in lines], [0, 1, 2], "a line each, in order")
        suite.equal(lines[1], {"index": 1, "tokens": 1, "mean_nll": None}, "one token predicts nothing")
        tensors = read_safetensors(folder + "/out")
        flat, vocab = numbers(tensors["logits.0"]), tensors["logits.0"][1][1]
        ids = prompt_ids(suite, "Ava has 3 apples.", folder)
        suite.equal(lines[0]["tokens"], len(ids), "tokens")
        total = 0.0
        for position, token in enumerate(ids[1:]):
            row = flat[position * vocab:(position + 1) * vocab]
            best = max(row)
            total += math.log(sum(math.exp(x - best) for x in row)) + best - row[token]
        suite.check(abs(lines[0]["mean_nll"] - total / (len(ids) - 1)) < 1e-5,
                    f"mean_nll {lines[0]['mean_nll']} is not {total / (len(ids) - 1)}")
        without_file = suite.json_lines("score", "--input", path, "--json")
        suite.equal(without_file, lines, "the same without --output")
        text = suite.ok("score", "--input", path).stdout.splitlines()
        suite.check(len(text) == 3 and text[0].startswith(f"0: {len(ids)} tokens, mean negative log likelihood "),
                    f"text says {text}")


def prompt_ids(suite, text, folder):
    """The ids of a text, found by scoring all one-token answers' prompts: generate says how many there are; the
    tokenizer's own test knows which. Here: byte-level pieces joined by what the vocabulary holds."""
    vocabulary = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    ids = vocabulary["vocab"]
    ranks = {tuple(m.split(" ") if isinstance(m, str) else m): i for i, m in enumerate(vocabulary["merges"])}
    result = []
    for piece in ["Ava", "\u0120has", "\u0120", "3", "\u0120apples", "."]:
        parts = list(piece)
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get((parts[i], parts[i + 1]), 1 << 30))
            if (parts[best], parts[best + 1]) not in ranks:
                break
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        result += [ids[part] for part in parts]
    return result


def errors(suite):
    with tempfile.TemporaryDirectory() as folder:
        path = write_lines(folder + "/in.jsonl", [{"token_ids": [1, 2]}])
        suite.refused(["score", "--input", path, "--output", folder + "/no/such/folder/x"], 1, "/no/such/folder")
        suite.refused(["score", "--input", "-"], 2, ["standard input:1", "needs prompt"], stdin="{}\n")
        suite.refused(["score", "--input", "-"], 2, ["standard input:2", "vocabulary"],
                      stdin='{"token_ids": [1]}\n{"token_ids": [999999]}\n')
        suite.refused(["score", "--input", "-", "--context-length", 64], 2, "65 tokens do not fit",
                      stdin=json.dumps({"token_ids": [1] * 65}) + "\n")
        suite.check(not list(pathlib.Path(folder).glob("*.safetensors*")), "no file is left behind by a failure")


Suite().finish(against_reference, same_bits, likelihood, errors)
