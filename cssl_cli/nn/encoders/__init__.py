"""Encoders, one file each or one for each family; the table `ENCODERS` has the names that recipes use.

An encoder's file defines

- `Settings`, a dataclass: the fields of a recipe's `encoder` block besides `name` and the weights to start from.
  Recipes read it without importing the file (recipe/declared.py): what it uses is imported, and loads no torch.
- `build(name, settings, channels) -> Encoder`, for images of so many channels, without storage: it is called under
  `torch.device("meta")`.
"""

ENCODERS = {
    "resnet18": "cssl_cli.nn.encoders.resnet",
    "resnet34": "cssl_cli.nn.encoders.resnet",
    "resnet50": "cssl_cli.nn.encoders.resnet",
    "resnet101": "cssl_cli.nn.encoders.resnet",
    "small": "cssl_cli.nn.encoders.small",
    "torchvision": "cssl_cli.nn.encoders.torchvision_models",
    "timm": "cssl_cli.nn.encoders.timm_models",
}
"""The table of encoders: `encoder.name` -> the module that builds it."""
