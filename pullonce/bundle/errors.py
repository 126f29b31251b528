"""What stands in the way of a bundle."""

from pullonce.errors import PullonceError


class ConfigInvalid(PullonceError):
    """The image's config asks for what no runtime can start, or cannot be read."""


class OptionInvalid(PullonceError):
    """What was asked for on top of the image is not understood, or cannot be."""

    usage = True


class UserUnknown(PullonceError):
    """The image does not know the user or group that its process is to run as."""


class BundleRefused(PullonceError):
    """A bundle cannot be made, mounted or taken apart; the message says what to do."""
