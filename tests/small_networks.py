"""The architecture of the paper's section 3.1, which tests of several rooms train."""

ARCHITECTURE = {
    "factory": "mlp", "widths": [784, 32, 32, 32, 32, 3], "activation": "relu"}
