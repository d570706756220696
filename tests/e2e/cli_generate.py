#!/usr/bin/env python3
"""penstock generate on the bundled model: answers, order, options of a line, errors, what does not depend on the batch."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time

from clitest import GOLDEN, PATIENCE, Suite, numbers, read_safetensors, write_lines

QUESTION = "Ava has 12 apples. Ben gives Ava 7 more apples. How many apples does Ava have now?"
PROMPTS = json.loads((GOLDEN / "gsm-hybrid" / "prompts.json").read_text(encoding="utf-8"))["prompts"]
TENSORS = read_safetensors(GOLDEN / "gsm-hybrid" / "golden.safetensors")


def plain_text(suite):
    text = suite.ok("generate", "--chat", "--prompt", QUESTION).stdout
    suite.check("#### 19" in text, f"the answer to {QUESTION!r} is {text!r}")
    suite.check(text.endswith("\n") and not text.endswith("\n\n"), "one newline at the end")
    suite.check("<|im_end|>" not in text, "special tokens are left out")
    special = suite.ok("generate", "--chat", "--prompt", QUESTION, "--special-tokens").stdout
    suite.check(special.startswith(text.rstrip("\n")), "--special-tokens changes nothing else")
    positional = suite.ok("generate", str(GOLDEN.parent.parent.parent / "models" / "gsm-hybrid"), "--chat", "--prompt",
                          QUESTION)
    suite.equal(positional.stdout, text, "the bundled model named by its folder")


def goldens(suite):
    """Every golden prompt at once, as token ids: in fp32 the greedy continuations of the reference, by default the same
    until two logits come closer than bf16 inputs can tell apart (tests/golden/data/README.md)."""
    count = len(PROMPTS)
    with tempfile.TemporaryDirectory() as folder:
        lines = [{"token_ids": numbers(TENSORS[f"g{i}.input_ids"]), "max_tokens": 200} for i in range(count)]
        path = write_lines(folder + "/in.jsonl", lines)
        for options, close in ((["--linear-input", "fp32"], 0), ([], 0.25)):
            answers = suite.json_lines("generate", "--input", path, *options, timeout=300)
            suite.equal([a["index"] for a in answers], list(range(count)), "answers in the order of the lines")
            for i, answer in enumerate(answers):
                wanted = numbers(TENSORS[f"g{i}.f32.greedy"])
                gaps = numbers(TENSORS[f"g{i}.f32.greedy_gap"])
                sure = next((k for k, gap in enumerate(gaps) if gap < close), len(wanted))
                found = answer["token_ids"]
                if sure == len(wanted):  # a final end token may be in token_ids or not
                    suite.check(found in (wanted, wanted[:-1]), f"golden prompt {i} {options}: {found} is not {wanted}")
                else:
                    suite.equal(found[:sure], wanted[:sure], f"golden prompt {i} {options}, before a close call")
                suite.equal(answer["prompt_tokens"], len(lines[i]["token_ids"]), f"prompt_tokens of {i}")
        # Text in, text out. The goldens' text has its special tokens in it.
        texts = [{"prompt": p["text"], "max_tokens": 200} for p in PROMPTS[:6]]
        again = suite.json_lines("generate", "--input", write_lines(folder + "/text.jsonl", texts), timeout=300)
        for i, answer in enumerate(again):
            suite.equal(answer["text"], PROMPTS[i]["f32"].replace("<|im_end|>", ""), f"text of golden prompt {i}")
            suite.equal(answer["finish_reason"], "stop", f"finish_reason of golden prompt {i}")


def batch_does_not_matter(suite):
    with tempfile.TemporaryDirectory() as folder:
        lines = [{"prompt": f"{QUESTION} {i}", "temperature": 0.8, "seed": i, "max_tokens": 24, "logprobs": 2}
                 for i in range(12)]
        path = write_lines(folder + "/in.jsonl", lines)
        together = suite.json_lines("generate", "--input", path)
        alone = suite.json_lines("generate", "--input", path, "--max-running-requests", 1, "--threads", 1)
        suite.equal(together, alone, "12 lines at once and one by one, logprobs included")
        reordered = suite.json_lines("generate", "--input", "-", "--chunked-prefill-size", 64,
                                     stdin="".join(json.dumps(line) + "\n" for line in reversed(lines)))
        for answer in reordered:
            answer["index"] = len(lines) - 1 - answer["index"]
        suite.equal(sorted(reordered, key=lambda a: a["index"]), together, "another order, from standard input")


def options_of_lines(suite):
    with tempfile.TemporaryDirectory() as folder:
        user = [{"role": "user", "content": QUESTION}]
        lines = [
            {"messages": user},
            {"messages": user, "max_tokens": 3},
            {"messages": user, "stop": "12"},
            {"messages": user, "ignore_eos": True, "max_tokens": 120},
            {"messages": [{"role": "system", "content": "Be brief."}, *user], "id": "ignored"},
            {"messages": user, "logprobs": 3, "max_tokens": 4},
            {"messages": user, "stop_token_ids": [2], "temperature": 0},
        ]
        result = suite.ok("generate", "--input", write_lines(folder + "/in.jsonl", lines))
        suite.check("not used: id" in result.stderr, "fields that are not used are named")
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        suite.equal(answers[0]["finish_reason"], "stop", "ends by itself")
        suite.equal((answers[1]["finish_reason"], len(answers[1]["token_ids"])), ("length", 3), "max_tokens")
        suite.equal((answers[2]["finish_reason"], answers[2].get("stop_reason")), ("stop", "12"), "stop string")
        suite.check("12" not in answers[2]["text"] and answers[0]["text"].startswith(answers[2]["text"]), "text before it")
        suite.equal((answers[3]["finish_reason"], len(answers[3]["token_ids"])), ("length", 120), "ignore_eos")
        suite.check("logprobs" not in answers[0], "no logprobs unless asked for")
        for entry, token in zip(answers[5]["logprobs"], answers[5]["token_ids"], strict=True):
            suite.equal(entry["token_id"], token, "logprobs name the token")
            suite.equal(len(entry["top"]), 3, "logprobs have the best three")
            suite.check(entry["top"][0]["token_id"] == token and entry["top"][0]["logprob"] == entry["logprob"] <= 0,
                        f"greedy takes the best: {entry}")
            suite.check(entry["top"][0]["logprob"] >= entry["top"][1]["logprob"] >= entry["top"][2]["logprob"], "in order")


def choices_and_seeds(suite):
    arguments = ["generate", "--prompt", "Once", "--temperature", 2, "--max-tokens", 16, "--n", 3]
    first = suite.json_lines(*arguments, "--seed", 5)
    suite.equal([a["choice"] for a in first], [0, 1, 2], "--n gives choices")
    suite.check(len({a["text"] for a in first}) == 3, "choices differ")
    suite.equal(suite.json_lines(*arguments, "--seed", 5), first, "the same seed gives the same answers")
    other = [a["text"] for a in suite.json_lines(*arguments, "--seed", 50)]
    suite.check(other != [a["text"] for a in first], "another seed gives others")


def statistics(suite):
    result = suite.ok("generate", "--prompt", "Once", "--max-tokens", 8, "--ignore-eos", "--stats")
    suite.check("prefill: " in result.stderr and "decode: 8 tokens" in result.stderr, f"--stats says {result.stderr!r}")
    many = suite.ok("generate", "--input", "-", "--stats", stdin='{"prompt": "a"}\n{"prompt": "b"}\n')
    suite.check("2 answers in " in many.stderr, f"--stats says {many.stderr!r}")


def dummy_weights(suite):
    model = GOLDEN / "dense-r2"
    common = ["generate", model, "--load-format", "dummy", "--max-tokens", 8, "--ignore-eos", "--temperature", 0,
              "--input", "-"]
    line = '{"token_ids": [1, 2, 3]}\n'
    first = suite.json_lines(*common, "--seed", 3, stdin=line)
    suite.equal(first[0]["text"], None, "no text without a tokenizer")
    suite.equal(len(first[0]["token_ids"]), 8, "tokens without a tokenizer")
    suite.equal(suite.json_lines(*common, "--random-seed", 3, stdin=line), first, "the same random weights")
    suite.check(suite.json_lines(*common, "--random-seed", 4, stdin=line) != first, "other random weights")
    suite.refused(["generate", model, "--prompt", "a"], 1, "tokenizer.json")


def wrong_lines(suite):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/in.jsonl"
        pathlib.Path(path).write_text('{"prompt": "a"}\n{"prompt": 3}\nnonsense\n\n{"token_ids": [4096]}\n')
        result = suite.run("generate", "--input", path)
        suite.equal(result.returncode, 2, "wrong lines")
        suite.equal(result.stdout, "", "nothing runs when a line is wrong")
        for words in (":2: prompt must be a string", ":3: not JSON", ":4: not JSON"):
            suite.check(path + words in result.stderr, f"{path + words!r} is not in {result.stderr!r}")
        suite.refused(["generate", "--input", "-"], 2, ["standard input:1", "4096", "vocabulary"],
                      stdin='{"token_ids": [4096]}\n')
        suite.refused(["generate", "--input", "-"], 2, ["standard input:2", "context of 256 tokens"], env={
            "PENSTOCK_CONTEXT_LENGTH": "256"}, stdin='{"prompt": "a"}\n{"prompt": "a", "max_tokens": 300}\n')
        suite.refused(["generate", "--input", "-"], 2, "standard input: has no lines")
        suite.refused(["generate", "--input", "-"], 2, "empty", stdin='{"prompt": ""}\n')
        bad = '{"messages": [{"role": "user"}]}\n'
        suite.refused(["generate", "--input", "-"], 2, "standard input:1", stdin=bad)


def interrupted(suite):
    """Ctrl-C: what is there is printed, the status says so, nothing hangs."""
    process = suite.popen("generate", "--prompt", "Once", "--ignore-eos", "--max-tokens", 30000, "--temperature", 1,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(1)  # an answer is under way
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    process.communicate(timeout=10 * PATIENCE)
    suite.equal(process.returncode, 130, "status after Ctrl-C")
    suite.check(time.monotonic() - start < 3 * PATIENCE, "Ctrl-C takes effect at once")


def full_disk(suite):
    if not pathlib.Path("/dev/full").exists():
        return
    with open("/dev/full", "w") as full:
        process = suite.popen("generate", "--prompt", "a", "--max-tokens", 2, stdout=full, stderr=subprocess.PIPE)
        error = process.communicate(timeout=60 * PATIENCE)[1]
    suite.check(process.returncode == 1 and "cannot write to standard output" in error, f"a full disk: {error!r}")


Suite().finish(plain_text, goldens, batch_does_not_matter, options_of_lines, choices_and_seeds, statistics, dummy_weights,
               wrong_lines, interrupted, full_disk)
