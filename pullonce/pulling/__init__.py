"""One pull as a client sees it: what it asks for, which flight it joins, what it hears until the ending."""
