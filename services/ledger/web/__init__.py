"""The ledger over HTTP: the page, its events, who may read them."""
