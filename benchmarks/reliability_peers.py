"""Behaviour of Hugging Face's Trainer and Lightning in the cases of tests/faults.

The cases are kills, damaged files, a full disk and a loss that is not finite. Run from the
repository's root with a Python that has torch, transformers, accelerate and lightning:

    python benchmarks/reliability_peers.py [--peer hf|lightning]

Each case trains a tiny random GPT-2 for eight steps with a checkpoint every two, disturbs it,
resumes it as the peer's documentation says, and compares the weights with those of an undisturbed
run. Needs a C compiler for tests/faults/layer.c. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

STEPS, SAVE_EVERY, STOP_AT = 8, 2, 5
ROOT = Path(__file__).resolve().parent.parent


def tiny_model() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=256, n_positions=32, n_embd=64, n_layer=2, n_head=2)
    )


def examples(reverse: bool) -> list[dict[str, Any]]:
    """Return 64 examples; a step has 4, so that the run ends in the middle of its epoch."""
    import torch

    ids = torch.randint(0, 256, (64, 32), generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    return rows[::-1] if reverse else rows


def at_step(job: dict[str, Any], step: int) -> None:
    """Disturb the run from inside, so that it is always the same step."""
    if step == STOP_AT and job.get("signal"):
        os.kill(os.getpid(), job["signal"])


def run_hf(job: dict[str, Any]) -> Any:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Disturb(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            at_step(job, state.global_step)

    arguments = TrainingArguments(
        output_dir=job["folder"], max_steps=STEPS, save_steps=SAVE_EVERY, save_total_limit=2,
        seed=3, per_device_train_batch_size=4, learning_rate=job.get("learning_rate", 1e-3),
        logging_steps=1, report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(
        tiny_model(),
        arguments,
        train_dataset=examples(job.get("reverse", False)),
        callbacks=[Disturb()],
    )
    trainer.train(resume_from_checkpoint=True if job["resume"] else None)
    return trainer.model


def run_lightning(job: dict[str, Any]) -> Any:
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    lightning.seed_everything(3)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny_model().train()

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.model(**batch).loss
            print(f"loss {float(loss):.4f}")
            return loss

        def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
            at_step(job, self.global_step)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=job.get("learning_rate", 1e-3))

    saving = ModelCheckpoint(
        job["folder"], every_n_train_steps=SAVE_EVERY, save_top_k=2, save_last=True,
        monitor="step", mode="max",
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_steps=STEPS, accelerator="cpu", callbacks=[saving], logger=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
    )  # fmt: skip
    module = Module()
    loader = torch.utils.data.DataLoader(
        examples(job.get("reverse", False)), batch_size=4, shuffle=True
    )
    trainer.fit(module, loader, ckpt_path="last" if job["resume"] else None)
    return module.model


PEERS: dict[str, Callable[[dict[str, Any]], Any]] = {"hf": run_hf, "lightning": run_lightning}


def serve(peer: str) -> None:
    """Import everything once, which takes 10 seconds, then fork a child for each job on stdin."""
    import torch

    torch.set_num_threads(1)
    if peer == "hf":
        from transformers import GPT2LMHeadModel, Trainer  # noqa: F401
    else:
        import lightning
        from transformers import GPT2LMHeadModel  # noqa: F401

        assert lightning
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for _ in range(job.get("processes", 1)):
            child = os.fork()
            if child == 0:
                work(peer, job)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


def work(peer: str, job: dict[str, Any]) -> None:
    code = 1
    try:
        signal.alarm(120)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(job.get("environment", {}))
        tempfile.tempdir = None  # Lightning writes to TMPDIR first
        ctypes.CDLL(None).fault_arm()
        model = PEERS[peer](job)
        weights = hashlib.sha256()
        finite = True
        for _, tensor in sorted(model.state_dict().items()):
            weights.update(tensor.contiguous().numpy().tobytes())
            finite = finite and bool(tensor.isfinite().all())
        print(f"weights {weights.hexdigest()[:12]} finite {finite}", flush=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Ended(NamedTuple):
    codes: list[int]
    log: str
    folder: Path

    @property
    def weights(self) -> str | None:
        found = [line.split()[1] for line in self.log.splitlines() if line.startswith("weights ")]
        return found[-1] if found else None

    @property
    def last_line(self) -> str:
        lines = [line for line in self.log.splitlines() if line.strip()]
        return lines[-1].replace(str(self.folder), "…")[:110] if lines else ""

    @property
    def says(self) -> str:
        traced = ", traceback" if "Traceback" in self.log else ""
        return f"exit {'/'.join(map(str, self.codes))}{traced}"


class Peer:
    """A process that runs jobs of one peer, and the folder of the run."""

    def __init__(self, name: str, layer: Path, home: Path) -> None:
        self.home = home
        self._layer = layer
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "LD_PRELOAD": str(layer), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    @property
    def folder(self) -> Path:
        return self.home / "disk" / "run"

    def clear(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        (self.folder.parent / "tmp").mkdir(parents=True)

    def train(
        self, *, resume: bool = False, environment: dict[str, str] | None = None, **job: Any
    ) -> Ended:
        log = self.home / "log"
        log.unlink(missing_ok=True)
        environment = {"TMPDIR": str(self.folder.parent / "tmp"), **(environment or {})}
        request = {
            "folder": str(self.folder),
            "log": str(log),
            "resume": resume,
            "environment": environment,
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({**request, **job}) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return Ended(codes, log.read_text(errors="replace"), self.folder)

    def resume(self) -> Ended:
        return self.train(resume=True)

    def fault(
        self, action: str = "", at: int = 0, *, number: int = 0, kinds: str = ""
    ) -> dict[str, str]:
        log = self.home / "operations"
        log.unlink(missing_ok=True)
        return {
            "FAULT_ROOT": str(self.folder.parent), "FAULT_LOG": str(log), "FAULT_DO": action,
            "FAULT_AT": str(at), "FAULT_NUMBER": str(number), "FAULT_KINDS": kinds,
        }  # fmt: skip

    def operations(self) -> list[list[str]]:
        return [line.split("\t") for line in (self.home / "operations").read_text().splitlines()]

    def files(self, pattern: str) -> list[Path]:
        """Return matching files of the run, the newest last."""
        return sorted(self.folder.rglob(pattern), key=lambda path: path.stat().st_mtime_ns)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def compare(ended: Ended, expected: str | None) -> str:
    if ended.codes[0] != 0:
        return f"{ended.says}: {ended.last_line}"
    return f"{ended.says}, {'same' if ended.weights == expected else 'OTHER'} weights"


def measure(name: str, layer: Path, home: Path) -> list[tuple[str, str]]:
    peer = Peer(name, layer, home)
    rows: list[tuple[str, str]] = []

    def say(case: str, answer: str) -> None:
        rows.append((case, answer))
        print(f"{name}: {case}: {answer}", file=sys.stderr, flush=True)

    peer.clear()
    straight = peer.train(environment=peer.fault())
    expected = straight.weights
    found = peer.operations()
    say(
        "never stopped",
        f"{straight.says}, {len(found)} file operations, fsync: "
        f"{sum(o[1] == 'fsync' for o in found)}",
    )
    save = "checkpoint-" if name == "hf" else "step="
    first, after = (
        next(int(o[0]) for o in found if f"{save}{step}" in f"{o[2]} {o[3]}") for step in (4, 6)
    )
    inside = range(first, after)
    peer.clear()
    say("the same again", compare(peer.train(), expected))

    peer.clear()
    killed = peer.train(signal=signal.SIGKILL)
    say(
        f"kill -9 after step {STOP_AT}, between saves; resume",
        f"{killed.says}; {compare(peer.resume(), expected)}",
    )

    places = (
        {"": {}} if name == "hf" else {"": {}, ", TMPDIR on another disk": {"TMPDIR": "/dev/shm"}}
    )
    for place, environment in places.items():
        answers: dict[str, int] = {}
        for point in [inside[(2 * k + 1) * len(inside) // 24] for k in range(12)]:
            peer.clear()
            peer.train(environment={**environment, **peer.fault("tear", point)})
            answer = compare(peer.resume(), expected)
            answers[answer] = answers.get(answer, 0) + 1
        told = "; ".join(f"{num}x {answer}" for answer, num in answers.items())
        say(f"kill -9 at 12 operations of a save{place}; resume", told)

    weights, optimizer = (
        ("model.safetensors", "optimizer.pt") if name == "hf" else ("last.ckpt", "last.ckpt")
    )
    for what, pattern in (("the weights", weights), ("the optimizer", optimizer)):
        for damage in ("a bit flipped", "truncated", "deleted"):
            peer.clear()
            peer.train(signal=signal.SIGKILL)
            file = peer.files(pattern)[-1]
            data = bytearray(file.read_bytes())
            if damage == "a bit flipped":
                is_front = pattern == "last.ckpt" and what == "the weights"
                data[len(data) // (3 if is_front else 2)] ^= 1
                file.write_bytes(data)
            elif damage == "truncated":
                file.write_bytes(data[: len(data) // 2])
            else:
                file.unlink()
            say(f"{what} {damage}; resume", compare(peer.resume(), expected))

    for number in (signal.SIGTERM, signal.SIGINT):
        peer.clear()
        stopped = peer.train(signal=number)
        saved = any(f"{STOP_AT}" in path.name.split("=")[-1] for path in peer.folder.glob("*"))
        say(
            f"{number.name} in step {STOP_AT}; resume",
            f"{stopped.says}, step {STOP_AT} {'saved' if saved else 'not saved'}; "
            f"{compare(peer.resume(), expected)}",
        )

    peer.clear()
    diverged = peer.train(learning_rate=1e25)
    losses = [line for line in diverged.log.splitlines() if "loss" in line]
    finite = "finite True" in diverged.log
    last_loss = losses[-1][:60] if losses else "no loss logged"
    say(
        "learning rate 1e25",
        f"{diverged.says}, weights {'finite' if finite else 'not finite'}, last: {last_loss}",
    )

    peer.clear()
    both = peer.train(processes=2)
    say("two processes on one folder", both.says)

    peer.clear()
    peer.train(signal=signal.SIGKILL)
    changed = peer.train(resume=True, reverse=True)
    say("the data in another order; resume", compare(changed, expected))

    peer.clear()
    full = peer.train(
        environment=peer.fault("fail-on", inside[len(inside) // 3], number=errno.ENOSPC)
    )
    say(
        "disk full in a save; resume",
        f"{full.says}: {full.last_line}; {compare(peer.resume(), expected)}",
    )
    peer.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--serve", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as home:
        layer = Path(home) / "layer.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", layer, ROOT / "tests/faults/layer.c", "-ldl"],
            check=True,
        )
        for name in [arguments.peer] if arguments.peer else PEERS:
            folder = Path(home) / name
            folder.mkdir()
            print(f"\n| {name} | what happened |\n|---|---|")
            for case, answer in measure(name, layer, folder):
                print(f"| {case} | {answer.replace('|', '/')} |")


if __name__ == "__main__":
    main()
