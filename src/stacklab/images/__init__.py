"""Where a guest image comes from: the user, the cache, the pinned cirros, or a tiny Linux built on the spot."""

from stacklab.images.find import GuestImage, find_image

__all__ = ["GuestImage", "find_image"]
