"""What OCI defines and pullonce computes: digests, references, platforms. Pure: no I/O."""
