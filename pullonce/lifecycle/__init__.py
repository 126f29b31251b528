"""The life of a store after a pull: what it still needs, what may go, and whether what it holds is right.

    things.py       what lies in a store and has a claim key: blobs and snapshots
    needs.py        what an image needs of them
    choice.py       which images may go                           (pure)
    air.py          which flights are in the air
    mounted.py      which snapshots somebody has mounted
    removal.py      take things out of a store under their claims
    shelf.py        take images off the list; pin them
    collect.py      gc: all of it together
    hashing.py      read blobs and say which are not what their digest says
    snapshot_check  compare snapshots with what their layers unpack to
    owed.py         images that were taken off the list as damaged, and not pulled since
    verify.py       find what is damaged, take it out, have it brought again

These run where the store lies, in a process of their own, as the user of the services. Not in a service: the mounts that the
caller sees count, and such work should be as easy to stop and to be polite about as any other command.
"""
