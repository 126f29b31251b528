"""The ledger: folds the log into tables and answers what happened, why it took so long, and what sharing saved."""
