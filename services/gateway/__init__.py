"""The gateway: containerd, Kubernetes, docker and podman use pullonce as they are. Each way in is a room of its own.

snapshotter/   containerd's snapshot service: layers of images are the store's own snapshots
mirror/        the distribution API, for whatever knows registry mirrors
cri/           the image service of the CRI
rpc/           gRPC over unix sockets, and the messages of others' protocols that are used
link.py        the bus, which may be away
credentials.py secrets that clients bring with a pull, kept for the fetcher
"""
