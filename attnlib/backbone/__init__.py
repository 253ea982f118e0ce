"""Networks that any feature-map mechanism plugs into by name."""

from attnlib.backbone.hrnet import HRNet
from attnlib.backbone.mobilenet import MobileNetV2
from attnlib.backbone.resnet import ResNet

__all__ = ["HRNet", "MobileNetV2", "ResNet"]
