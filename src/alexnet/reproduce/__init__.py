"""The paper's claims as data, the runs that check them, their records, and the ledger that is made from the records."""
