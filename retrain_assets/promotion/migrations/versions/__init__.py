"""One file per revision of the ledger's database; a file that was released is never changed."""
