"""Messages of others' protocols, as far as they are used. The `.proto` files are ours and declare them with the protocols' own
names and numbers; `./dev proto` compiles them, and what it writes is checked in.
"""
