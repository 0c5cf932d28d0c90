"""Checks of docs/gpu-checks.md that need one GPU, the most important first, in limited time.

    python benchmarks/gpu_checks.py --out results                          # at most 13 minutes
    python benchmarks/gpu_checks.py --out results --device cpu --tiny      # a rehearsal on a CPU
    python benchmarks/gpu_checks.py --out results --only mfu_gpt2 mfu_gpt2_compiled

Each check prints one line (ok, FAILED, cut or skipped) and is written to results.json at once, so
its result survives if the script is killed. A check that reaches its time limit is cut. Runs and
checkpoints are in a temporary folder; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import work

SAMPLES = work.ROOT / "sample_data"
SHORTEST = 15.0
"""Seconds that must be left for a check to begin."""
ROUNDING = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 1e-2}
"""Largest relative difference of two losses of the same steps."""
_BIG_SCALE = (
    "import functools, sys, torch; "
    "torch.amp.GradScaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**60); "
    "import convo_cli.__main__ as m; m.main()"
)
"""`convo` whose first step in fp16 overflows for certain."""


class CheckError(Exception):
    """A result that is not the expected one."""


@dataclass
class Check:
    """The result of a check."""

    name: str
    result: str = "skipped"
    seconds: float = 0.0
    text: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """Folder, device, sizes and losses that the checks share, and when a check is cut."""

    folder: Path
    device: str
    is_tiny: bool
    deadline: float = 0.0
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Losses of runs that later checks compare with."""

    def run(
        self,
        *command: object,
        stop_after: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> tuple[int, str, str]:
        """Run a command to its end, or until it has logged three steps in ``stop_after``."""
        process = subprocess.Popen(
            [str(word) for word in command], cwd=self.folder, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(work.ROOT), "HF_HUB_OFFLINE": "1", **(env or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            while stop_after is not None and process.poll() is None:
                if stop_after.exists() and stop_after.read_text().count('"event": "step"') >= 3:
                    process.send_signal(signal.SIGTERM)
                    break
                if time.monotonic() > self.deadline:
                    raise subprocess.TimeoutExpired("the first steps", 0)
                time.sleep(0.02)
            out, err = process.communicate(stdin, max(0.1, self.deadline - time.monotonic()))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return process.returncode, out, err

    def convo(self, *words: object, code: int = 0, **options: Any) -> str:
        """Run `convo`; CheckError with the end of its messages if it exits with another code."""
        found, out, err = self.run(sys.executable, "-m", "convo_cli", *words, **options)
        if found != code:
            raise CheckError(f"convo {words[0]} exited with {found}: {err.strip()[-400:]}")
        return out + err

    def train(self, name: str, *settings: str, code: int = 0, **options: Any) -> Path:
        """Train in a new run of the shared config, and return its directory."""
        words = [word for one in (f"name={name}", *settings) for word in ("--set", one)]
        self.convo("train", "config.yaml", "--quiet", *words, code=code, **options)
        return self.folder / "runs" / name

    def losses_of(self, name: str, *settings: str) -> list[float]:
        """Return the losses of 20 steps with these settings; the run is trained once."""
        if name not in self.losses:
            run = self.train(name, "training.max_steps=20", *settings)
            self.losses[name] = [one["loss"] for one in events(run, "step")]
        return self.losses[name]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the records of one kind in the log of a run."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == kind]


def execution(run: Path) -> dict[str, Any]:
    """Return the device, precision and batching in run.json."""
    result: dict[str, Any] = json.loads((run / "run.json").read_text())["execution"]
    return result


def digest(run: Path) -> tuple[str, str]:
    """Return the last checkpoint of a run and the hash of its weights."""
    last = max((run / "checkpoints").glob("step-*"))
    return last.name, hashlib.sha256((last / "model.safetensors").read_bytes()).hexdigest()


def difference(one: list[float], other: list[float]) -> float:
    """Return the largest relative difference of two series of losses."""
    if len(one) != len(other) or not one:
        raise CheckError(f"{len(one)} and {len(other)} steps")
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def require_close(gap: float, precision: str) -> None:
    """Raise if two series of losses differ by more than rounding."""
    if not gap <= ROUNDING[precision]:
        raise CheckError(f"losses differ by {gap:.2g}, allowed {ROUNDING[precision]}")


def machine(bench: Bench, check: Check) -> str:
    """Name the versions and the GPU, and the modules that are missing."""
    code = (
        "import json, sys, torch, transformers; cuda = torch.cuda.is_available();"
        "print(json.dumps({'python': sys.version.split()[0], 'torch': torch.__version__,"
        "'transformers': transformers.__version__, 'cuda': torch.version.cuda,"
        "'gpu': torch.cuda.get_device_name() if cuda else None}))"
    )
    found, out, err = bench.run(sys.executable, "-c", code)
    if found:
        raise CheckError(err.strip()[-300:])
    check.numbers |= json.loads(out)
    bench.convo("train", "config.yaml", "--dry-run", "--quiet")
    return ", ".join(f"{name} {value}" for name, value in check.numbers.items())


def exact_resume(precision: str) -> Callable[[Bench, Check], str]:
    """Return the check that a run has the same bits if it is stopped by SIGTERM and resumed."""

    def check_resume(bench: Bench, check: Check) -> str:
        steps = 40 if bench.is_tiny else 300
        shared = (
            "deterministic=true", f"training.precision={precision}", f"training.max_steps={steps}",
            "model.scratch.dropout=0.1", "model.scratch.attention_dropout=0.1",
        )  # fmt: skip
        whole = bench.train(f"whole-{precision}", *shared)
        name = f"stopped-{precision}"
        log = bench.folder / "runs" / name / "metrics.jsonl"
        run = bench.train(name, *shared, code=128 + signal.SIGTERM, stop_after=log)
        stopped_at, _ = digest(run)
        bench.convo("resume", run, "--quiet")
        check.numbers |= {"stopped_at": stopped_at, "steps": steps}
        check.numbers |= {"device": execution(run)["device"]}
        if digest(run) != digest(whole):
            raise CheckError(f"other bits after a stop at {stopped_at}")
        return f"same model.safetensors after a stop at {stopped_at} of {steps}"

    return check_resume


def packing(precision: str) -> Callable[[Bench, Check], str]:
    """Return the check that packing passes its proof and gives the losses of padding."""

    def check_packing(bench: Bench, check: Check) -> str:
        at = f"training.precision={precision}"
        packed = bench.losses_of(f"packed-{precision}", at, "training.packing=on")
        padded = bench.losses_of(f"padded-{precision}", at, "training.packing=off")
        chosen = execution(bench.folder / "runs" / f"packed-{precision}")
        gap = difference(packed, padded)
        check.numbers |= {"largest_difference": gap, "attention": chosen["attention"]}
        require_close(gap, precision)
        return f"proof passed; losses of 20 steps as padded, {gap:.1g}; {chosen['attention']}"

    return check_packing


def fp16_overflow(bench: Bench, check: Check) -> str:
    """Train in fp16 from a scale that overflows; every step must still be one update."""
    words = ("--quiet", "--set", "name=fp16", "--set", "training.precision=fp16")
    more = ("--set", "training.max_steps=20")
    code, _, err = bench.run(
        sys.executable, "-c", _BIG_SCALE, "train", "config.yaml", *words, *more
    )
    if code:
        raise CheckError(f"exit code {code}: {err.strip()[-300:]}")
    run = bench.folder / "runs" / "fp16"
    gap = difference(
        [one["loss"] for one in events(run, "step")],
        bench.losses_of("packed-fp32", "training.precision=fp32", "training.packing=on"),
    )
    last = max((run / "checkpoints").glob("step-*"))
    scale = json.loads((last / "state.json").read_text())["scaler"]["scale"]
    check.numbers |= {"largest_difference": gap, "scale_after": scale}
    if not scale < 2.0**60:
        raise CheckError(f"the scale is still {scale}: nothing overflowed")
    require_close(gap, "fp16")
    return f"scale 2**60 fell to {scale:g}; losses as in fp32, {gap:.1g}"


def mfu(model: str, batch: int, goal: float, *, compiles: bool) -> Callable[[Bench, Check], str]:
    """Return the check of the share of the chip's dense peak over 20 steps in bf16."""

    def check_mfu(bench: Bench, check: Check) -> str:
        command: list[object] = [
            sys.executable, work.ROOT / "benchmarks" / "train_convo.py",
            "--data", bench.folder / "long.jsonl", "--tokenizer", bench.folder / "bpe.json",
            "--model", "tiny" if bench.is_tiny else model, "--batch", 4 if bench.is_tiny else batch,
            "--steps", 2 if bench.is_tiny else 20, "--warmup", 1 if bench.is_tiny else 5,
            "--device", bench.device, "--precision", "bf16",
        ]  # fmt: skip
        code, out, err = bench.run(*command, *["--compile"] * compiles)
        if code:
            raise CheckError(f"exit code {code}: {err.strip()[-300:]}")
        check.numbers |= json.loads(out.splitlines()[-1])
        share = check.numbers["model_flops_utilisation"]
        speed = f"{check.numbers['real_tokens_per_s']:,.0f} tokens/s"
        if share is None:
            return f"{speed}; no peak is known for this device"
        memory = check.numbers["peak_device_mb"] / 1024
        reached = "reached" if share >= goal else "missed"
        return f"{share:.1%} of peak (goal {goal:.0%} {reached}), {speed}, {memory:.1f} GiB"

    return check_mfu


def checkpointing(bench: Bench, check: Check) -> str:
    """Compare losses and memory of gradient checkpointing with those of the plain run."""
    settings = ("training.precision=fp32", "training.packing=on")
    plain = bench.losses_of("packed-fp32", *settings)
    saved = bench.losses_of("checkpointed", *settings, "training.gradient_checkpointing=true")
    gap = difference(saved, plain)
    peaks = []
    for name in ("packed-fp32", "checkpointed"):
        device = events(bench.folder / "runs" / name, "device")[-1]
        peaks.append(device["gpu"]["peak_process_bytes"] if device["gpu"] else None)
    check.numbers |= {"largest_difference": gap, "peak_bytes": peaks}
    require_close(gap, "fp32")
    return f"same losses, {gap:.1g}; peak bytes without and with it {peaks}"


def compiled(bench: Bench, check: Check) -> str:
    """Compare the losses of torch.compile with the plain ones, and count recompilations."""
    settings = ("training.precision=fp32", "training.packing=on")
    plain = bench.losses_of("packed-fp32", *settings)
    words = [w for s in (*settings, "name=compiled", "training.max_steps=20") for w in ("--set", s)]
    said = bench.convo(
        "train", "config.yaml", "--quiet", *words, "--set", "training.compile=true",
        env={"TORCH_LOGS": "recompiles"},
    )  # fmt: skip
    gap = difference(
        [one["loss"] for one in events(bench.folder / "runs" / "compiled", "step")], plain
    )
    recompiled = said.count("Recompiling function")
    check.numbers |= {"largest_difference": gap, "recompilations": recompiled}
    require_close(gap, "fp32")
    return f"same losses, {gap:.1g}; {recompiled} recompilations in 20 steps"


def verified(bench: Bench, check: Check) -> str:
    """Prove a resume on the device against the run's own checkpoint."""
    said = bench.convo("resume", finished_run(bench), "--verify", "--quiet")
    return " ".join(said.split())[-150:]


def evaluated(bench: Bench, check: Check) -> str:
    """Evaluate a run with replies on the device."""
    run = finished_run(bench)
    out = bench.convo(
        "evaluate", run, SAMPLES / "test.jsonl", "--device", bench.device, "--json", "--quiet"
    )
    loss = json.loads(out[out.index("{") : out.rindex("}") + 1])
    check.numbers["keys"] = sorted(loss)
    return f"finished; {len(out):,} characters of results"


def exported(bench: Bench, check: Check) -> str:
    """Export a run and reply once with the export on the device."""
    run = finished_run(bench)
    bench.convo("export", run, bench.folder / "export", "--quiet")
    out = bench.convo("chat", bench.folder / "export", "--device", bench.device, stdin="Hello\n")
    if not out.strip():
        raise CheckError("no reply")
    return f"reply of the export: {' '.join(out.split())[:80]!r}"


def continuous_batch(bench: Bench, check: Check) -> str:
    """Answer 12 requests together on the device, and compare with each one alone."""
    import threading

    from convo_cli.config.schema import GenerationSettings
    from convo_cli.data.dialogue import Turn
    from convo_cli.events import ignore
    from convo_cli.model.open import open_generator
    from convo_cli.serve.engine import Engine
    from convo_cli.serve.jobs import Finished, Job, Piece

    generator = open_generator(str(finished_run(bench)), device=bench.device, emit=ignore)
    settings = GenerationSettings(temperature=0.0, max_new_tokens=32)
    texts = [" ".join(["Tell me more."] * (1 + number % 5)) + f" {number}" for number in range(12)]
    histories = [[Turn("user", text)] for text in texts]
    alone = [generator.replies([history], settings)[0] for history in histories]
    engine = Engine(generator)
    said: list[list[str]] = [[] for _ in texts]
    ends: list[object] = []
    over = threading.Semaphore(0)

    def receive(number: int, event: object) -> None:
        if isinstance(event, Piece):
            said[number].append(event.text)
        else:
            ends.append(event)
            over.release()

    started = time.monotonic()
    for number, history in enumerate(histories):
        query = generator.query(history, settings)
        emit = functools.partial(receive, number)
        engine.submit(Job(query, settings, 0, (), None, emit))
    for _ in texts:
        if not over.acquire(timeout=120):
            raise CheckError("a request was lost")
    seconds = time.monotonic() - started
    engine.drain(5)
    if engine.num_faults or not all(isinstance(end, Finished) for end in ends):
        raise CheckError(f"requests failed: {ends}")
    same = sum("".join(text) == reply.text for text, reply in zip(said, alone, strict=True))
    check.numbers.update(seconds=seconds, same=same, rows=engine.max_rows)
    if engine.max_rows == 1:
        raise CheckError("requests were answered one at a time")
    # Rounding depends on the batch, so a tie of two logits may be decided otherwise.
    if same < 10:
        raise CheckError(f"only {same} of 12 replies are those given alone")
    return f"{same} of 12 replies are those given alone; {seconds:.1f} s"


def kept_rows(dtype: str, limit: float) -> Callable[[Bench, Check], str]:
    """Compare kept and joined rows of a run with whole rows in a precision."""

    def perform(bench: Bench, check: Check) -> str:
        script = Path(__file__).with_name("kept_rows.py")
        code, out, err = bench.run(
            sys.executable, script, finished_run(bench), "--device", bench.device, "--dtype", dtype
        )
        if code:
            raise CheckError(f"kept_rows.py exited with {code}: {err.strip()[-400:]}")
        check.numbers |= json.loads(out)
        gap = check.numbers["largest_difference"]
        if not (check.numbers["can_extend"] and check.numbers["can_join"]) or gap > limit:
            raise CheckError(f"rows differ by {gap:.2g} standard deviations: {out.strip()}")
        return (
            f"{check.numbers['passes']}, largest difference {gap:.2g}, "
            f"{check.numbers['replies_that_differ']} of {check.numbers['replies']} replies differ"
        )

    return perform


def statistics_of_nvml(bench: Bench, check: Check) -> str:
    """Compare the logged statistics of the GPU with nvidia-smi."""
    logged = events(finished_run(bench), "device")[-1]
    check.numbers["logged"] = logged
    if logged["gpu"] is None:
        if bench.device.startswith("cuda"):
            raise CheckError("no statistics of the GPU")
        return f"no GPU; {logged['memory_bytes'] / 2**20:,.0f} MiB of memory"
    query = "memory.total,power.draw,temperature.gpu,utilization.gpu"
    code, out, _ = bench.run("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits")
    check.numbers["nvidia_smi"] = out.strip()
    gpu = logged["gpu"]
    if None in (gpu["power_watts"], gpu["temperature_celsius"], gpu["utilization"]):
        raise CheckError(f"values are missing: {gpu}")
    total = gpu["total_bytes"] / 2**20
    if code == 0 and abs(float(out.splitlines()[0].split(",")[0]) - total) > 0.02 * total:
        raise CheckError(f"{total:,.0f} MiB, but nvidia-smi says {out.strip()}")
    return f"{total:,.0f} MiB, {gpu['power_watts']:.0f} W; nvidia-smi: {out.strip()}"


def resumed_on_a_cpu(bench: Bench, check: Check) -> str:
    """Continue a run of the device on a CPU, which is reported and recorded."""
    run = finished_run(bench)
    bench.convo(
        "resume", run, "--quiet", "--set", "training.max_steps=22", "--set", "training.device=cpu",
        env={"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    changes = [one["message"] for one in json.loads((run / "run.json").read_text())["changes"]]
    check.numbers["changes"] = changes
    if bench.device != "cpu" and not any("device" in change for change in changes):
        raise CheckError(f"no change of the device in run.json: {changes}")
    return f"continued to step 22; changes: {'; '.join(changes)[:120]}"


def finished_run(bench: Bench) -> Path:
    """Return a run of 20 steps in bf16, with an evaluation."""
    run = bench.folder / "runs" / "finished"
    if not run.exists():
        data = f"data.validation=[{SAMPLES / 'valid.jsonl'}]"
        bench.train(
            "finished", "training.max_steps=20", "training.precision=bf16", data,
            "evaluation.reply_dialogues=4", "checkpoints.every_steps=10",
        )  # fmt: skip
    return run


CHECKS: dict[str, tuple[float, Callable[[Bench, Check], str]]] = {
    "machine": (90, machine),
    "exact_resume_fp32": (120, exact_resume("fp32")),
    "exact_resume_bf16": (120, exact_resume("bf16")),
    "packing_bf16": (90, packing("bf16")),
    "packing_fp32": (90, packing("fp32")),
    "fp16_overflow": (90, fp16_overflow),
    "mfu_gpt2": (90, mfu("gpt2", 256, 0.45, compiles=False)),
    "mfu_1b": (120, mfu("1b", 64, 0.55, compiles=False)),
    "mfu_gpt2_compiled": (150, mfu("gpt2", 256, 0.45, compiles=True)),
    "mfu_1b_compiled": (180, mfu("1b", 64, 0.55, compiles=True)),
    "gradient_checkpointing": (60, checkpointing),
    "verify": (90, verified),
    "nvml": (60, statistics_of_nvml),
    "evaluate": (60, evaluated),
    "continuous_batch": (90, continuous_batch),
    "export_and_chat": (90, exported),
    "kept_rows_bf16": (60, kept_rows("bf16", 0.1)),
    "kept_rows_fp32": (60, kept_rows("fp32", 1e-3)),
    "resume_on_a_cpu": (90, resumed_on_a_cpu),
    "compile": (150, compiled),
}
"""Checks, the most important first, with the seconds after which each is cut on a GPU."""


def prepare(folder: Path, device: str, *, is_tiny: bool) -> None:
    """Write the config that the runs share, and long dialogues of sample turns for the speed."""
    layers, width, context = (2, 32, 128) if is_tiny else (6, 384, 512)
    config = {
        "output_dir": str(folder / "runs"),
        "data": {"train": [str(SAMPLES / "train.jsonl")], "validation": []},
        "tokenizer": {"vocab_size": 800},
        "model": {
            "scratch": {
                "layers": layers, "width": width, "heads": layers, "context": context,
                "dropout": 0.0, "attention_dropout": 0.0,
            }
        },
        "dialogue": {"max_length": context},
        "training": {"max_steps": 20, "batch_size": 8, "device": device},
        "logging": {"plots": False, "tensorboard": False},
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    lines = map(json.loads, (SAMPLES / "train.jsonl").read_text(encoding="utf-8").splitlines())
    texts = (text for line in lines if isinstance(line, list) for text in line)
    turns = [text for text in texts if isinstance(text, str)]
    chosen = random.Random(0)
    with (folder / "long.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(40 if is_tiny else 2000):
            file.write(json.dumps(chosen.choices(turns, k=chosen.randint(4, 24))) + "\n")
    work.make_tokenizer(folder / "long.jsonl", folder / "bpe.json")


def main() -> None:
    """Run the checks, and exit with 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and few steps")
    parser.add_argument(
        "--seconds", type=float, default=780, help="time limit of all checks together"
    )
    parser.add_argument("--factor", type=float, default=1.0, help="multiplies the time limits")
    parser.add_argument("--only", nargs="*", choices=CHECKS, default=list(CHECKS), metavar="NAME")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + arguments.seconds
    results = [Check(name) for name in CHECKS if name in arguments.only]
    with TemporaryDirectory(prefix="gpu-checks-") as name:
        bench = Bench(Path(name), arguments.device, arguments.tiny)
        prepare(bench.folder, arguments.device, is_tiny=arguments.tiny)
        for check in results:
            began = time.monotonic()
            limit, perform = CHECKS[check.name]
            bench.deadline = min(end, began + limit * arguments.factor)
            if end - began >= SHORTEST:
                carry_out(check, lambda perform=perform, check=check: perform(bench, check))
                check.seconds = round(time.monotonic() - began, 1)
            print(
                f"{check.result:8}{check.name:24}{check.seconds:6.0f} s  {check.text}", flush=True
            )
            write(arguments.out / "results.json", results)
    sys.exit(any(check.result == "FAILED" for check in results))


def carry_out(check: Check, perform: Callable[[], str]) -> None:
    """Perform a check and store its result; an error never ends the other checks."""
    try:
        check.text, check.result = perform(), "ok"
    except subprocess.TimeoutExpired:
        check.result, check.text = "cut", "its time limit was reached"
    except CheckError as error:
        check.result, check.text = "FAILED", " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001  (the other checks are still worth their time)
        check.result, check.text = "FAILED", f"{type(error).__name__}: {error}"


def write(file: Path, results: list[Check]) -> None:
    """Replace the file of the results."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps([asdict(check) for check in results], indent=2))
    with contextlib.suppress(OSError):
        part.replace(file)


if __name__ == "__main__":
    main()
