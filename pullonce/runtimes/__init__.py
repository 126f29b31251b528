"""The configuration of containerd, kubelet, docker, podman, CRI-O and k3s: what has to be in it so that they use the gateway.

What stands is never written anew: something is added to a file, a line at a time, or a file is put beside it.
"""
