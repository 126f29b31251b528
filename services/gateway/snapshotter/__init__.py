"""containerd's snapshot service (`containerd.services.snapshots.v1`): the layers of images are the store's own snapshots.

    records.py    what there is: snapshots by their names at containerd                (pure)
    labels.py     what containerd says of the image a layer belongs to                 (pure)
    filters.py    the filters of List                                                  (pure)
    mounts.py     how a snapshot is mounted                                            (pure)
    trees.py      where trees lie, and how they are mounted as containerd sees them
    store.py      records in memory and on the disk, changed together
    offers.py     whether a layer is the store's to give, and giving it
    unlisting.py  images that were listed for containerd, and go with it
    answers.py    records as containerd reads them
    opening.py    all of it put together
    table.py      all records, in memory
    state.py      all records, on the disk
    places.py     directories of containers, and of layers that containerd unpacked itself
    layers.py     the store's side: what is there, held for containerd
    arrivals.py   layers that are on their way, and who waits for them
    service.py    the calls

What decides the design: containerd holds a lock while it calls Prepare, Commit, Update and Remove, and its collector wants the
same one. So those answer at once, from memory, and whoever has to wait for a layer waits in Stat, which takes no lock.
"""
