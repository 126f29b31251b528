"""Parsers of what comes from outside, fed with bytes that nobody would write. `./dev fuzz [SECONDS] [SEED] [TARGET…]`.

The other tests draw the same examples each time: regression. These draw new ones each time: search. What failed is printed with
the seed that draws it again. To add a target: a row in one of the tables, and the table in `targets.py`.
"""
