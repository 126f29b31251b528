"""The mirror: the pull half of the distribution API, for whatever knows registry mirrors, out of the store while it fills.

names.py       what a request asks for, and of which registry
ranges.py      which bytes
guests.py      who asks: secrets that were shown, and what no runtime would send
refusals.py    what is said where we cannot, as the specification has it
pulls.py       pulls that clients wait for, one an image
catalog.py     which content belongs to which repository, and how large it is
questions.py   what only the fetcher can answer: it has the registries' logins, certificates and limits
access.py      who may have it
documents.py   manifests and indexes out of the store
manifests.py   answers about manifests
blobs.py       answers about blobs
following.py   a growing file, as far as it may be given
sending.py     from a file to a client, by the kernel where that can be
routes.py      all answers as one application
listening.py   where it is reached, and by how many at once
opening.py     everything put together
"""
