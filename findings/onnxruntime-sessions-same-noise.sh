#!/usr/bin/env bash
# ONNX Runtime 1.31.1: two sessions of one process sample the same random numbers, though the node
# RandomNormalLike has no seed.
#
# Expected: without the attribute "seed" a new seed is generated, as ONNX's specification says, so
# two sessions, or the same model loaded twice, sample different noise.
# Observed: one seed is generated for the process, and each node adds its index. Ten sessions give
# ten copies of one sample. Two runs of one session differ.
# Output: sessions equal True, runs equal False
# Source: onnxruntime/core/providers/cpu/generator/random.h, and ONNX's operator RandomNormalLike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile onnxruntime==1.31.1 onnx==1.23.2
"$folder/bin/python" - <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

name = ("x", "y")
x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n"]) for each in name)
graph = helper.make_graph([helper.make_node("RandomNormalLike", ["x"], ["y"])], "noise", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
one, other = (onnxruntime.InferenceSession(model.SerializeToString()) for _ in range(2))


def noise(session):
    return session.run(None, {"x": np.zeros(100, np.float32)})[0]


first, same, later = noise(one), noise(other), noise(one)
print("sessions equal", np.array_equal(first, same), "runs equal", np.array_equal(first, later))
assert np.array_equal(first, same) and not np.array_equal(first, later)
END
