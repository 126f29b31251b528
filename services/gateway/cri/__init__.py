"""The CRI's image service, for kubelet and crictl: alone, or in front of the runtime that makes the containers.

catalog.py    the images of a store, as the CRI names and describes them
pulls.py      one call of PullImage: with whose secret, and what becomes of its failure
logins.py     the secrets that come with a call
service.py    alone: every call is answered here
front.py      in front: a pull is carried out here first, and everything goes on to the runtime
opening.py    builds either
"""
