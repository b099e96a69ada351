"""The TOSA reference model behind the protocol of ``intsim.oracle.protocol``: runs in an environment of its own.

A script, not a module: only NumPy and tosa-tools are there, nothing of intsim. A call is one node. Its ``op`` is
a TOSA operator; its attributes are ``types`` (of the inputs), ``constants`` (which of them are), ``result`` (its
type) and those of the operator. A graph that the model calls UNPREDICTABLE or ERROR is answered as unsupported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tosa_reference_model
import tosa_serializer as ts

VERSION = 1
VALID = tosa_reference_model.GraphStatus.TOSA_VALID
SETTERS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "RESCALE": lambda a, s: a.RescaleAttribute(
        s["scale32"],
        getattr(ts.RoundingMode, s["rounding"]),
        s["per_channel"],
        s["input_unsigned"],
        s["output_unsigned"],
    ),
    "ARGMAX": lambda a, s: a.ArgMaxAttribute(s["axis"], ts.NanPropagationMode.PROPAGATE),
    "REDUCE_SUM": lambda a, s: a.ReduceSumAttribute(s["axis"]),
    "ARITHMETIC_RIGHT_SHIFT": lambda a, s: a.ArithmeticRightShiftAttribute(s["round"]),
    "LOGICAL_LEFT_SHIFT": lambda a, s: a.LogicalLeftShiftAttribute(),
    "LOGICAL_RIGHT_SHIFT": lambda a, s: a.LogicalRightShiftAttribute(),
    "TABLE": lambda a, s: a.TableAttribute(),
    "MATMUL": lambda a, s: a.MatMulAttribute(),
    "CLZ": lambda a, s: a.ClzAttribute(),
    "MUL": lambda a, s: a.MulAttribute(),
    "INTDIV": lambda a, s: a.IntDivAttribute(),
    "CAST": lambda a, s: a.CastAttribute(),
    "ADD": lambda a, s: a.AddAttribute(),
}


Array = np.ndarray[Any, Any]


class Unsupported(Exception):
    """The model gives no result that counts."""


def array(stated: Mapping[str, Any]) -> Array:
    kind = np.dtype(stated["dtype"]).newbyteorder("<")
    values = np.frombuffer(bytes.fromhex(stated["hex"]), kind)
    made: Array = values.astype(stated["dtype"]).reshape(stated["shape"])
    return made


def stated(a: Array) -> dict[str, Any]:
    little = a.astype(a.dtype.newbyteorder("<"))
    return {"dtype": a.dtype.name, "shape": list(a.shape), "hex": little.tobytes().hex()}


def node(op: str, attributes: Mapping[str, Any], inputs: Sequence[Array], wanted: Mapping[str, Any]) -> Array:
    """The one output of one node."""
    if op not in SETTERS:
        raise Unsupported(f"this worker builds no {op}")
    with tempfile.TemporaryDirectory() as folder:
        graph = ts.TosaSerializer(folder)
        names: list[str] = []
        feeds: dict[str, Array] = {}
        for index, (a, kind) in enumerate(zip(inputs, attributes["types"], strict=True)):
            dtype = getattr(ts.DType, kind)
            if index in attributes["constants"]:
                names.append(graph.addConst(list(a.shape), dtype, a).name)
            else:
                names.append(graph.addPlaceholder(list(a.shape), dtype, None).name)
                feeds[names[-1]] = np.ascontiguousarray(a)
        result = graph.addOutput(wanted["shape"], getattr(ts.DType, attributes["result"]))
        own = ts.TosaSerializerAttribute()
        SETTERS[op](own, attributes)
        graph.addOperator(getattr(ts.Op, op), names, [result.name], own)
        binary = bytes(graph.serialize())
        if attributes["result"] == "INT48":
            return by_command(binary, feeds, result.name, Path(folder))
    outputs, status = tosa_reference_model.run(binary, list(feeds.values()), debug_filename=os.devnull)
    if status != VALID:
        raise Unsupported(f"the reference model calls this graph {status.name}")
    return np.asarray(outputs[0]).reshape(wanted["shape"])


def by_command(binary: bytes, feeds: Mapping[str, Array], name: str, folder: Path) -> Array:
    """As ``node``; the Python entry gives no int48 out, the program does (as int64)."""
    (folder / "graph.tosa").write_bytes(binary)
    program = Path(tosa_reference_model.__file__).parents[1] / "bin" / "tosa_reference_model"
    command: list[Any] = [program]
    command += ["--tosa_file", folder / "graph.tosa", "--flatbuffer_dir", folder, "--output_dir", folder]
    command += ["--ofm_name", name, "--ofm_file", "out.npy"]
    for index, a in enumerate(feeds.values()):
        np.save(folder / f"in{index}.npy", a)
    if feeds:
        files = ",".join(f"in{index}.npy" for index in range(len(feeds)))
        command += ["--ifm_name", ",".join(feeds), "--ifm_file", files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if "UNPREDICTABLE" in said:
        raise Unsupported("the reference model calls this graph TOSA_UNPREDICTABLE")
    if done.returncode:
        raise RuntimeError(f"tosa_reference_model ended with exit code {done.returncode}: {said[-300:]}")
    made: Array = np.load(folder / "out.npy")
    return made


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    if request["say"] == "start":
        return {"version": VERSION, "name": "tosa", "versions": {"tosa-tools": metadata.version("tosa-tools")}}
    try:
        made = node(request["op"], request["attributes"], [array(a) for a in request["inputs"]], request["outputs"][0])
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except Exception as error:  # the model raises ValueError for a graph that it cannot build
        return {"error": f"{type(error).__name__}: {error}"}
    return {"outputs": [stated(made)]}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the model's own prints must not be taken for answers
    for line in sys.stdin:
        request = json.loads(line)
        if request["say"] == "stop":
            return
        answers.write(json.dumps({"id": request["id"], **answer(request)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
