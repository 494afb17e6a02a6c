"""Where torchwatch touches a training: the hooks, the step boundary, the arming of sampled steps."""

from torchwatch.attachment.attachment import Attachment

__all__ = ["Attachment"]
