"""The training of a float Transformer: seeded, resumable, its averaged weights kept where they do best."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from intsim.models.architecture import Architecture
from intsim.models.vocabulary import PAD, Vocabulary
from intsim.training.batches import Batch
from intsim.training.network import NORMAL_GAIN, Beginning, Network

CHECKPOINT = "checkpoint.pt"
WEIGHTS, SHAPE, TOKENIZER, RESULT = "model.safetensors", "config.json", "tokenizer.json", "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how hard.

    steps: updates. rate: the highest learning rate, reached after ``warmup`` steps and brought to 0 by
    a cosine. smoothing: of the labels. decay: of the weights. average: of the weights kept, per step.
    shift, gain: b of the polynomial attention and the gain of the L1 norm before training.
    every: steps between two looks at the validation data, each of which can be resumed from.
    """

    steps: int
    rate: float
    warmup: int
    dropout: float
    smoothing: float
    decay: float
    shift: float = 1.0
    gain: float = NORMAL_GAIN
    average: float = 0.999
    every: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.warmup, self.every) < 1 or self.rate <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"steps, warmup, every and rate are positive, dropout in [0, 1): got {self}")


@dataclass(slots=True)
class Progress:
    """What a run tells its caller at each look: loss is in nats a token, of the averaged weights."""

    step: int
    loss: float
    best: float
    seconds: float


class Run:
    """One training run in a folder.

    Raises ValueError where the folder holds a run of another shape or recipe: nothing of it is lost.
    """

    def __init__(self, folder: Path, shape: Architecture, recipe: Recipe, device: str) -> None:
        self.folder, self.shape, self.recipe, self.device = folder, shape, recipe, device
        torch.manual_seed(recipe.seed)
        torch.set_float32_matmul_precision("high")  # TF32 where the device has it: a training needs no more
        self.network = Network(shape, recipe.dropout, Beginning(shift=recipe.shift, gain=recipe.gain)).to(device)
        matrices = [p for p in self.network.parameters() if p.ndim == 2]
        vectors = [p for p in self.network.parameters() if p.ndim != 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.rate,
            betas=(0.9, 0.98),
            fused=device != "cpu",
        )
        self._average = [p.detach().clone() for p in self.network.parameters()]
        self.step, self.best, self._seconds = 0, math.inf, 0.0
        self._kept: list[Tensor] = [p.clone() for p in self._average]
        self.history: list[tuple[int, float]] = []

    def resume(self) -> bool:
        """Goes on from the folder's checkpoint; False where there is none."""
        file = self.folder / CHECKPOINT
        if not file.is_file():
            return False
        kept = torch.load(file, map_location=self.device, weights_only=True)
        for name, given in (("shape", self.shape.as_text()), ("recipe", _text(self.recipe))):
            if kept[name] != given:
                raise ValueError(
                    f"{file} is of a run with another {name}: {kept[name]}; choose another folder, or remove it"
                )
        self.network.load_state_dict(kept["network"])
        self._optimizer.load_state_dict(kept["optimizer"])
        for mine, theirs in zip([*self._average, *self._kept], [*kept["average"], *kept["kept"]], strict=True):
            mine.copy_(theirs)
        self.step, self.best, self._seconds = kept["step"], kept["best"], kept["seconds"]
        self.history = [tuple(entry) for entry in kept["history"]]
        return True

    def _save(self) -> None:
        state = {
            "shape": self.shape.as_text(),
            "recipe": _text(self.recipe),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average,
            "kept": self._kept,
            "step": self.step,
            "best": self.best,
            "seconds": self._seconds,
            "history": [list(entry) for entry in self.history],
        }
        partial = self.folder / f"{CHECKPOINT}.new"
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT)  # an interrupted save leaves the one before

    def train(
        self,
        batches: Callable[[random.Random], Iterator[Batch]],
        valid: Sequence[Batch],
        *,
        report: Callable[[Progress], None],
        minutes: float = math.inf,
    ) -> bool:
        """Trains to the last step, or for so many minutes; whether it reached the end.

        A resumed run draws from a seed of its own step: it goes on, it does not repeat.
        """
        recipe, begun = self.recipe, time.perf_counter()
        before = self._seconds
        stream = batches(random.Random(f"{recipe.seed} {self.step}"))
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        parameters = list(self.network.parameters())
        while self.step < recipe.steps:
            source, target = next(stream)
            self._update(source, target, parameters)
            late = time.perf_counter() - begun > 60 * minutes
            if self.step % recipe.every == 0 or self.step == recipe.steps or late:
                loss = self.loss(valid)
                if loss < self.best:
                    self.best = loss
                    torch._foreach_copy_(self._kept, self._average)
                self.history.append((self.step, loss))
                self._seconds = before + time.perf_counter() - begun
                self._save()
                report(Progress(self.step, loss, self.best, self._seconds))
            if late:
                break
        return self.step >= recipe.steps

    def _update(self, source: Tensor | None, target: Tensor, parameters: list[torch.nn.Parameter]) -> None:
        recipe = self.recipe
        self.step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.rate * _share(self.step, recipe)
        self.network.train()
        logits = self._logits(source, target[:, :-1])
        loss = functional.cross_entropy(
            logits.flatten(0, 1),
            target[:, 1:].flatten().to(self.device),
            ignore_index=PAD,
            label_smoothing=recipe.smoothing,
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        self._optimizer.step()
        follow = min(recipe.average, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [p.detach() for p in parameters], 1 - follow)

    def _logits(self, source: Tensor | None, ids: Tensor) -> Tensor:
        ids = ids.to(self.device, non_blocking=True)
        made: Tensor = self.network(ids) if source is None else self.network(ids, source.to(self.device))
        return made

    @torch.no_grad()
    def loss(self, valid: Sequence[Batch]) -> float:
        """Nats a token of the averaged weights on ``valid``."""
        parameters = [p.data for p in self.network.parameters()]
        trained = [p.clone() for p in parameters]
        torch._foreach_copy_(parameters, self._average)
        self.network.eval()
        total, count = 0.0, 0
        for source, target in valid:
            logits = self._logits(source, target[:, :-1])
            wanted = target[:, 1:].flatten().to(self.device)
            total += functional.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=PAD, reduction="sum").item()
            count += int((wanted != PAD).sum())
        torch._foreach_copy_(parameters, trained)
        return total / max(count, 1)

    def write(self, vocabulary: Vocabulary, **facts: Any) -> None:
        """The best averaged weights as float32 safetensors, with shape, tokenizer and what was done."""
        from safetensors.torch import save_file

        names = [name for name, _ in self.network.named_parameters()]
        tensors = {n: p.float().cpu().contiguous() for n, p in zip(names, self._kept, strict=True)}
        save_file(tensors, self.folder / WEIGHTS)
        (self.folder / SHAPE).write_text(self.shape.as_text() + "\n")
        (self.folder / TOKENIZER).write_text(vocabulary.as_text())
        done = {
            "parameters": sum(t.numel() for t in tensors.values()),
            "recipe": dataclasses.asdict(self.recipe),
            "steps": self.step,
            "seconds": round(self._seconds, 1),
            "valid_nats_per_token": self.history,
            "torch": torch.__version__,
            **facts,
        }
        (self.folder / RESULT).write_text(json.dumps(done, indent=1) + "\n")


def _share(step: int, recipe: Recipe) -> float:
    """Of the highest rate: a straight line up, then a cosine down to nothing."""
    if step < recipe.warmup:
        return step / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _text(recipe: Recipe) -> str:
    return json.dumps(dataclasses.asdict(recipe))
