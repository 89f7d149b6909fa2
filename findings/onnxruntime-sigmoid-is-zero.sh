#!/usr/bin/env bash
# ONNX Runtime 1.31.1, on a CPU (x86-64): Sigmoid of a float32 is 0 for every logit of -18 or less.
#
# Expected: sigmoid(-20) is 2.1e-9, which float32 holds as well as 1e-38, so the log of an exported
# probability is finite to logits of -87.
# Observed: 0, so the log of a probability is -inf where NumPy and PyTorch give -20. At -17 it is
# 8.9e-8, where 4.1e-8 is right, and more than at -16. Export logits.
# Output: -17 8.94e-08 -18 0.00e+00 -20 0.00e+00 numpy 2.061e-09
# Source: onnxruntime/core/mlas/lib/logistic.cpp, whose approximation clamps at -18 and 18.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile onnxruntime==1.31.1 onnx==1.23.2
"$folder/bin/python" - <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n"]) for each in ("x", "y"))
graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "sigmoid", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString())
logits = np.array([-17, -18, -20], np.float32)
values = session.run(None, {"x": logits})[0]
right = 1 / (1 + np.exp(-logits))
pairs = (f"{logit:.0f} {value:.2e}" for logit, value in zip(logits, values))
print(*pairs, f"numpy {right[2]:.3e}")
assert values[0] > 0 and values[1] == values[2] == 0 and right[2] > 2e-9
END
