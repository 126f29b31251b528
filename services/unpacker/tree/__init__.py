"""Entries → a tree: what each entry asks for, carried out below one root, completed by the layers below."""
