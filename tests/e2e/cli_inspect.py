#!/usr/bin/env python3
"""penstock inspect, doctor and bench: what they say about the bundled model, golden models and this machine."""
import json
import time

from clitest import GOLDEN, MODEL, PATIENCE, Suite


def inspect_bundled(suite):
    start = time.monotonic()
    found = json.loads(suite.ok("inspect", "--json").stdout)
    suite.check(time.monotonic() - start < 1 * PATIENCE, "inspect does not load the weights")
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    suite.equal(found["model"], str(MODEL), "folder")
    suite.equal(found["config"]["family"], "qwen3_5", "family")
    suite.equal(found["config"]["layers"], config["num_hidden_layers"], "layers")
    suite.equal(found["config"]["gdn_layers"], config["layer_types"].count("linear_attention"), "gdn_layers")
    suite.equal(found["config"]["tied_embeddings"], True, "tied")
    suite.equal(found["config"]["eos_token_ids"], [2, 0], "eos_token_ids")
    suite.check(10_000_000 < found["parameters"] < 30_000_000, f"parameters {found['parameters']}")
    suite.check(0 < found["mtp_parameters"] < found["parameters"], f"mtp_parameters {found['mtp_parameters']}")
    # 2 attention layers, 1 kv head of 256, keys and values, fp32.
    suite.equal(found["request"]["kv_bytes_per_token"], 2 * 1 * 256 * 2 * 4, "kv_bytes_per_token")
    # 6 GDN layers of 4 heads of 128 × 128 fp32, and 3 convolution inputs.
    channels = 2 * 2 * 128 + 4 * 128
    suite.equal(found["request"]["state_bytes"], 6 * (4 * 128 * 128 * 4 + 3 * channels * 4), "state_bytes")
    suite.check(found["memory_plan"]["max_running_requests"] >= 1, "memory plan")
    phases = {entry["phase"] for entry in found["kernels"]}
    suite.check({"gdn prefill", "gdn decode", "attention"} <= phases, f"kernels {phases}")
    suite.check(all(entry["reason"] for entry in found["kernels"]), "every kernel has its reason")
    suite.check("tensors" not in found, "tensors only when asked for")


def options(suite):
    tensors = json.loads(suite.ok("inspect", "--json", "--tensors").stdout)["tensors"]
    index = json.loads((MODEL / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    suite.equal({t["name"]: t["file"] for t in tensors}, index, "tensors and their files")
    names = suite.ok("inspect", "--tensors").stdout
    suite.check(all(name in names for name in index), "--tensors lists every tensor")
    kernels = suite.ok("inspect", "--kernels", "--linear-attn-backend", "recurrent").stdout
    suite.check("recurrent" in kernels and "--linear-attn-backend" in kernels, f"--kernels says {kernels!r}")
    reference = suite.ok("inspect", "--kernels", "--cpu-isa", "reference").stdout
    suite.check("reference" in reference, f"--cpu-isa reference says {reference!r}")
    memory = suite.ok("inspect", "--memory", "--cache-memory", "64M").stdout
    suite.check("64.0 MiB" in memory, f"--memory says {memory!r}")
    suite.check("slabs" in memory and "states" in memory, f"--memory speaks of the arena: {memory!r}")
    text = suite.ok("inspect").stdout
    for words in ("model ", "family ", "layers ", "request ", "kernels ", "KV pages"):
        suite.check(words in text, f"inspect does not say {words!r}")
    small = json.loads(suite.ok("inspect", "--json", "--cache-memory", "1K").stdout)["memory_plan"]
    suite.check("--cache-memory" in small["error"], f"a plan that cannot be: {small}")


def memory_plan(suite):
    """KV pages and states share slabs (contract S6); the caps of the command line are in the plan."""
    def plan(*arguments):
        return json.loads(suite.ok("inspect", "--json", "--cache-memory", "64M", *arguments).stdout)["memory_plan"]

    free = plan()
    suite.equal(free["slabs"] * free["slab_bytes"], free["arena_bytes"], "slabs fill the arena")
    suite.check(free["arena_bytes"] + free["window_bytes"] <= free["memory_bytes"] == 64 << 20, f"within 64M: {free}")
    for kind in ("kv_pages", "states"):
        most = free["slabs"] * free[f"{kind}_per_slab"]
        suite.check(most * 0.75 < free[kind] <= most, f"{kind}: all slabs, but for what one request needs of the other")
    suite.equal(free["windows"], free["max_running_requests"], "a window for each running request")
    suite.equal(plan("--max-mamba-cache-size", "8")["states"], 8, "--max-mamba-cache-size")
    capped = plan("--mamba-full-memory-ratio", "1")
    for kind in ("kv_pages", "states"):
        half = free["slabs"] * free[f"{kind}_per_slab"] / 2
        suite.check(half * 0.9 < capped[kind] <= half * 1.1, f"--mamba-full-memory-ratio 1: {kind} {capped[kind]}, not {half}")
    off = plan("--disable-radix-cache")
    suite.check(off["states"] <= free["states"] and off["kv_pages"] <= free["kv_pages"], f"without a prefix cache: {off}")
    refused = plan("--max-mamba-cache-size", "2", "--max-running-requests", "5")
    suite.check("--max-mamba-cache-size" in refused.get("error", ""), f"too few states: {refused}")


def families(suite):
    for name, family in {"dense-r2": "qwen3_5", "nested-r1": "qwen3_5", "moe-packed-r2": "qwen3_5_moe",
                         "moe-each-r2": "qwen3_5_moe", "next-r2": "qwen3_next", "tied-r3": "qwen3_5"}.items():
        found = json.loads(suite.ok("inspect", GOLDEN / name, "--json").stdout)
        suite.equal(found["config"]["family"], family, f"family of {name}")
        if name in ("nested-r1", "dense-r2"):
            suite.equal(found["skipped_tensors"] > 0, name == "nested-r1", f"vision tensors of {name}")
        suite.equal("moe" in found["config"], "moe" in family or name == "next-r2", f"experts of {name}")
    for name in ("dense-fp8", "dense-nvfp4-modelopt"):
        suite.refused(["inspect", GOLDEN / name], 1, "quant")
    dummy = json.loads(suite.ok("inspect", GOLDEN / "dense-r2", "--load-format", "dummy", "--json").stdout)
    real = json.loads(suite.ok("inspect", GOLDEN / "dense-r2", "--json").stdout)
    suite.equal(dummy["config"]["layers"], real["config"]["layers"], "layers of dummy weights")


def doctor(suite):
    found = json.loads(suite.ok("doctor", "--json").stdout)
    suite.check(found["can_run"] is True, "can_run")
    suite.check(found["cpu"]["cores"] >= 1 and found["cpu"]["name"], f"cpu {found['cpu']}")
    suite.equal(found["bundled_model"], str(MODEL), "bundled model")
    suite.check(found["memory"]["total_bytes"] >= found["memory"]["available_bytes"] > 0, f"memory {found['memory']}")
    bandwidth = found["measured"]["read_bytes_per_second"]
    suite.check(bandwidth is None or 1e8 < bandwidth < 1e13, f"bandwidth {bandwidth}")
    suite.check(1e8 < found["measured"]["fp32_fma_flops"] < 1e15, f"FMA {found['measured']}")
    suite.equal(found["nvidia"]["used"], False, "GPUs are for later")
    text = suite.ok("doctor", "--quick").stdout
    for words in ("cpu ", "memory ", "gpu ", "limits ", "kernels ", "Penstock can run here"):
        suite.check(words in text, f"doctor does not say {words!r}")
    missing = suite.ok("doctor", "--quick", env={"PENSTOCK_DEFAULT_MODEL": "/nowhere"}).stdout
    suite.check("/nowhere" in missing, "doctor says that the bundled model is missing")


def bench(suite):
    arguments = ["bench", "offline", "--prompt-tokens", 70, "--output-tokens", 6, "--repeat", 2]
    found = json.loads(suite.ok(*arguments, "--batch", 3, "--json").stdout)
    suite.equal((found["prompt_tokens"], found["output_tokens"], found["batch"]), (70, 6, 3), "what was asked for")
    suite.equal(len(found["runs"]), 2, "runs")
    for key in ("prefill_tokens_per_second", "decode_tokens_per_second", "decode_step_ms", "weight_bytes_per_second"):
        suite.check(found[key] > 0, f"{key} is {found[key]}")
    step = found["decode_step_ms"] / 1000
    suite.check(abs(found["weight_bytes_per_second"] * step / found["weight_bytes_per_step"] - 1) < 1e-6, "bytes a second")
    # The bundled weights fit in the caches of many CPUs: then there is no share of the memory's speed to show.
    suite.equal(found["read_share"] is not None, found["weights_beyond_cache"] and bool(
        found["measured_read_bytes_per_second"]), "read_share only of weights that come from memory")
    suite.equal(found["weights_beyond_cache"], found["weight_bytes_per_step"] >= 4 * found["last_level_cache_bytes"],
                "weights_beyond_cache")
    text = suite.ok(*arguments).stdout
    suite.check("prefill " in text and "decode " in text and "tok/s" in text, f"bench says {text!r}")
    dummy = suite.ok("bench", "offline", GOLDEN / "moe-packed-r2", "--load-format", "dummy", "--prompt-tokens", 8,
                     "--output-tokens", 1, "--repeat", 1, "--json")
    suite.equal(json.loads(dummy.stdout)["decode_tokens_per_second"], None, "one token has no decode step")


Suite().finish(inspect_bundled, options, memory_plan, families, doctor, bench)
