"""Greedy translation in ONNX Runtime float32: the PyTorch peer exported as an encoder and a step with a cache."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from intsim.models.architecture import Architecture
from intsim.models.transformer import padded
from intsim.models.vocabulary import BEGIN, END
from tests.bench._float_pytorch import Translator as Peer


class Encoder(nn.Module):
    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, ids: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """ids [texts, columns], seen [texts, 1, 1, columns] to keys and values [layers, texts, heads, ..]."""
        made = self.peer.encode(ids, seen)
        return torch.stack([k for k, _ in made]), torch.stack([v for _, v in made])


class Step(nn.Module):
    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer

    def forward(
        self, new: Tensor, place: Tensor, k: Tensor, v: Tensor, source_k: Tensor, source_v: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """new [texts], place [1], a cache [layers, texts, heads, ..] to the best tokens and the next cache."""
        peer = self.peer
        x = (peer.embedding[new] + peer.positions[place])[:, None]
        keys, values = [], []
        for i in range(peer.shape.layers):
            q, own_k, own_v = peer._own_part(i, x)
            keys.append(torch.cat([k[i], own_k], 2))
            values.append(torch.cat([v[i], own_v], 2))
            x = peer._rest_part(i, x, q, keys[i], values[i], (source_k[i], source_v[i]), seen)
        best = functional.linear(peer._norm("decoder_norm", x[:, 0]), peer.output).argmax(-1)
        return best, torch.stack(keys), torch.stack(values)


class Translator:
    """tensors: float32, by the names of a checkpoint."""

    def __init__(self, shape: Architecture, tensors: Mapping[str, Any], threads: int) -> None:
        import onnxruntime

        peer = Peer(shape, tensors)
        self.shape = shape
        layers, heads, width = shape.layers, shape.heads, shape.head_width
        cache, memory = torch.zeros(layers, 3, heads, 4, width), torch.zeros(layers, 3, heads, 5, width)
        ids, seen, new = torch.ones(3, 5, dtype=torch.long), torch.ones(3, 1, 1, 5), torch.ones(3, dtype=torch.long)
        texts, columns, sources = (torch.export.Dim(name) for name in ("texts", "columns", "sources"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        made = []
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            for module, arguments, dims in (
                (Encoder(peer), (ids, seen), ({0: texts, 1: sources}, {0: texts, 3: sources})),
                (
                    Step(peer),
                    (new, torch.ones(1, dtype=torch.long), cache, cache.clone(), memory, memory.clone(), seen),
                    (
                        {0: texts},
                        {},
                        *[{1: texts, 3: columns}] * 2,
                        *[{1: texts, 3: sources}] * 2,
                        {0: texts, 3: sources},
                    ),
                ),
            ):
                file = str(Path(folder) / "model.onnx")
                torch.onnx.export(module, arguments, file, dynamo=True, dynamic_shapes=dims, external_data=False)
                made.append(onnxruntime.InferenceSession(Path(file).read_bytes(), options))
        self.encoder, self.step = made
        self._inputs = [[i.name for i in session.get_inputs()] for session in made]

    def batch(self, sources: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[list[int]]:
        """lengths: how many steps each text takes, END included."""
        ids, own = padded([[*s, END] for s in sources])
        seen = (np.arange(ids.shape[1]) < own[:, None])[:, None, None].astype(np.float32)
        memory = self.encoder.run(None, dict(zip(self._inputs[0], (ids.astype(np.int64), seen), strict=True)))
        left, alive = np.array(lengths), np.arange(len(sources))
        made: list[list[int]] = [[] for _ in sources]
        shape = (self.shape.layers, len(sources), self.shape.heads, 0, self.shape.head_width)
        k, v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        new = np.full(len(sources), BEGIN, np.int64)
        for step in range(int(left.max())):
            given = (new, np.array([step]), k, v, *memory, seen)
            new, k, v = self.step.run(None, dict(zip(self._inputs[1], given, strict=True)))
            for i, token in zip(alive, new.tolist(), strict=True):
                made[i].append(token)
            goes_on = left[alive] > step + 1
            if not goes_on.all():
                alive, new, seen, k, v = alive[goes_on], new[goes_on], seen[goes_on], k[:, goes_on], v[:, goes_on]
                memory = [m[:, goes_on] for m in memory]
        return made
