"""One store on disk: blobs, images, snapshots, and what keeps them."""
