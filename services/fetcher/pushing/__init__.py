"""Images of the store into registries: what is pushed, blob by blob, resumed where it broke."""
